"""Least squares over the free rows of a working set, with the others at zero or at their upper bound.

Faces are solved through small Gram matrices with iterative refinement. With a bound on cost . f, a face may hold one
row more than there are dimensions: cost is then one more coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs, solve_triangular

from sae_verify.geometry.held_cell import Array, Indices

potrf, potrs, pstrf = get_lapack_funcs(("potrf", "potrs", "pstrf"), dtype=np.float64)

INDEPENDENT = 1e-12
"""Smallest squared distance of a unit row from the span of the face. Closer rows cannot enter: Gram matrices square
the condition, and refinement needs some digits. Costs tightness only."""
REFINEMENTS = 2
"""Of a face's solution; each gains the digits that the squared condition leaves."""
SATURATED = 1e-12
"""What is left of a cost of 1 when it counts as used up. A search tolerance."""
ZERO, FREE, UPPER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Face:
    """The optimum with some rows free and some at their upper bound.

    Attributes:
        value: (w,) the code. residual: (d,). state: (w,).
        level: multiplier of the cost, 0 where that is not used up.
        tight: whether the cost was solved for as used up; the free rows may then be independent by cost alone.
    """

    value: Array
    residual: Array
    state: Indices
    level: float = 0.0
    tight: bool = False

    @property
    def size(self) -> float:
        """Length of the residual."""
        return float(np.linalg.norm(self.residual))


@dataclass(eq=False)
class Work:
    """The working set, in units where rows and x have length 1.

    Attributes:
        target: (d,) x. limited: whether the cost is bounded.
        lift: weight of the cost as one more coordinate of the rows, to keep apart those that differ in cost alone.
        index: (w,) features. rows: (w, d). gram: (w, w). upper, cost: (w,).
        state: (w,) ZERO, FREE or UPPER. value: (w,) the code.
    """

    target: Array
    limited: bool
    lift: float
    index: Indices
    rows: Array
    gram: Array
    upper: Array
    cost: Array
    state: Indices
    value: Array

    @classmethod
    def empty(cls, target: Array, limited: bool, lift: float) -> Work:
        """No rows."""
        none, nothing = np.zeros(0, dtype=np.intp), np.zeros(0)
        rows, gram = np.zeros((0, len(target))), np.zeros((0, 0))
        return cls(target, limited, lift, none, rows, gram, nothing, nothing, none, nothing)

    def add(self, index: Indices, rows: Array, upper: Array, cost: Array) -> None:
        """More rows, at zero."""
        cross = self.rows @ rows.T
        self.gram = np.block([[self.gram, cross], [cross.T, rows @ rows.T]])
        self.rows = np.concatenate([self.rows, rows])
        self.index = np.concatenate([self.index, index])
        self.upper, self.cost = np.concatenate([self.upper, upper]), np.concatenate([self.cost, cost])
        self.state = np.concatenate([self.state, np.full(len(index), ZERO)])
        self.value = np.concatenate([self.value, np.zeros(len(index))])

    def prune(self) -> None:
        """Forget rows at zero."""
        kept = np.flatnonzero(self.state != ZERO)
        self.index, self.rows, self.gram = self.index[kept], self.rows[kept], self.gram[np.ix_(kept, kept)]
        self.upper, self.cost = self.upper[kept], self.cost[kept]
        self.state, self.value = self.state[kept], self.value[kept]

    def room(self, state: Indices) -> float:
        """What the rows at their upper bounds leave of the cost."""
        full = state == UPPER
        return 1.0 - float(self.cost[full] @ self.upper[full])

    def _products(self, index: Indices, other: Indices, tight: bool) -> Array:
        """Products of unit rows; where the cost is used up, of rows with their cost as one more coordinate."""
        gram = self.gram[np.ix_(index, other)]
        cost = self.cost
        return gram + self.lift * np.outer(cost[index], cost[other]) if tight else gram

    def independent(self, wanted: Indices, tight: bool) -> Indices:
        """Those rows that keep the face's Gram matrix regular, by pivoted Cholesky of their Schur complement."""
        free = np.flatnonzero(self.state == FREE)
        schur = self._products(wanted, wanted, tight).copy()
        if free.size:
            factor, info = potrf(self._products(free, free, tight), lower=1, clean=1)
            if info:
                return wanted[:0]
            across = solve_triangular(factor, self._products(free, wanted, tight), lower=True, check_finite=False)
            schur -= across.T @ across
        _, pivot, rank, _ = pstrf(schur, tol=INDEPENDENT, lower=1)
        return wanted[np.sort(pivot[:rank] - 1)]

    def solve(self, state: Indices) -> Face | None:
        """The minimiser with the free rows unbounded, within the cost; None where Cholesky or the cost fails."""
        free, full = np.flatnonzero(state == FREE), np.flatnonzero(state == UPPER)
        target = self.target - self.upper[full] @ self.rows[full] if full.size else self.target
        room = self.room(state) if self.limited else np.inf
        if room < -SATURATED:
            return None
        value = np.where(state == UPPER, self.upper, 0.0)
        if not free.size:
            return Face(value, target, state)
        found = self._within(free, target, room) if self.limited else self._loose(free, target)
        if found is None or not np.isfinite(found[0]).all():
            return None
        value[free] = found[0]
        return Face(value, target - found[0] @ self.rows[free], state, *found[1:])

    def _loose(self, free: Indices, target: Array) -> tuple[Array, float, bool] | None:
        """The least squares solution over the free rows; with it level and tight of the face."""
        rows = self.rows[free]
        factor, info = potrf(self._products(free, free, False), lower=1)
        if info or np.min(np.diag(factor)) ** 2 < 0.01 * INDEPENDENT:
            return None
        z = potrs(factor, rows @ target, lower=1)[0]
        for _ in range(REFINEMENTS):
            z += potrs(factor, rows @ (target - z @ rows), lower=1)[0]
        return z, 0.0, False

    def _within(self, free: Indices, target: Array, room: float) -> tuple[Array, float, bool] | None:
        """The same within cost . z <= room, with the multiplier of the cost.

        With the cost used up, G z = b - level c and c . z = room; lift c c^T is added to G on both sides, which changes
        nothing on c . z = room and keeps rows apart that differ in cost alone.
        """
        loose = self._loose(free, target)
        if loose is not None and float(self.cost[free] @ loose[0]) <= room:
            return loose
        rows, cost, lift = self.rows[free], self.cost[free], self.lift
        if not cost.any():
            return loose
        factor, info = potrf(self._products(free, free, True), lower=1)
        if info or np.min(np.diag(factor)) ** 2 < 0.01 * INDEPENDENT:
            return None
        z, pull = np.zeros(len(free)), np.zeros(len(free))
        for _ in range(1 + REFINEMENTS):
            z += potrs(factor, rows @ (target - z @ rows) + lift * cost * (room - float(cost @ z)), lower=1)[0]
            pull += potrs(factor, cost - rows @ (pull @ rows) - lift * cost * float(cost @ pull), lower=1)[0]
        slope = float(cost @ pull)
        if not slope > 0:
            return None
        level = (float(cost @ z) - room) / slope
        return z - level * pull, max(level, 0.0), True

    def orthogonal(self, y: Array) -> Array:
        """Y without its part in the span of the free rows."""
        free = np.flatnonzero(self.state == FREE)
        factor, info = potrf(self._products(free, free, False), lower=1) if free.size else (None, 1)
        for _ in range(0 if info else REFINEMENTS):
            y = y - potrs(factor, self.rows[free] @ y, lower=1)[0] @ self.rows[free]
        return y
