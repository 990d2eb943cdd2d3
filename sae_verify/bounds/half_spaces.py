"""Multipliers of the held cell's half-spaces for the last affine bound of a region.

Theorem: through-blocks (h). The least of constant + nu . s + max over the region of (g - nu C) . t, over nu >= 0, by a
quasi-Newton method on the few half-spaces that the present maximiser breaks; the checker takes any nu that is not
negative.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from sae_verify.checker.multipliers import Sparse
from sae_verify.checker.tail.halves import Halves, within
from sae_verify.checker.tail.proof import Done, Node, Weighed
from sae_verify.checker.tail.readout import Affine, Functional, affine
from sae_verify.checker.tail.region import Frame, Region
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.checker.tail.taylor import Taylor
from sae_verify.geometry.held_cell import Array

ROUNDS = 4
ENTER = 48
"""Half-spaces that enter at once, those that are broken most."""
SMOOTH = 1e-7
"""Relative to the gradient: rounds the corners of the function that is minimised."""
GAIN = 1e-6
"""Relative to what the bound exceeds its centre by: a smaller gain is not worth its place in the evidence."""
LEAST = 1e-9
"""Relative to the largest: smaller multipliers are dropped."""
CLEARLY = 1e-9
"""Relative to delta: what is broken by less is broken by rounding; leaving it out loses nothing in soundness."""
STEPS = 200
DESCENTS = 6
"""To a lower level that half-spaces prove, at most."""
NEAR = 1e-7
"""Relative to the largest level: a smaller descent ends the search for the least one."""
CAUTION = 1e-3
"""Of a descent that is held back, so that the next bound is still met. It costs tightness."""


def weigh(
    relaxation: Relaxation, region: Region, frame: Frame, bound: Affine
) -> tuple[dict[str, Sparse], Affine] | None:
    """Multipliers that lower the bound, and the bound that they give; None where there is next to nothing to gain."""
    halves = relaxation.halves
    if halves is None or not halves.count or not np.isfinite(bound.constant):
        return None
    chosen, values, gradient = np.zeros(0, dtype=np.intp), np.zeros(0), bound.gradient
    for _ in range(ROUNDS):
        entering = _broken(relaxation, halves, frame, bound.domain.box, gradient)
        fresh = np.setdiff1d(entering, chosen)
        if not fresh.size:
            break
        chosen = np.concatenate([chosen, fresh])
        columns, room = within(
            halves.rows[chosen], halves.room[chosen], relaxation.basis, relaxation.slip, region, frame
        )
        start = np.concatenate([values, np.zeros(len(fresh))])
        values = _least(bound.gradient, bound.domain.box, columns, room, start)
        gradient = bound.gradient - values @ columns
    used = values > LEAST * values.max(initial=0.0)
    if not used.any():
        return None
    named = halves.name(chosen[used], values[used])
    lowered = relaxation.weighed(bound, region, frame, named)
    return (named, lowered) if lowered.top < bound.top - GAIN * abs(bound.top - bound.value) else None


def least_weighed(
    relaxation: Relaxation, region: Region, frame: Frame, resid: Taylor, functional: Functional, value: float
) -> tuple[float, Node]:
    """A level that one affine bound proves with half-spaces, at most `value`, which it proves without; and the leaf."""
    best: tuple[float, Node] = value, Done()
    size = float(np.linalg.norm(functional.weight.mid)) + abs(float(functional.constant.mid))
    rho = float(np.sqrt(resid.centre @ resid.centre + functional.d_epsilon.mid))  # how fast the bound falls, nearly
    for _ in range(DESCENTS):
        found = weigh(relaxation, region, frame, affine(resid, functional, value))
        if found is None or not found[1].top <= 0:
            break
        best = value, Weighed(found[0], Done())
        step = -found[1].top / rho
        if step < NEAR * size:
            break
        value -= (1.0 - CAUTION) * step
    return best


def _broken(relaxation: Relaxation, halves: Halves, frame: Frame, box: int, gradient: Array) -> np.ndarray:
    """Half-spaces that the maximiser of a linear function over the region breaks, the most broken first."""
    ball = gradient[box:]
    size = float(np.linalg.norm(ball))
    t = np.concatenate([np.sign(gradient[:box]), ball / size if size > 0 else ball])
    delta = relaxation.basis @ (frame.centre + frame.columns @ t)
    over = halves.rows @ delta - halves.room
    broken = np.flatnonzero(over > CLEARLY * np.linalg.norm(delta))
    return broken[np.argsort(-over[broken])][:ENTER]


def _least(gradient: Array, box: int, columns: Array, room: Array, start: Array) -> Array:
    """argmin over nu >= 0 of nu . room + max (gradient - nu C) . t over the region's box and ball."""
    lengths = np.maximum(np.linalg.norm(columns, axis=1), 1e-300)
    rows, slack = columns / lengths[:, None], room / lengths
    scale = max(float(np.linalg.norm(gradient)), 1e-300)
    goal = gradient / scale

    def value(nu: Array) -> tuple[float, Array]:
        rest = goal - nu @ rows
        flat = np.sqrt(rest[:box] ** 2 + SMOOTH**2)
        size = float(np.sqrt(rest[box:] @ rest[box:] + SMOOTH**2))
        unit = np.concatenate([rest[:box] / flat, rest[box:] / size])
        return float(nu @ slack + flat.sum() + size), slack - rows @ unit

    found = minimize(
        value,
        start * lengths / scale,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1e6)] * len(start),
        options={"maxiter": STEPS, "ftol": 1e-13, "gtol": 1e-9},
    )
    return np.maximum(found.x, 0.0) * scale / lengths
