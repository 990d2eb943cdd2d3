"""The threat ladder: the same prompts attacked under one restriction after another, each recovery replayed.

What counts as a recovery: a perturbation that the checker's arithmetic shows to lie, up to a distance far below
rounding, at an exactly admissible one (theorem: witness-nearby), that keeps everything held in the running SAE's own
dtype, and that lifts the readout of the real model, clamp active, above the claim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_verify.attacks import Attack, Pgd, attack, replay, smallest_radius
from sae_verify.attacks.variants import replay_variants
from sae_verify.certificates.weights import locate_sae
from sae_verify.checker import Rejected
from sae_verify.checker.admissible import admissible_within
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.cell import Cell
from sae_verify.checker.sae import Sae
from sae_verify.checker.weights import load_weights
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.inside import inside
from sae_verify.geometry.instance import Batch, TokenReadout
from sae_verify.problem import Problem
from sae_verify.sae import SAE

HELD = ("free", "preactivations", "defended", "code")
"""From the weakest restriction to the strictest; all but the first hold what the published attack holds, or more."""
INWARD = 2.0**-40
"""Relative: how far a perturbation is pulled towards zero, so that an exactly admissible one near it is within."""
ROOM = 2.0**-42
"""Relative: how far inside half-spaces it is put, so that the checker's rounding finds it there."""
BISECTIONS = 5
"""Of the bracket of radii between attacks that fail and attacks that do not."""
CLOSE = 1.03
"""A bracket narrower than this is not halved."""
FAR = 4.0
"""How much shorter the first trial may be, squared, when no attack has failed yet."""
MARGIN = 1e-5
"""How far above the claim the search aims, so that rounding in the run's own dtype does not undo the recovery."""
SHORTENED = (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3)
"""Factors that are tried one after another: a shorter perturbation is admissible too."""


@dataclass(frozen=True, eq=False)
class Found:
    """One perturbation of one prompt, replayed.

    Attributes:
        delta: (d,).
        value: readout of the real model, clamp active.
        strict: logit of the behaviour's token over all others there: positive iff the model would say it.
        held: what is held stayed, in the dtype that runs.
        within: distance to an exactly admissible perturbation; None if none is proved.
        violation: with several clamped layers, the largest relative violation of what is held at the later ones.
        displacement: the same, how far the state after the last clamp moves.

    """

    delta: Array
    value: float
    strict: float
    held: bool
    within: float | None
    violation: float | None = None
    displacement: float | None = None

    @property
    def admissible(self) -> bool:
        """Whether it counts at all."""
        return self.held and self.within is not None

    def recovers(self, tau: float = 0.0) -> bool:
        """Whether it is a recovery."""
        return self.admissible and self.value > tau

    @property
    def length(self) -> float:
        """||delta||."""
        return float(np.linalg.norm(self.delta))


@dataclass(frozen=True, eq=False)
class Rung:
    """What was found under one restriction.

    Attributes:
        batch: the prompts.
        shortest: the shortest recovery of each prompt; None where none was found.
        best: the perturbation with the highest readout, by budget (relative to ||h||), one a prompt.

    """

    batch: Batch
    shortest: tuple[Found | None, ...]
    best: dict[float, tuple[Found, ...]]

    def select(self, row: int) -> Rung:
        """The same for one prompt."""
        return Rung(
            self.batch.select([row]),
            (self.shortest[row],),
            {budget: (found[row],) for budget, found in self.best.items()},
        )


class Exact:
    """Asks the checker's own arithmetic, on the stored weights, whether perturbations are admissible."""

    def __init__(self, sae: SAE) -> None:
        """Read the SAE's files; InputError if it has none."""
        stored = locate_sae(sae)
        self.weights: Sae = load_weights(stored.path, stored.input_scale)
        self._cells: dict[tuple[int, int], tuple[Batch, Cell]] = {}

    def within(self, batch: Batch, row: int, delta: Array) -> float | None:
        """Distance from delta to an exactly admissible perturbation; None if none is known.

        x and h count as the float64 numbers that the attack saw; radii are for the caller to compare.
        """
        key = (id(batch), row)
        if key not in self._cells:
            problem, instance = batch.problem, batch.instances[row]
            places = ("x", "h") if problem.threat.at == "both" else (problem.threat.at or "h",)
            points = {place: Ball.exact(instance.x if place == "x" else instance.h) for place in places}
            cell = Cell(
                self.weights, points, problem.threat.held, problem.threat.features, tuple(problem.clamp.features)
            )
            cell = dataclasses.replace(cell, drift=problem.threat.drift or 0.0)
            self._cells[key] = (batch, cell)  # the batch is kept: its id stays its own
        try:
            with np.errstate(all="ignore"):
                return admissible_within(self._cells[key][1], Ball.exact(delta))
        except Rejected:
            return None


