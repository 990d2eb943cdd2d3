"""At most k active features: the best code found, and what is proven about all of them.

Above: matching pursuit with non-negativity and the largest features of the best code without a limit, both improved by
exchanges. Below: which k features are best is a hard question for k >= 2, so the lower bounds are those of relaxations
(theorem: cone-membership): the distance without the limit, or, where the features have bounds u, with sum(f / u) <= k;
the exact value for k = 1; and for k >= 2 a bound from the k largest cosines with x and the most negative cosine between
two rows. For k >= 2 all of them may be far below the code found, even where that is optimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_verify.errors import InputError
from sae_verify.geometry.codes import Member, Question, Separation, U, ask, distance_step, member, member_step
from sae_verify.geometry.cone import answer
from sae_verify.geometry.cone_solver import UnitRows, nearest
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.rows import Features, Matrix, Source, select

BETTER = 1e-12
"""Relative decrease of the residual that an exchange must bring."""
EXCHANGES = 2
"""Per active feature, before the search for a better one ends."""
REMOVALS = 64
"""Removals that are priced in one matrix product."""
BLOCK = 1024


@dataclass(frozen=True, eq=False)
class SparseCode:
    """The best code found with at most k active features, and proven lower bounds for all such codes.

    Attributes:
        question: with `active` = k.
        member: the code.
        separation: from the relaxation without the limit, or with sum(f / u) <= k; None if that reaches x. With a
            `total` it speaks of codes with that sum alone and does not count below.
        single: exact distance for k = 1, moved down by rounding; None otherwise.
        correlated: from cosines, for k >= 2; None if no cosine was given or nothing follows.
    """

    question: Question
    member: Member
    separation: Separation | None
    single: float | None
    correlated: float | None

    @property
    def residual(self) -> float:
        """Upper side: this code comes so near."""
        return self.member.residual

    @property
    def distance(self) -> float:
        """Lower side: the best of the lower bounds; for k >= 2 it may be far below the optimum."""
        return max(self._relaxed, self.single or 0.0, self.correlated or 0.0)

    @property
    def _relaxed(self) -> float:
        return self.separation.distance if self.separation and self.separation.total is None else 0.0

    @property
    def gap(self) -> float:
        """Residual minus distance."""
        return self.residual - self.distance

    def steps(self, point: int | None = None) -> list[dict[str, Any]]:
        """Evidence for the checker: the code, and the best lower bound if it is above 0."""
        steps = [member_step(self.question, self.member, point)]
        if self.distance <= 0.0:
            return steps
        if self.separation is not None and self._relaxed == self.distance:
            return [*steps, distance_step(self.question, self.separation, point)]
        claim = {"kind": "sparse-distance", **self.question.keys(point), "distance": self.distance}
        return [*steps, claim]


def sparse_code(
    source: Source,
    x: Array,
    active: int,
    features: Features = None,
    *,
    matrix: Matrix = "decoder",
    upper: float | Array | None = None,
    cosine: float | None = None,
) -> SparseCode:
    """The best code found with at most `active` positive entries, and lower bounds for all of them.

    For `active` >= 2 the lower bound may be far below the optimum: see above.

    Args:
        source: as for `cone.reach`, like the next ones.
        x: (d,) vector.
        active: k, from 0.
        features: the support that f may use; None for all.
        matrix: which rows of an SAE.
        upper: bound of every entry of f, or one a row; None for none.
        cosine: `opposite(...)` of the same rows, for a lower bound from correlations when k >= 2; None for no such
            bound. The checker computes it again, m^2 d operations.

    Raises:
        ShapeError, InputError, FeatureError: x, bounds, rows, features or k do not fit.

    """
    if isinstance(active, bool) or not isinstance(active, int) or active < 0:
        raise InputError(f"active is {active!r}", rule="it must be a number of features, from 0")
    question = ask(source, x, features, matrix=matrix, upper=upper, active=active)
    rows, bound = question.rows, question.upper
    finite = np.isfinite(bound)
    cost = None
    if active and finite.any():
        cost = np.where(finite & (bound > 0), 1.0 / (active * np.where(finite & (bound > 0), bound, 1.0)), 0.0)
    relaxed = answer(question, bound if active else np.zeros(len(bound)), cost)
    usable = (rows.length > 0) & (bound > 0)
    code = _Code(rows, question.x, bound, usable)
    best = code.fit(np.zeros(0, dtype=np.intp))
    if active and question.x.any() and usable.any():
        place = np.full(int(question.names.max()) + 1, -1)
        place[question.names] = np.arange(len(question.names))
        used = place[relaxed.member.features]
        size = relaxed.member.values * rows.length[used]
        starts = [code.pursue(active), code.fit(used[np.argsort(-size, kind="stable")[:active]])]
        best = min((code.exchange(start, active) for start in starts), key=lambda found: found.size)
    single = _single(question) if active == 1 else None
    correlated = _correlated(question, cosine) if active >= 2 and cosine is not None else None
    return SparseCode(question, member(question, best.index, best.value), relaxed.separation, single, correlated)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The best code on few rows."""

    index: Indices
    value: Array
    rest: Array

    @property
    def size(self) -> float:
        return float(np.linalg.norm(self.rest))


