"""Analytic and Chebyshev centres of a polyhedron inside a box, by Newton's method on logarithmic barriers.

In coordinates y of the equalities' null space, with rows v_j of length 1: the analytic centre minimises

    - sum_j log(slack_j - v_j . y) - sum_i log(limit^2 - y_i^2),

and its weights 1 / (slack_j - v_j . y) are positive and add the rows up to nearly zero. The Chebyshev centre maximises
r with v_j . y + r <= slack_j and |y_i| <= limit along the central path (Boyd and Vandenberghe, Convex Optimization,
sections 8.5 and 11.3). The box only keeps both finite; a ball's curved boundary would slow Newton's method down. Search
in floats; nothing here is trusted. Cost of a step: n q^2 + q^3 / 3 multiplications for n rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from sae_verify.geometry.held_cell import Array

STEPS = 100
"""Newton steps for one centre; a damped step lowers the barrier by a constant, and about ten are usual."""
CENTRED = 1e-9
"""Newton decrement, squared, at which a centre counts as reached."""
NEAR = 0.25
"""Newton decrement below which a full step stays inside and converges quadratically (Boyd and Vandenberghe, 9.6)."""
STEEPER = 10.0
"""Factor of one step along the central path."""
STAGES = 40
"""Of the central path at most; the gap falls by STEEPER in each."""
BACK = 0.95
"""Of the way to a boundary that one step may go."""
NOTHING = 1e-11
"""Of the limit: gaps that are not closed further; a ball this small has no interior in floats."""
RIDGE = 2.0**-46
"""Relative to the Hessian's largest entry: added when rounding has made it indefinite. Costs steps."""


@dataclass(frozen=True, eq=False)
class Centre:
    """A point of the central path.

    Attributes:
        point: (q,) y.
        room: r; 0 for the analytic centre.
        weights: (n,) 1 / (slack_j - v_j . y - r), positive.
        sides: (2, q) 1 / (limit - y) and 1 / (limit + y).
    """

    point: Array
    room: float
    weights: Array
    sides: Array


@dataclass(frozen=True, eq=False)
class Inscribed:
    """Centre (q,) and radius of an inscribed ball, and an upper bound of any inscribed ball's radius, by duality."""

    point: Array
    radius: float
    upper: float


def analytic_centre(rows: Array, slack: Array, limit: float) -> Centre:
    """The analytic centre of {y: rows @ y <= slack, |y_i| <= limit}.

    Args:
        rows: (n, q).
        slack: (n,) positive.
        limit: positive; where nothing bounds the polyhedron, the centre is about this far out.
    """
    return _newton(rows, _start(rows, slack, 0.0, limit), None)


def chebyshev_centre(rows: Array, slack: Array, limit: float, gap: float) -> Inscribed:
    """The largest ball in {y: rows @ y <= slack} whose centre has no coordinate beyond `limit`.

    Args:
        rows: (n, q) of length 1, at least one.
        slack: (n,) not negative.
        limit: positive.
        gap: relative to the radius: what the ball may still gain when the path ends.

    Returns:
        The ball; its radius is 0 up to rounding when the polyhedron has no interior.
    """
    scaled = slack / limit
    at = _start(rows, scaled, float(scaled.min()) - 1.0, 1.0)
    push, upper = float(len(scaled)), np.inf
    for _ in range(STAGES):
        at = _newton(rows, at, push)
        f = at.weights / at.weights.sum()
        # Any f >= 0 that sums to 1 proves r <= f . slack - (rows^T f) . y, and no coordinate of y is beyond 1.
        upper = min(upper, float(f @ scaled) + float(np.abs(f @ rows).sum()))
        if upper - at.room <= gap * at.room + NOTHING:
            break
        push *= STEEPER
    return Inscribed(limit * at.point, limit * at.room, limit * upper)


def _start(rows: Array, slack: Array, room: float, limit: float) -> Centre:
    width = rows.shape[1]
    return Centre(np.zeros(width), room, 1.0 / (slack - room), np.full((2, width), 1.0 / limit))


def _newton(rows: Array, start: Centre, push: float | None) -> Centre:
    """Minimise -push r - sum log(slack - rows y - r) - the box's barrier; r stays as it is without a push.

    Args:
        rows: (n, q).
        start: a point inside. Its gaps are carried along, never computed anew: rounding may leave those at zero.
        push: weight of r.
    """
    y, room, f, sides = start.point, start.room, start.weights, start.sides
    diagonal = np.diag_indices(rows.shape[1])
    for _ in range(STEPS):
        weighted = rows * f[:, None]
        hessian = weighted.T @ weighted
        hessian[diagonal] += (sides**2).sum(axis=0)
        slope = f @ rows + sides[0] - sides[1]
        solve = _solver(hessian)
        dy, dr = -solve(slope), 0.0
        decrement = -float(slope @ dy)
        if push is not None:
            mixed = f @ weighted
            along = solve(mixed)
            curve = float(f @ f) - float(mixed @ along)
            slope_room = float(f.sum()) - push
            dr = -(slope_room + float(mixed @ dy)) / curve if curve > 0 else 0.0
            dy = dy - dr * along
            decrement = -float(slope @ dy) - slope_room * dr
        if not decrement > CENTRED:
            break
        change, pressed = f * (rows @ dy + dr), sides * np.stack([dy, -dy])  # of each gap, relative to it
        share = _share(np.concatenate([change, *pressed]), (push or 0.0) * dr, decrement)
        if share == 0.0:
            break
        y, room = y + share * dy, room + share * dr
        f, sides = f / (1.0 - share * change), sides / (1.0 - share * pressed)
    return Centre(y, room, f, sides)


def _share(change: Array, pushed: float, decrement: float) -> float:
    """How far to go along a step: inside, and so that the barrier falls; 0 when rounding lets it fall no more.

    Args:
        change: of each gap by the whole step, relative to the gap.
        pushed: what the whole step gains apart from the barrier.
        decrement: of Newton's method, squared.
    """
    if decrement <= NEAR**2:
        return 1.0
    share = min(1.0, BACK / max(float(change.max()), BACK))
    for _ in range(60):
        if float(np.log1p(-share * change).sum()) + share * pushed >= 0.1 * share * decrement:
            return share
        share *= 0.5
    return 0.0


def _solver(hessian: Array) -> Callable[[Array], Array]:
    """x -> hessian^-1 x, with a ridge where rounding made it indefinite."""
    ridge, largest = 0.0, float(np.abs(hessian).max(initial=0.0))
    while True:
        try:
            factor = cho_factor(hessian + ridge * np.eye(len(hessian)) if ridge else hessian)
        except LinAlgError:
            ridge = max(16.0 * ridge, RIDGE * largest)
            continue
        return lambda x: cho_solve(factor, x)
