"""The smallest radius at which an attack recovers the behaviour: Newton steps, then a search below what they found.

A Newton step replaces the readout by its linearisation and goes to the shortest admissible perturbation that lifts
that to the claim's level. What it finds is a local optimum, so the full ascent is then tried at shorter radii, until it
fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_verify.attacks.closed_form import first_order, value_and_gradient, values
from sae_verify.attacks.pgd import Attack, Pgd, ascend
from sae_verify.attacks.projection import project_batch
from sae_verify.geometry.drift_worst_case import least_drift_norm
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.inside import inside
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.least_norm import least_norm

NEWTON = 12
"""Newton steps at most."""
LEAST_CUT = 0.03
"""Relative: how much shorter the last trials of the full ascent are than the best perturbation."""
MOST_CUT = 0.4
TRIALS = 16
"""Most of them end sooner: the cut doubles where a trial succeeds, and starts over, once, where it fails."""
MARGIN = 1e-5
"""How far above the claim the readout is aimed, so that rounding in the run's own dtype does not undo the recovery."""


@dataclass(eq=False)
class _Shortest:
    """The shortest perturbation of each prompt that breaks the claim so far; lengths are inf where there is none."""

    tau: Array
    length: Array
    delta: Array

    def record(self, rows: Indices, delta: Array, value: Array) -> NDArray[np.bool_]:
        """Take in what is shorter; which rows were."""
        size = np.linalg.norm(delta, axis=1)
        better = (value > self.tau[rows] + 0.5 * MARGIN) & (size < self.length[rows])
        self.length[rows[better]] = size[better]
        self.delta[rows[better]] = delta[better]
        return better


def smallest_radius(
    batch: Batch,
    settings: Pgd,
    lower: Array,
    known: Attack,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:
    """The shortest admissible perturbation of each prompt that was found to break the claim.

    Args:
        batch: B prompts.
        settings: of the ascent.
        lower: (B,) radii below which there is none, e.g. certified ones; zero if unknown. Only saves time.
        known: the attack at the problem's radius.
        tick: called once a round, for progress.

    Returns:
        lengths (B,), inf where none was found, and the perturbations (B, d).
    """
    count, width = batch.h.shape
    everything = np.arange(count)
    tau = np.array([instance.tau for instance in batch.instances])
    limit = settings.largest * np.array([instance.norm_h for instance in batch.instances])
    best = _Shortest(tau, np.full(count, np.inf), np.zeros((count, width)))
    nothing = np.zeros((count, width))
    best.record(everything, nothing, values(batch, nothing[:, None])[:, 0])
    best.record(everything, known.delta, known.value)
    limit = np.minimum(limit, 1.001 * best.length)  # only what is shorter is looked for
    batch = batch.within(limit)
    for start in (np.zeros((count, width)), known.delta):
        _newton(batch, best, everything, start, limit, tick)
    _widen(batch, best, settings, limit, tick)
    open_rows, cut = everything[np.isfinite(best.length)], np.full(count, LEAST_CUT)
    for _ in range(TRIALS):
        tick()
        shares = 1.0 - cut[open_rows]
        open_rows = open_rows[best.length[open_rows] * shares > lower[open_rows]]
        if not open_rows.size:
            break
        shares = 1.0 - cut[open_rows]
        radii = best.length[open_rows] * shares
        part = batch.select(open_rows.tolist())
        starts = np.stack([best.delta[open_rows] * shares[:, None], first_order(part, radii)], axis=1)
        found = ascend(part, radii, starts, settings.steps // 2)
        shorter = best.record(open_rows, found.delta, found.value)
        again = cut[open_rows] > LEAST_CUT
        cut[open_rows] = np.where(shorter, np.minimum(2 * cut[open_rows], MOST_CUT), LEAST_CUT)
        if shorter.any():
            rows = open_rows[shorter]
            _newton(batch, best, rows, best.delta[rows], limit, tick)
        open_rows = open_rows[shorter | again]
    return best.length, best.delta


def _newton(batch: Batch, best: _Shortest, rows: Indices, start: Array, limit: Array, tick: Callable[[], None]) -> None:
    """Newton steps from `start`, (n, d), for these rows; whatever breaks the claim is recorded."""
    delta = start.copy()
    for _ in range(NEWTON):
        tick()
        part = batch.select(rows.tolist())
        value, gradient = value_and_gradient(part, delta[:, None])
        moved, alive = delta.copy(), np.zeros(len(rows), dtype=bool)
        for i, row in enumerate(rows):
            g = gradient[i, 0]
            level = float(best.tau[row]) + MARGIN - float(value[i, 0]) + float(g @ delta[i])
            one = part.instances[i]
            if one.outer.drift is not None:
                step = least_drift_norm(one.outer.drift, g, level, float(limit[row]))
            else:
                step = least_norm(one.inner, g, level, float(limit[row]))
            if step is not None:
                moved[i] = _admissible(part.select([i]), step, limit[row : row + 1])
                alive[i] = np.linalg.norm(moved[i] - delta[i]) > 1e-9 * np.linalg.norm(moved[i])
        best.record(rows, moved, values(part, moved[:, None])[:, 0])
        rows, delta = rows[alive], moved[alive]
        if not rows.size:
            return


def _admissible(batch: Batch, step: Array, limit: Array) -> Array:
    """The step of one prompt, (d,), made exactly admissible in floats."""
    if batch.problem.threat.held == "drift":
        return project_batch(batch, step[None, None], limit)[0, 0]
    return inside(batch.instances[0].inner, step, float(limit[0]))


def _widen(batch: Batch, best: _Shortest, settings: Pgd, limit: Array, tick: Callable[[], None]) -> None:
    """Where no Newton step ended above the claim: the full ascent at growing radii."""
    for share in (0.1, 0.3, 1.0):
        rows = np.flatnonzero(np.isinf(best.length))
        if not rows.size:
            return
        tick()
        part = batch.select(rows.tolist())
        radii = share * limit[rows]
        found = ascend(part, radii, first_order(part, radii)[:, None], settings.steps)
        best.record(rows, found.delta, found.value)
        rows = rows[np.isfinite(best.length[rows])]
        if rows.size:
            _newton(batch, best, rows, best.delta[rows], limit, tick)