@dataclass(frozen=True, eq=False)
class _Code:
    """Greedy search for a support."""

    rows: UnitRows
    x: Array
    upper: Array
    usable: NDArray[np.bool_]

    def fit(self, index: Indices) -> _Fit:
        """The best admissible code on these rows; rows that end at zero are left out."""
        if not index.size or not self.x.any():
            return _Fit(index[:0], np.zeros(0), self.x)
        part = UnitRows(self.rows.stored[index], self.rows.length[index])
        found = nearest(part, self.x, self.upper[index])
        return _Fit(index[found.features], found.values, self.x - found.values @ part.stored[found.features])

    def gain(self, price: Array) -> Array:
        """How much the squared residual falls when one more row enters alone, from cosines; (m,) or (m, n)."""
        shape = (slice(None),) + (None,) * (price.ndim - 1)
        limit = (np.where(self.usable, self.upper, 0.0) * self.rows.length)[shape]
        step = np.clip(price, 0.0, limit)
        return np.where(self.usable[shape], step * (2 * price - step), 0.0)

    def pursue(self, active: int) -> _Fit:
        """Orthogonal matching pursuit with bounds: the row with the largest gain enters, all are fitted again."""
        found = self.fit(np.zeros(0, dtype=np.intp))
        while len(found.index) < active:
            further = self._entered(found)
            if further is None or not further.size < found.size * (1 - BETTER):
                break
            found = further
        return found

    def exchange(self, found: _Fit, active: int) -> _Fit:
        """Replace one feature by another while that shortens the residual."""
        for _ in range(EXCHANGES * active):
            better = self._exchanged(found)
            if better is None:
                return found
            further = self._entered(better) if len(better.index) < active else None
            found = min(better, further or better, key=lambda f: f.size)
        return found

    def _entered(self, found: _Fit) -> _Fit | None:
        """With the row of the largest gain; None if no row gains."""
        gain = self.gain(self.rows.price(found.rest))
        gain[found.index] = 0.0
        best = int(np.argmax(gain))
        return self.fit(np.append(found.index, best)) if gain[best] > 0.0 else None

    def _exchanged(self, found: _Fit) -> _Fit | None:
        """The exchange that looks best after a fit without the row that goes; None if it does not help."""
        best: tuple[float, _Fit, int, bool] | None = None
        for start in range(0, len(found.index), REMOVALS):
            fits = [self.fit(np.delete(found.index, i)) for i in range(len(found.index))[start : start + REMOVALS]]
            rests = np.stack([f.rest for f in fits], axis=1)  # (d, n)
            length = np.where(self.rows.length > 0, self.rows.length, np.inf)
            gain = self.gain((self.rows.stored @ rests) / length[:, None])  # (m, n)
            gain[found.index] = 0.0
            enters = np.argmax(gain, axis=0)
            left = (rests**2).sum(axis=0) - gain[enters, np.arange(len(fits))]
            i = int(np.argmin(left))
            if best is None or left[i] < best[0]:
                best = float(left[i]), fits[i], int(enters[i]), bool(gain[enters[i], i] > 0)
        if best is None:
            return None
        _, kept, enter, gains = best
        if not gains:
            return None
        trial = self.fit(np.append(kept.index, enter))
        return trial if trial.size < found.size * (1 - BETTER) else None


def _single(question: Question) -> float:
    """The least ||x - t d_j|| over all rows and admissible t, moved down by the rounding of the checker."""
    x, least = question.x, float(np.linalg.norm(question.x))
    for start in range(0, len(question.names), BLOCK):
        block = slice(start, start + BLOCK)
        rows, length = question.rows.stored[block], question.rows.length[block]
        there = np.where(length > 0, length, np.inf)
        t = np.clip((rows @ x) / there / there, 0.0, question.upper[block])
        rest = x - t[:, None] * rows
        least = min(least, float(np.sqrt(np.einsum("nd,nd->n", rest, rest).min(initial=np.inf))))
    size = float(np.linalg.norm(x))
    return max(0.0, least * (1 - 64 * (len(x) + 8) * U) - 64 * U * size)


def _correlated(question: Question, cosine: float) -> float | None:
    """From the k largest cosines and the most negative cosine of two rows; None if nothing follows."""
    assert question.active is not None
    kept = question.rows.length > 0
    count, d = min(question.active, int(kept.sum())), len(question.x)
    if not count:
        return None
    lost = 64 * (d + 8) * U
    mu = (max(0.0, cosine) + lost) if int(kept.sum()) > 1 else 0.0
    room = 1.0 - mu * (count - 1)
    if room <= lost:
        return None
    size = float(np.linalg.norm(question.x))
    price = np.maximum(question.rows.price(question.x)[kept], 0.0) + lost * size
    largest = float((np.partition(price, len(price) - count)[len(price) - count :] ** 2).sum())
    square = size**2 * (1 - lost) - largest / room * (1 + lost + 8 * count * U)
    return float(np.sqrt(square)) * (1 - lost) if square > 0 else None


def opposite(source: Source, features: Features = None, *, matrix: Matrix = "decoder") -> float:
    """Minus the most negative cosine between two different rows, from 0: once a dictionary, m^2 d operations.

    Zero rows do not count. Memory: blocks of rows against all. Errors as `rows.select`.
    """
    rows = UnitRows.of(np.ascontiguousarray(select(source, features, matrix), dtype=np.float64))
    kept = np.flatnonzero(rows.length > 0)
    worst = 0.0
    for start in range(0, len(kept), PAIRED):
        left = rows.unit(kept[start : start + PAIRED])
        for other in range(start, len(kept), BLOCK):
            cosines = left @ rows.unit(kept[other : other + BLOCK]).T
            if other == start:
                np.fill_diagonal(cosines, 0.0)
            worst = max(worst, -float(cosines.min()))
    return worst


PAIRED = 512
"""Rows whose cosines with a block of others are held at a time."""
