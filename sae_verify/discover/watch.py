"""A monitor put to the test on a problem: calibrated on benign prompts, judged on its attack and on evading ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.attacks import Pgd, attack, replay
from sae_verify.discover.evasion import evade, seen
from sae_verify.discover.monitor import Judged, Monitor, calibrate, judge
from sae_verify.discover.subject import Subject, chunks, residuals
from sae_verify.discover.tradeoff import clamp_edit
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import prepare
from sae_verify.problem import Clamp, Problem, Prompt

JUDGING = 0.3
"""Share of the benign prompts that only judge."""


@dataclass(frozen=True, eq=False)
class Watched:
    """What a monitor was worth.

    Attributes:
        monitor: as calibrated. at: what it read, h or x.
        prompts: of the problem. recovered: of them by the attack, replayed. evaded: recovered below every threshold by
            a perturbation made to be quiet.
        attacked: verdicts on the attack's recoveries. evading: on the quiet ones.
        excess: (recovered,) of the loudest detector for the attack; quietest: for the quiet ones. 1 is the threshold.
    """

    monitor: Monitor
    at: str
    prompts: int
    recovered: int
    evaded: int
    attacked: tuple[Judged, ...]
    evading: tuple[Judged, ...]
    excess: Array
    quietest: Array


def states(subject: Subject, prompts: Sequence[Prompt], clamp: Clamp | None = None) -> Array:
    """States at the hook and the last position, after the clamp if there is one; (N, d) float64."""
    encoded, found = subject.prompts(prompts), []
    edit = None if clamp is None else clamp_edit(subject, clamp)
    for (_, some), resid in zip(chunks(encoded), residuals(subject, encoded, edit), strict=True):
        found.append(resid[torch.arange(len(some)), some.last])
    return torch.cat(found).double().numpy()


def watch(
    problem: Problem,
    benign: Sequence[Prompt],
    *,
    rate: float = 0.1,
    at: str = "h",
    watched: Sequence[int] | None = None,
    search: Pgd | None = None,
    seed: int = 0,
) -> Watched:
    """Calibrate a monitor on benign prompts, attack the problem at its radius, and let the attack evade the monitor.

    Args:
        problem: the clamp, the threat and the prompts that are attacked.
        benign: prompts of normal use; 30% of them, drawn at random, only judge.
        rate: of false alarms, of all detectors together.
        at: what is read: the state after the clamp (h) or before it (x).
        watched: features that the first detector looks at; None for all.
        search: settings of the attack.
        seed: of the splits.

    Raises:
        InputError: too few benign prompts, or no perturbation recovers at the problem's radius.
    """
    if at not in ("h", "x"):
        raise InputError(f"at is {at!r}", rule="it must be 'h' or 'x'")
    order = np.random.default_rng(seed).permutation(len(benign))
    judging = int(np.ceil(JUDGING * len(benign)))
    usual = states(Subject.of(problem), benign, problem.clamp if at == "h" else None)
    monitor = calibrate(problem.sae, usual[order[judging:]], rate=rate, watched=watched, seed=seed)
    batch = prepare(problem)
    found = attack(batch, batch.radii, search or Pgd())
    shown = replay(batch, found.delta)
    hit = [b for b, (r, i) in enumerate(zip(shown, batch.instances, strict=True)) if r.held and r.value > i.tau]
    if not hit:
        raise InputError(
            "no perturbation recovers at the problem's radius",
            rule="a monitor is judged on recoveries",
            remedy="raise threat.radius, or hold less",
        )
    chosen, delta, radii = batch.select(hit), found.delta[hit], batch.radii[hit]
    quiet = evade(chosen, monitor, delta, radii, at=at)
    rest = usual[order[:judging]]
    return Watched(
        monitor,
        at,
        len(batch.instances),
        len(hit),
        int(quiet.evaded.sum()),
        judge(monitor, rest, seen(chosen, delta, at)),
        judge(monitor, rest, seen(chosen, quiet.delta, at)),
        quiet.before,
        quiet.excess,
    )
