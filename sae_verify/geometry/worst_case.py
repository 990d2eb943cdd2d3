"""Linear worst case over a held cell and a ball, and projection onto both: one path, one active-set solver.

With c the free part of a direction, let D(theta) be the point of the cell nearest to theta c. It is
piecewise linear in theta and its norm grows, and

    argmax { g . delta : cell, ||delta|| <= r } = D(theta) with ||D(theta)|| = r  (c from g),
    projection of p onto cell and ball         = D(theta), theta = 1 or, if that is too long, ||D(theta)|| = r  (c
    from p).

On a face K with V = P W_K, G = V^T V, b = V^T c: D = theta c - V lambda with lambda = G^-1 (theta b - s_K), so that
||D||^2 = theta^2 (c.c - b.G^-1 b) + s_K.G^-1 s_K gives theta in closed form. Rows enter by constraint generation, most
violated first; lambda >= 0 by Lawson and Hanson's active set (Solving Least Squares Problems, ch. 23).

This is a search in floats. Nothing here is trusted: `worst_case` returns multipliers for the dual certificate
(theorem: linear-dual), whose value the checker recomputes, and points that are checked for admissibility.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from sae_verify.geometry.held_cell import Array, HeldCell

BATCH = 50
"""Violated rows that enter the working set at once."""
VIOLATION = 1e-12
"""Relative to the row's and the point's length: what counts as violated. A search tolerance, no part of a proof."""
ROUNDS = 200
FAR = 1e7
"""How far the path is followed where the cell's vertices, not the ball, end it; costs r |c| / (4 FAR) in the dual."""


@dataclass(frozen=True, eq=False)
class LinearOptimum:
    """Solution of max g . delta over the cell and the ball.

    Attributes:
        delta: (d,), feasible up to rounding.
        value: g . delta.
        dual: s . upper + r ||g - W equal - W upper||, at least the true maximum up to rounding.
        equal: (n,) multipliers of the cell's equalities.
        upper: per half-space family, (features, multipliers), multipliers positive.

    """

    delta: Array
    value: float
    dual: float
    equal: Array
    upper: tuple[tuple[Array, Array], ...]


@dataclass(eq=False)
class _Face:
    """Working set of half-spaces, with normals projected onto the equalities' null space."""

    cell: HeldCell
    family: list[int]
    feature: list[int]
    columns: Array  # (d, k), length 1
    slack: Array  # (k,), in the same units
    length: Array  # (k,), of the projected normals
    weight: Array  # (k,), lambda

    def add(self, theta_c: Array, delta: Array) -> bool:
        """Take in the most violated rows; False when none is violated."""
        found = False
        size = float(np.linalg.norm(delta))
        for index, half in enumerate(self.cell.half_spaces):
            excess = half.sign * (half.normals @ delta) - half.slack
            candidates = np.flatnonzero(excess > 0)
            if not candidates.size:
                continue
            present = {f for i, f in zip(self.family, self.feature, strict=True) if i == index}
            scale = np.linalg.norm(self.cell.free_part(half.normals[candidates]), axis=1) * size
            worst = candidates[excess[candidates] > VIOLATION * scale]
            worst = worst[np.argsort(-excess[worst])][:BATCH]
            new = [int(j) for j in worst if int(j) not in present]
            if not new:
                continue
            found = True
            self.family += [index] * len(new)
            self.feature += new
            added = self.cell.free_part(half.sign * half.normals[new]).T  # (d, new)
            length = np.linalg.norm(added, axis=0)
            self.columns = np.concatenate([self.columns, added / length], axis=1)
            self.slack = np.concatenate([self.slack, half.slack[new] / length])
            self.length = np.concatenate([self.length, length])
            self.weight = np.concatenate([self.weight, np.zeros(len(new))])
        return found

    def solve(self, target: Array) -> Array:
        """Nearest point of the working set's polyhedron to `target`; leaves its multipliers in `weight`."""
        self.weight = _multipliers(self.columns, self.slack, target)
        return target - self.columns @ self.weight

    def nearest(self, target: Array) -> Array:
        """Nearest point of the whole cell to `target`."""
        delta = self.solve(target) if self.feature else target
        for _ in range(ROUNDS):
            if not self.add(target, delta):
                break
            delta = self.solve(target)
        return delta

    def theta(self, c: Array, radius: float) -> float | None:
        """Where the path on the present face leaves the ball; None if it never does."""
        on = self.weight > 0
        q, r = np.linalg.qr(self.columns[:, on])
        if np.min(np.abs(np.diag(r)), initial=1.0) <= 1e-10 or len(r) >= self.cell.width - self.cell.rank:
            return None
        along = c - q @ (q.T @ c)  # what is left of c on the face
        offset = solve_triangular(r, self.slack[on], trans=1)  # the face's nearest point to zero is q @ offset
        rest = radius**2 - float(offset @ offset)
        growth = float(along @ along)
        if growth <= 1e-24 * float(c @ c) or rest <= 0:
            return None
        return float(np.sqrt(rest / growth))