def climb(batch: Batch, budgets: Sequence[float], settings: Pgd, exact: Exact) -> Rung:
    """Attack every prompt at every budget, and look for its shortest recovery.

    Args:
        batch: prompts under one threat model; its radius plays no part.
        budgets: radii in units of ||h||.
        settings: of the ascent.
        exact: the checker's arithmetic.

    """
    norms = np.array([instance.norm_h for instance in batch.instances])
    tau = np.array([instance.tau for instance in batch.instances])
    every = np.arange(len(norms))
    found: dict[float, Attack] = {}
    low, known = np.zeros(len(norms)), None
    for budget in sorted(budgets, reverse=True):
        one = found[budget] = attack(batch, budget * norms * (1 - INWARD), settings)
        breaks = one.value > tau
        low = np.where(breaks, low, np.maximum(low, budget * norms))
        # The shortest attack that breaks the claim; where none does, the last one, which changes nothing.
        known = one if known is None else _where(breaks, one, known)
    assert known is not None
    lengths, shortest = smallest_radius(batch, settings, np.zeros(len(norms)), known)
    for _ in range(BISECTIONS):
        open_rows = every[np.isfinite(lengths) & (lengths > CLOSE * low)]
        if not open_rows.size:
            break
        high = lengths[open_rows]
        middle = np.sqrt(np.maximum(low[open_rows], high / FAR) * high)
        part = batch.select(open_rows.tolist())
        one = attack(part, middle, settings, hint=shortest[open_rows] * (middle / high)[:, None])
        good = one.value > tau[open_rows] + MARGIN
        low[open_rows] = np.where(good, low[open_rows], middle)
        shortest[open_rows] = np.where(good[:, None], one.delta, shortest[open_rows])
        lengths[open_rows] = np.where(good, np.linalg.norm(one.delta, axis=1), high)
    ended = Attack(shortest, np.where(np.isfinite(lengths), tau + MARGIN, -np.inf))
    lengths, shortest = smallest_radius(batch, settings, np.zeros(len(norms)), ended)
    reached = np.isfinite(lengths)
    confirmed = confirm(batch, np.where(reached[:, None], shortest, 0.0), exact)
    rows = {budget: confirm(batch, found[budget].delta, exact) for budget in sorted(budgets)}
    best = with_shortest(batch, rows, confirmed, np.where(reached, lengths, np.inf))
    return Rung(batch, shortest_of(batch, confirmed, best), best)


def with_shortest(
    batch: Batch, rows: Mapping[float, Sequence[Found]], confirmed: Sequence[Found], lengths: Array
) -> dict[float, tuple[Found, ...]]:
    """The finds at each budget; where one does not recover and the shortest perturbation fits and does, that one."""
    norms = np.array([instance.norm_h for instance in batch.instances])
    best: dict[float, tuple[Found, ...]] = {}
    for budget, row in rows.items():
        fits = lengths <= budget * norms * (1 - INWARD)
        best[budget] = tuple(
            short if ok and short.recovers(i.tau) and not one.recovers(i.tau) else one
            for one, short, ok, i in zip(row, confirmed, fits, batch.instances, strict=True)
        )
    return best


def _where(rows: NDArray[np.bool_], a: Attack, b: Attack) -> Attack:
    """a in these rows, b in the others."""
    return Attack(np.where(rows[:, None], a.delta, b.delta), np.where(rows, a.value, b.value))


def shortest_of(
    batch: Batch, confirmed: Sequence[Found], best: dict[float, tuple[Found, ...]]
) -> tuple[Found | None, ...]:
    """The shortest of everything that recovers, for each prompt."""
    result: list[Found | None] = []
    for row, instance in enumerate(batch.instances):
        candidates = [confirmed[row], *(found[row] for found in best.values())]
        good = [one for one in candidates if one.recovers(instance.tau)]
        result.append(min(good, key=lambda one: one.length, default=None))
    return tuple(result)


def confirm(batch: Batch, delta: Array, exact: Exact) -> list[Found]:
    """Replay perturbations (B, d) and ask the checker; what fails by rounding is shortened a little and tried again."""
    result: list[Found | None] = [None] * len(delta)
    rows = list(range(len(delta)))
    for factor in SHORTENED:
        part = batch if len(rows) == len(delta) else batch.select(rows)
        tried = np.stack(
            [
                inside(batch.instances[i].inner, delta[i] * (factor * (1 - INWARD)), np.inf, ROOM)
                if delta[i].any() and batch.problem.threat.held != "drift"
                else delta[i] * factor
                for i in rows
            ]
        )
        strict = replay_variants(against_all(part), tried[:, None])[:, 0]
        for i, one, shown, top in zip(rows, tried, replay(part, tried), strict, strict=True):
            within = exact.within(batch, i, one) if shown.held else None
            found = Found(one, shown.value, float(top), shown.held, within)
            kept = result[i]
            if kept is None or (found.admissible and not kept.admissible):
                result[i] = found
        rows = [i for i in rows if not (result[i] and result[i].admissible)]  # type: ignore[union-attr]
        if not rows:
            break
    return [one for one in result if one is not None]


def against_all(batch: Batch) -> Batch:
    """The same prompts read out as the behaviour's token against all others."""
    instances = tuple(dataclasses.replace(i, readout=TokenReadout(i.readout.positive, None)) for i in batch.instances)
    return dataclasses.replace(batch, instances=instances)


def with_threat(problem: Problem, held: str, drift: float | None = None) -> Problem:
    """The same problem under another restriction of the ladder, at its default point; the radius is a placeholder."""
    threat = dataclasses.replace(
        problem.threat,
        held=held,  # type: ignore[arg-type]
        at=None,
        features=None,
        radius=0.0,
        drift=drift,
    )
    return dataclasses.replace(problem, threat=threat)
