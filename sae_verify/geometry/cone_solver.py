"""The code f whose f @ W is nearest to x among 0 <= f <= u with cost . f <= 1: an active set on a working set of rows.

All rows are priced with one matrix-vector product, the most violated join the working set, and the working set is
solved to its optimum: rows enter the face in batches, all rows that leave the bounds are dropped at once (TNT-NN:
Myre, Frahm, Lilja and Saar, 2017), and where that does not shorten the residual one row enters along the segment of
Lawson and Hanson (Solving Least Squares Problems, chapter 23), which always does. Memory: the weights, and a working
set of a few d rows.

This is a search in floats: what it returns are a code and a direction for the certificates of `cone`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sae_verify.geometry.cone_face import FREE, SATURATED, UPPER, ZERO, Face, Work
from sae_verify.geometry.held_cell import Array, Indices

Mask = NDArray[np.bool_]

VIOLATED = 1e-13
"""Relative to the residual: a row whose product with it is smaller does not enter. Costs tightness only."""
REACHED = 2.0**-50
"""Relative to |x| + the code's lengths: a residual this short is rounding, so the search ends."""
SHORTER = 1e-13
"""Relative decrease of the residual that counts as progress; below it are roundings."""
AT_BOUND = 1e-14
"""Relative: a free entry this close to its bound is rounding away from it. A search tolerance."""
FACES = 20_000
"""Face solutions before the search stops where it is (feasible, not optimal)."""


