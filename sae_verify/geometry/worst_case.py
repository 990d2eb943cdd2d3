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
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular
from scipy.optimize import nnls

from sae_verify.geometry.held_cell import Array, HeldCell, Indices

BATCH = 50
"""Violated rows that enter the working set at once."""
VIOLATION = 1e-12
"""Relative to the row's and the point's length: what counts as violated. A search tolerance, no part of a proof."""
ROUNDS = 200
FAR = 1e7
"""How far the path is followed, in units of r / |c|, where the cell and not the ball ends it."""
VERTEX = 1e6
"""Times FAR: how far the multipliers of such an end are taken; what the ball still costs falls in proportion."""
SPAN = 1e-10
"""Relative to a normal's length: what is left of it beside the equalities. Below, the row is one of their combinations:
it cannot bind, and its remainder has no direction."""
NOTHING = 1e-140
"""Radii up to this have squares that underflow; only zero is returned, and the dual stays what it claims."""
DEPENDENT = 1e-10
"""Smallest diagonal entry of a triangular factor, of columns of length 1, that counts as independent."""


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
    upper: tuple[tuple[Indices, Array], ...]


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

    def add(self, delta: Array) -> bool:
        """Take in the most violated rows; False when none is violated."""
        found = False
        size = float(np.linalg.norm(delta))
        for index, half in enumerate(self.cell.half_spaces):
            excess = half.moved(delta) - half.slack
            candidates = np.flatnonzero(excess > 0)
            if not candidates.size:
                continue
            present = {f for i, f in zip(self.family, self.feature, strict=True) if i == index}
            length = np.linalg.norm(self.cell.free_part(half.wide(candidates, self.cell.width)), axis=1)
            binding = length > SPAN * np.linalg.norm(half.normals[candidates], axis=1)
            worst = candidates[binding & (excess[candidates] > VIOLATION * length * size)]
            worst = worst[np.argsort(-excess[worst])][:BATCH]
            new = [int(j) for j in worst if int(j) not in present]
            if not new:
                continue
            found = True
            self.family += [index] * len(new)
            self.feature += new
            added = self.cell.free_part(half.sign * half.wide(np.array(new), self.cell.width)).T  # (d, new)
            length = np.linalg.norm(added, axis=0)
            self.columns = np.concatenate([self.columns, added / length], axis=1)
            self.slack = np.concatenate([self.slack, half.slack[new] / length])
            self.length = np.concatenate([self.length, length])
            self.weight = np.concatenate([self.weight, np.zeros(len(new))])
        return found

    def solve(self, c: Array, theta: float) -> Array:
        """Nearest point of the working set's polyhedron to theta c; leaves its multipliers in `weight`.

        NNLS finds the face up to cancellation; the active set then goes on where theta is large and rows depend.
        """
        self.weight = _start(self.columns, self.slack, theta * c)
        barred = np.zeros(len(self.slack), dtype=bool)
        delta = theta * c
        for _ in range(3 * len(self.slack) + 20):
            on = np.flatnonzero(self.weight > 0)
            line = self.line(c)
            if line is None:
                self._thin_out()
                continue
            aim = theta * line.pull - line.back
            if (aim <= 0).any():  # as far as multipliers stay non-negative, then without the first that would not
                here, share = self.weight[on], np.full(len(on), np.inf)
                falls = aim <= 0
                share[falls] = here[falls] / (here[falls] - aim[falls])  # here is positive
                self.weight[on] = np.maximum(here + share.min() * (aim - here), 0.0)
                self.weight[on[share.argmin()]] = 0.0
                continue
            self.weight[on] = aim
            delta = line.start + theta * line.along
            excess = self.columns.T @ delta - self.slack
            excess[on] = -np.inf
            excess[barred] = -np.inf
            entering = int(excess.argmax())
            if excess[entering] <= VIOLATION * float(np.linalg.norm(delta)):
                break
            barred[entering] = not self._enter(entering, on, line, c, theta)
        return delta

    def _enter(self, entering: int, on: NDArray[np.intp], line: _Line, c: Array, theta: float) -> bool:
        """Give a violated row a multiplier; False if rounding allows none."""
        column = self.columns[:, entering]
        inner = line.q.T @ column
        if np.linalg.norm(column - line.q @ inner) > DEPENDENT:
            self.weight[entering] = np.finfo(float).tiny
            grown = self.line(c)
            place = int(np.searchsorted(on, entering))
            if grown is not None and theta * grown.pull[place] > grown.back[place]:
                return True
            self.weight[entering] = 0.0
            return False
        # A combination of the rows on: exchange it for the first whose multiplier reaches zero, as the simplex does.
        share = solve_triangular(line.r, inner)
        ratio = np.full(len(on), np.inf)
        falls = share > 1e-12
        ratio[falls] = self.weight[on][falls] / share[falls]
        step = float(ratio.min(initial=np.inf))
        if not np.isfinite(step):
            return False
        self.weight[on] = np.maximum(self.weight[on] - step * share, 0.0)
        self.weight[on[ratio.argmin()]] = 0.0
        self.weight[entering] = step
        return True

    def _thin_out(self) -> None:
        """Take dependent rows out of those with a multiplier; NNLS may leave some."""
        on = np.flatnonzero(self.weight > 0)
        _, r, order = qr(self.columns[:, on], mode="economic", pivoting=True)  # pyright: ignore[reportAssignmentType]
        diagonal = np.zeros(len(on))
        diagonal[: min(r.shape)] = np.abs(np.diag(r))
        dependent = diagonal <= 2 * DEPENDENT
        dependent[-1] |= not dependent.any()
        self.weight[on[order[dependent]]] = 0.0

    def nearest(self, c: Array, theta: float) -> Array:
        """Nearest point of the whole cell to theta c."""
        delta = self.solve(c, theta) if self.feature else theta * c
        for _ in range(ROUNDS):
            if not self.add(delta):
                break
            delta = self.solve(c, theta)
        return delta

    def line(self, c: Array) -> _Line | None:
        """The path on the present face; None if its normals are dependent."""
        on = self.weight > 0
        q, r = np.linalg.qr(self.columns[:, on])
        if on.sum() > len(c) or np.min(np.abs(np.diag(r)), initial=1.0) <= DEPENDENT:
            return None
        along = c
        for _ in range(2):  # twice, against cancellation: theta may be large
            along = along - q @ (q.T @ along)
        if np.linalg.norm(along) <= 1e-12 * np.linalg.norm(c) or len(r) >= self.cell.width - self.cell.rank:
            along = np.zeros_like(c)
        offset = solve_triangular(r, self.slack[on], trans=1)
        return _Line(q, r, q @ offset, along, solve_triangular(r, q.T @ c), solve_triangular(r, offset))


