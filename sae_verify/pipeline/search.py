"""The search: bounds and attacks of all prompts, each held against the other. Nothing is written, no verdict given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.attacks import Pgd, Replay, attack, replay, smallest_radius
from sae_verify.bounds import METHODS, Bound
from sae_verify.errors import SoundnessError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, Instance
from sae_verify.pipeline.deep import Deep, DeepBounds, nothing_deep
from sae_verify.pipeline.sought import certified_radius, least_value, sought

INWARD = 1e-9
"""Relative. Attacks are sought at a radius this much smaller, so that witnesses are exactly within the problem's."""
TAIL_ROUNDING = 1e-9
"""Relative to the readout's cap: what float64 rounding in the attack's tail may amount to in the sandwich check."""
RUN_ROUNDING = 1e-5
"""The same where blocks follow: there the tail's keys and values come from a run in the model's own dtype."""
SHORTENED = (1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3)
"""Factors for perturbations whose replay turned a held feature on or off: any shorter one is admissible too."""

Progress = Callable[[str, float], None]
"""Called with the stage and the fraction done."""


def silent(stage: str, fraction: float) -> None:
    """Tell nobody."""
    del stage, fraction


@dataclass(frozen=True, eq=False)
class Found:
    """What bounds and attacks found for one prompt, before it is written.

    Attributes:
        bounds: from the cheap to the costly. deep: of these, what passes through blocks found.
        witnesses: perturbations, (d,) each, with their replays.
        seconds: wall time, on average over the prompts.
        run_dtype, run_gap: in which the model ran, and how far the float64 tail is from it.
    """

    instance: Instance
    bounds: tuple[Bound, ...]
    deep: Deep
    witnesses: tuple[tuple[Array, Replay], ...]
    seconds: float
    run_dtype: str | None
    run_gap: float | None

    def upper(self, radius: float) -> float:
        """The least bound at the radius."""
        return least_value(self.bounds, radius)


def search(
    batch: Batch, settings: Pgd, progress: Progress = silent, deep: DeepBounds = nothing_deep
) -> tuple[Found, ...]:
    """Bounds, attacks and replays of all prompts.

    Raises:
        SoundnessError: an attack exceeded a bound.

    """
    count = len(batch.instances)
    start = time.perf_counter()
    cheap = [sought(instance, METHODS, METHODS) for instance in batch.instances]
    progress("attack", 0.05)
    inward = batch.radii * (1.0 - INWARD)
    worst = attack(batch, inward, settings)
    certified = np.array([certified_radius(found, i.tau) for found, i in zip(cheap, batch.instances, strict=True)])
    rounds = iter(np.linspace(0.1, 0.3, 60))
    lengths, shortest = smallest_radius(
        batch, settings, certified, worst, lambda: progress("radius", float(next(rounds, 0.3)))
    )
    progress("replay", 0.3)
    shortest = np.where(np.isfinite(lengths)[:, None], shortest, worst.delta)
    witnesses = [_replayed(batch, delta) for delta in (worst.delta, shortest)]
    costly = []
    for i, instance in enumerate(batch.instances):
        length = float(lengths[i])

        def tell(radius: float, i: int = i, size: float = instance.norm_h, length: float = length) -> None:
            known = f"proved to {radius / size:.3g} ‖h‖, breaks at {length / size:.3g} ‖h‖"
            progress(f"bounds, prompt {i + 1} of {count}, {known}", 0.35 + 0.6 * i / count)

        tell(certified_radius(cheap[i], instance.tau))
        costly.append(deep(instance, length, tell))
    seconds = (time.perf_counter() - start) / count
    bounds = [(*few, *more.bounds) for few, more in zip(cheap, costly, strict=True)]
    for instance, value, found in zip(batch.instances, worst.value, bounds, strict=True):
        check_sandwich(instance, float(value), found)
    progress("done", 1.0)
    agreement = batch.tail.agreement
    gaps = [None] * count if agreement is None else agreement.difference.amax(dim=0).tolist()
    dtype = None if agreement is None else str(agreement.dtype).removeprefix("torch.")
    return tuple(
        Found(instance, bounds[i], costly[i], _distinct(*(w[i] for w in witnesses)), seconds, dtype, gaps[i])
        for i, instance in enumerate(batch.instances)
    )


def _distinct(*witnesses: tuple[Array, Replay]) -> tuple[tuple[Array, Replay], ...]:
    """The witness at the radius and, if it is another one, the shortest."""
    first, shortest = witnesses
    return (first,) if np.array_equal(first[0], shortest[0]) else (first, shortest)


def check_sandwich(instance: Instance, value: float, bounds: tuple[Bound, ...]) -> None:
    """SoundnessError where an attack is above a bound: a defect, never a verdict."""
    for bound in bounds:
        covers = bound.radius is None or bound.radius >= instance.radius
        rounding = RUN_ROUNDING if instance.blocks_after else TAIL_ROUNDING
        allowance = rounding * (1.0 + float(np.linalg.norm(instance.functional(bound.against)[0])))
        if covers and value > bound.value + allowance:
            raise SoundnessError(
                f"prompt {instance.index}: an attack reached {value!r}, above the {bound.method} bound {bound.value!r}",
                rule="a bound holds for every admissible perturbation",
                remedy="report this with the problem file",
            )


def _replayed(batch: Batch, delta: Array) -> tuple[tuple[Array, Replay], ...]:
    """Each perturbation with its replay; where rounding flips a held feature, a slightly shorter one is tried."""
    found = list(zip(delta, replay(batch, delta), strict=True))
    for factor in SHORTENED:
        rows = [i for i, (_, result) in enumerate(found) if not result.held]
        if not rows:
            break
        shorter = delta[rows] * factor
        for i, one, result in zip(rows, shorter, replay(batch.select(rows), shorter), strict=True):
            if result.held:
                found[i] = (one, result)
    return tuple(found)