@dataclass(frozen=True, eq=False)
class UnitRows:
    """The rows d_j, and their lengths.

    Attributes:
        stored: (m, d) float64.
        length: (m,) l2 lengths; zero rows are legal.
    """

    stored: Array
    length: Array

    @classmethod
    def of(cls, stored: Array) -> UnitRows:
        """With the lengths computed; no copy."""
        return cls(stored, np.sqrt(np.einsum("md,md->m", stored, stored)))

    def unit(self, index: Indices) -> Array:
        """Some rows scaled to length 1, (n, d)."""
        return self.stored[index] / self.length[index, None]

    def price(self, y: Array) -> Array:
        """Cosine of each row times |y|, (m,); zero for zero rows."""
        return self.stored @ y / np.where(self.length > 0, self.length, np.inf)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The code found.

    Attributes:
        features: (n,) ascending, the rows in use. values: (n,) f > 0, in units of the stored rows.
        direction: (d,) the residual (x - f @ W) / |x|, orthogonal to the free rows up to rounding; zeros when reached.
    """

    features: Indices
    values: Array
    direction: Array


def nearest(rows: UnitRows, x: Array, upper: Array, cost: Array | None = None) -> Nearest:
    """Minimise ||x - f @ W|| over 0 <= f <= upper and cost . f <= 1.

    Args:
        rows: W, with lengths.
        x: (d,), not zero.
        upper: (m,) bounds, not negative, inf for none.
        cost: (m,) not negative; None for no such constraint.
    """
    size = float(np.linalg.norm(x))
    target = x / size
    usable = (rows.length > 0) & (upper > 0)
    bound = np.where(usable, upper, 0.0) * (np.where(usable, rows.length, 1.0) / size)
    price_of = np.zeros(len(bound)) if cost is None else cost * size / np.where(usable, rows.length, 1.0)
    d = len(x)
    costly = price_of[usable & (price_of > 0)]
    lift = float(np.median(costly)) ** -2 if costly.size else 0.0
    work = Work.empty(target, cost is not None, lift)
    search = _Search(work)
    entering = max(16, min(256, d // 4))
    while not search.finished:
        excess = np.where(usable, rows.price(search.face.residual) - search.entry_level() * price_of, -np.inf)
        excess[work.index] = -np.inf  # the working set is at its optimum
        count = min(entering, int((excess > VIOLATED * search.face.size).sum()))
        if not count:
            break
        new = np.argpartition(excess, len(excess) - count)[len(excess) - count :]
        if len(work.index) > 3 * d + entering:
            search.prune()
        work.add(new, rows.unit(new), bound[new], price_of[new])
        before = search.face.size
        search.optimise()
        if search.face.size >= before * (1 - SHORTER):
            break
    order = np.argsort(work.index[work.state != ZERO])
    chosen = np.flatnonzero(work.state != ZERO)[order]
    index = work.index[chosen]
    values = np.minimum(search.face.value[chosen] * (size / rows.length[index]), upper[index])
    return Nearest(index, values, search.direction())


class _Search:
    """The active set's state: the face it is on."""

    def __init__(self, work: Work) -> None:
        self.work, self.left = work, FACES
        self.face = Face(work.value, work.target, work.state)

    @property
    def finished(self) -> bool:
        return self.left <= 0 or self.face.size <= REACHED * (1.0 + float(self.work.value.sum()))

    def prune(self) -> None:
        self.work.prune()
        self.face = replace(self.face, value=self.work.value, state=self.work.state)

    def optimise(self) -> None:
        """To the optimum over the working set."""
        work = self.work
        batch, barred = len(work.index), np.zeros(len(work.index), dtype=bool)
        while not self.finished:
            level = self._level()
            excess = work.rows @ self.face.residual - level * work.cost
            gain = np.where(work.state == ZERO, excess, np.where(work.state == UPPER, -excess, -np.inf))
            gain[barred | (work.upper == 0)] = -np.inf
            wanted = np.flatnonzero(gain > VIOLATED * self.face.size)
            if not wanted.size:
                return
            wanted = wanted[np.argsort(-gain[wanted], kind="stable")]
            chosen = wanted[: max(batch, 1)]
            trial = self._drop(chosen) if batch > 1 and self._roomy(len(chosen)) else None
            if trial is None:
                chosen = work.independent(chosen, self.face.tight)
                if not chosen.size:
                    barred[wanted[: max(batch, 1)]] = True
                    continue
                trial = self._drop(chosen) if batch > 1 else self._segment(self._pair(chosen, wanted))
            if trial is not None and trial.size < self.face.size * (1 - SHORTER):
                self._accept(trial)
                barred[:] = False
                batch = min(2 * max(batch, 1), len(work.index))
            elif batch > 1:
                batch = min(batch, len(chosen)) // 4
            else:
                barred[wanted[0]] = True

    def _roomy(self, entering: int) -> bool:
        """Whether so many more free rows may be independent, so that it pays to try before finding out."""
        return int((self.work.state == FREE).sum()) + entering <= len(self.work.target)

    def _accept(self, trial: Face) -> None:
        """Take the face; with a cost, free rows that are at a bound go there, or they would fix a wrong level."""
        if self.work.limited:
            free, value, upper = trial.state == FREE, trial.value, self.work.upper
            low = free & (value <= AT_BOUND * np.max(value))
            high = free & ~low & (value >= upper * (1 - AT_BOUND))
            state = np.where(low, ZERO, np.where(high, UPPER, trial.state))
            trial = replace(trial, state=state, value=np.where(low, 0.0, np.where(high, upper, value)))
        self.face = trial
        self.work.state, self.work.value = trial.state, trial.value

    def _saturated(self) -> bool:
        """Whether the cost is used up by rows at their upper bounds alone."""
        work = self.work
        return work.limited and not (work.state == FREE).any() and self.work.room(work.state) <= SATURATED

    def entry_level(self) -> float:
        """The multiplier that a row outside the working set must exceed for an exchange to pay."""
        work = self.work
        if not self._saturated() or not (work.state == UPPER).any():
            return self.face.level
        full = work.state == UPPER
        return max(0.0, float(np.min(work.rows[full] @ self.face.residual / work.cost[full])))

    def _level(self) -> float:
        """The multiplier of the cost; where every row is at a bound, between those that would enter and leave."""
        if not self._saturated():
            return self.face.level
        work = self.work
        ratio = work.rows @ self.face.residual / np.where(work.cost > 0, work.cost, np.inf)
        high = float(np.max(ratio[work.state == ZERO], initial=0.0))
        low = float(np.min(ratio[work.state == UPPER], initial=np.inf))
        return max(0.0, 0.5 * (high + low)) if np.isfinite(low) else high

    def _pair(self, chosen: Indices, wanted: Indices) -> Indices:
        """One row, or where the cost is used up one that enters and one that makes room."""
        if not self._saturated():
            return chosen[:1]
        state = self.work.state[wanted]
        return np.concatenate([wanted[state == ZERO][:1], wanted[state == UPPER][:1]])

    def _solved(self, state: Indices) -> Face | None:
        self.left -= 1
        return self.work.solve(state)

    def _drop(self, entering: Indices) -> Face | None:
        """Free the entering rows, then put all that leave their bounds onto them at once until none does."""
        state = self.work.state.copy()
        state[entering] = FREE
        while True:
            face = self._solved(state)
            if face is None:
                return None
            low, high = self._outside(face)
            if not (low.any() or high.any()):
                return face
            state = state.copy()
            state[low], state[high] = ZERO, UPPER

    def _outside(self, face: Face) -> tuple[Mask, Mask]:
        free = face.state == FREE
        return free & (face.value <= 0), free & (face.value >= self.work.upper)

    def _segment(self, entering: Indices) -> Face | None:
        """Free the rows and walk towards the face's optimum, stopping wherever a row meets a bound."""
        state, at = self.work.state.copy(), self.work.value.copy()
        state[entering] = FREE
        while True:
            face = self._solved(state)
            if face is None:
                return None
            low, high = self._outside(face)
            if not (low.any() or high.any()):
                return face
            step = np.full(len(at), np.inf)
            with np.errstate(all="ignore"):
                step[low] = at[low] / (at[low] - face.value[low])
                step[high] = (self.work.upper[high] - at[high]) / (face.value[high] - at[high])
            step = np.where(np.isnan(step), 0.0, step)
            length = min(1.0, float(step.min()))
            free = state == FREE
            at[free] += length * (face.value[free] - at[free])
            state = state.copy()
            met = step <= length
            state[low & met], state[high & met] = ZERO, UPPER
            at[low & met], at[high & met] = 0.0, self.work.upper[high & met]

    def direction(self) -> Array:
        """The residual, made orthogonal to the free rows again where they are (where the level is zero)."""
        if self.face.size <= REACHED * (1.0 + float(self.work.value.sum())):
            return np.zeros(len(self.work.target))
        flat = self.face.level == 0.0  # with a level, the certificate adapts to what the direction gives
        return self.work.orthogonal(self.face.residual) if flat else self.face.residual