@dataclass(frozen=True, eq=False)
class _Line:
    """One piece of the path, without cancellation at large theta: D(theta) = start + theta * along.

    The normals with multipliers are q @ r, and their multipliers theta * pull - back.
    """

    q: Array
    r: Array
    start: Array
    along: Array
    pull: Array
    back: Array

    def theta(self, radius: float) -> float | None:
        """Where it leaves the ball; None if it never does."""
        growth, rest = float(self.along @ self.along), radius**2 - float(self.start @ self.start)
        return float(np.sqrt(rest / growth)) if growth > 0 and rest > 0 else None


def _start(columns: Array, slack: Array, target: Array) -> Array:
    """lambda >= 0 of the nearest point to `target` in {columns.T @ delta <= slack}, nearly; columns have length 1.

    Least distance programming by NNLS (Lawson and Hanson, ch. 23.4).
    """
    scale = float(np.linalg.norm(target))
    if scale == 0.0:
        return np.zeros(len(slack))
    excess = columns.T @ (target / scale) - slack / scale  # (k,)
    if (excess <= 0).all():
        return np.zeros(len(slack))
    stacked = np.concatenate([-columns, excess[None]])  # (d + 1, k)
    right = np.zeros(len(stacked))
    right[-1] = 1.0
    try:
        solution = nnls(stacked, right, maxiter=30 * len(slack) + 100)[0]
    except RuntimeError:  # it cycles on ties; start from nothing
        return np.zeros(len(slack))
    last = 1.0 - float(excess @ solution)
    return solution * (scale / last) if last > 0 else solution


def _empty(cell: HeldCell) -> _Face:
    return _Face(cell, [], [], np.zeros((cell.width, 0)), np.zeros(0), np.zeros(0), np.zeros(0))