def _multipliers(columns: Array, slack: Array, target: Array) -> Array:
    """Lambda >= 0 of the nearest point to `target` in {columns.T @ delta <= slack}; columns have length 1.

    Least distance programming by NNLS (Lawson and Hanson, ch. 23.4), then one exact solve on the support.
    """
    scale = float(np.linalg.norm(target))
    excess = columns.T @ (target / scale) - slack / scale  # (k,)
    if (excess <= 0).all():
        return np.zeros(len(slack))
    stacked = np.concatenate([-columns, excess[None]])  # (d + 1, k)
    right = np.zeros(len(stacked))
    right[-1] = 1.0
    solution = nnls(stacked, right, maxiter=30 * len(slack) + 100)[0]
    last = 1.0 - float(excess @ solution)
    weight = solution * (scale / last) if last > 0 else solution
    on = weight > 0
    q, r = np.linalg.qr(columns[:, on])
    if on.sum() <= len(target) and np.min(np.abs(np.diag(r)), initial=1.0) > 1e-10:
        polished = solve_triangular(r, q.T @ target - solve_triangular(r, slack[on], trans=1))
        if (polished > 0).all():
            weight[on] = polished
    return weight


def _empty(cell: HeldCell) -> _Face:
    return _Face(cell, [], [], np.zeros((cell.width, 0)), np.zeros(0), np.zeros(0), np.zeros(0))


def _follow(cell: HeldCell, c: Array, radius: float, last: float) -> tuple[Array, _Face, float]:
    """D(theta) for the largest theta <= last with ||D(theta)|| <= radius, with its face and theta."""
    face = _empty(cell)
    length = float(np.linalg.norm(c))
    theta = min(last, radius / length)
    delta = face.nearest(theta * c)
    low, high = theta, last
    for _ in range(80):
        grown = face.theta(c, radius)
        proposed = last if grown is None else min(grown, last)
        if not low < proposed < high:
            outside = proposed >= high
            proposed = high if (outside and np.isfinite(high)) else (low if proposed <= low else 0.5 * (low + high))
        if abs(proposed - theta) <= 1e-14 * theta:
            break
        theta = proposed
        delta = face.nearest(theta * c)
        size = float(np.linalg.norm(delta))
        if size > radius:
            high = theta
        else:
            low = theta
        if abs(size - radius) <= 1e-14 * radius or low >= last:
            break
    return delta, face, theta


def worst_case(cell: HeldCell, g: Array, radius: float) -> LinearOptimum:
    """Max g . delta over the cell and the ball of this radius.

    Args:
        cell: the held cell.
        g: (d,) direction.
        radius: finite, not negative.

    """
    c = cell.free_part(g)
    if radius == 0.0 or np.linalg.norm(c) <= 1e-14 * np.linalg.norm(g):
        delta, face, theta = np.zeros_like(g), _empty(cell), 1.0
    else:
        far = FAR * radius / float(np.linalg.norm(c))  # a vertex holds the path back: the ball is out of reach
        delta, face, theta = _follow(cell, c, radius, far)
    upper, pushed = [], np.zeros_like(g)
    cost = 0.0
    for index, half in enumerate(cell.half_spaces):
        mine = [i for i, f in enumerate(face.family) if f == index and face.weight[i] > 0]
        features = np.array([face.feature[i] for i in mine], dtype=np.intp)
        weights = face.weight[mine] / face.length[mine] / theta
        upper.append((features, weights))
        pushed = pushed + half.sign * (weights @ half.normals[features])
        cost += float(weights @ half.slack[features])
    rest = g - pushed
    equal = np.asarray(np.linalg.lstsq(cell.equal.T, rest, rcond=None)[0] if cell.equal.size else np.zeros(0), float)
    dual = cost + radius * float(np.linalg.norm(rest - cell.equal.T @ equal))
    return LinearOptimum(delta, float(g @ delta), dual, equal, tuple(upper))


def project(cell: HeldCell, p: Array, radius: float) -> Array:
    """The point of the cell and the ball nearest to p, (d,)."""
    c = cell.free_part(p)
    if radius == 0.0 or not np.linalg.norm(c) > 0:
        return np.zeros_like(p)
    return _follow(cell, c, radius, 1.0)[0]


def inside(cell: HeldCell, delta: Array, radius: float) -> Array:
    """`delta` pulled towards zero until half-spaces and ball hold in floats; equalities hold as near as floats go."""
    delta = cell.free_part(delta)
    factor = 1.0
    length = float(np.linalg.norm(delta))
    if length > radius:
        factor = radius / length
    for half in cell.half_spaces:
        moved = half.sign * (half.normals @ delta)
        tight = moved > half.slack
        if tight.any():
            factor = min(factor, float(np.min(half.slack[tight] / moved[tight])))
    return delta * (factor * (1.0 - 2.0**-40)) if factor < 1.0 else delta