def _follow(cell: HeldCell, c: Array, radius: float, last: float) -> tuple[Array, _Face, float]:
    """D(theta) for the largest theta <= last with ||D(theta)|| <= radius, with its face and theta."""
    face = _empty(cell)
    length = float(np.linalg.norm(c))
    theta = min(last, radius / length)
    delta = face.nearest(c, theta)
    low, high = 0.0, np.inf  # thetas whose points are known to be within the ball, and outside it
    for _ in range(120):
        size = float(np.linalg.norm(delta))
        low, high = (low, theta) if size > radius else (theta, high)
        if abs(size - radius) <= 1e-14 * radius or low >= last or low >= high * (1 - 1e-15):
            break
        line = face.line(c)
        leaves = None if line is None else line.theta(radius)
        proposed = last if leaves is None else min(leaves, last)
        if leaves is not None and abs(proposed - theta) <= 1e-14 * theta:
            break
        if not low < proposed < high:
            proposed = float(np.sqrt(low * high)) if high > 4 * low > 0 else 0.5 * (low + high)
        theta = proposed
        delta = face.nearest(c, theta)
    size = float(np.linalg.norm(delta))
    return (delta * (radius / size) if size > radius else delta), face, theta


def worst_case(cell: HeldCell, g: Array, radius: float) -> LinearOptimum:
    """max g . delta over the cell and the ball of this radius.

    Args:
        cell: the held cell.
        g: (d,) direction.
        radius: finite, not negative.
    """
    c = cell.free_part(g)
    if radius <= NOTHING or np.linalg.norm(c) <= 1e-14 * np.linalg.norm(g):
        delta, face, theta = np.zeros_like(g), _empty(cell), 1.0
    else:
        far = FAR * radius / float(np.linalg.norm(c))
        delta, face, theta = _follow(cell, c, radius, far)
    weights = [face.weight / theta]
    if face.feature and np.linalg.norm(delta) < (1.0 - 1e-9) * radius:
        # The cell alone ends the path: c itself is a combination of its normals, and no part of it pays for the ball.
        weights += _limit(face, c)
        if min(_dual(face, g, radius, weight)[0] for weight in weights) > g @ delta + 1e-12 * radius * np.linalg.norm(
            c
        ):
            face.nearest(c, VERTEX * theta)
            weights += [face.weight / (VERTEX * theta), *_limit(face, c)]
    weights = [np.pad(weight, (0, len(face.feature) - len(weight))) for weight in weights]
    found = min((_dual(face, g, radius, weight) for weight in weights), key=lambda proof: proof[0])
    return LinearOptimum(delta, float(g @ delta), *found)


def _limit(face: _Face, c: Array) -> list[Array]:
    """Multipliers of the face for theta without end, where there are any."""
    line = face.line(c)
    if line is None or (line.pull < 0).any():
        return []
    weight = np.zeros_like(face.weight)
    weight[face.weight > 0] = line.pull
    return [weight]


def _dual(
    face: _Face, g: Array, radius: float, weight: Array
) -> tuple[float, Array, tuple[tuple[Indices, Array], ...]]:
    """Dual value and multipliers, `equal` and `upper`, for weights of the working set's columns."""
    cell = face.cell
    upper, rest, cost = [], g, 0.0
    for index, half in enumerate(cell.half_spaces):
        mine = [i for i, f in enumerate(face.family) if f == index and weight[i] > 0]
        features = np.array([face.feature[i] for i in mine], dtype=np.intp)
        weights = weight[mine] / face.length[mine]
        upper.append((features, weights))
        rest = rest - half.sign * (weights @ half.wide(features, cell.width))
        cost += float(weights @ half.slack[features])
    equal = np.zeros(len(cell.equal))
    if cell.equal.size:
        length = np.linalg.norm(cell.equal, axis=1)
        there = length > 0
        unit = cell.equal[there] / length[there, None]
        equal[there] = np.linalg.lstsq(unit.T, rest, rcond=1e-12)[0] / length[there]
    return cost + radius * float(np.linalg.norm(rest - equal @ cell.equal)), equal, tuple(upper)


def project(cell: HeldCell, p: Array, radius: float) -> Array:
    """The point of the cell and the ball nearest to p, (d,)."""
    c = cell.free_part(p)
    if radius <= NOTHING or np.linalg.norm(c) <= 1e-14 * np.linalg.norm(p):
        return np.zeros_like(p)
    return _follow(cell, c, radius, 1.0)[0]
