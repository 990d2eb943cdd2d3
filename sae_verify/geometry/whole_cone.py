"""Whether non-negative features reach every vector, with a proof of either answer.

Theorem: whole-cone. Rows B that span the space, and a code g >= 0 with g @ W = -(sum of B), together cancel with
positive weights: f = 1 on B plus g. If every vector is reached then so is that one; if it is not, the residual is a
direction in which no row has a positive part, and its distance from the cone is its whole length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

from sae_verify.geometry.codes import Question, U, ask, member
from sae_verify.geometry.cone import Reach
from sae_verify.geometry.cone_separation import separate
from sae_verify.geometry.cone_solver import UnitRows, nearest
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.rows import Features, Matrix, Source, select

potrf, potrs = get_lapack_funcs(("potrf", "potrs"), dtype=np.float64)
SPANNING = 1.25
"""Rows of B in units of d: more than d, so that they are well-conditioned; the fewer, the cheaper the proof."""
FLAT = 1e-6
"""Share of the largest eigenvalue of B's Gram matrix below which a direction counts as not spanned yet."""
SEED = 0
POLISH = 3
"""Projections of the weights onto exact cancellation, against rounding."""
RAISES = 50
FLOOR = 0.1
"""Of the median: smaller weights are raised towards it, within exact cancellation."""
SMALL = 1e-9
"""Weights below this share of the median are left out: the proof needs all to exceed the rounding of cancellation."""


@dataclass(frozen=True, eq=False)
class WholeCone:
    """The answer: `whole` is True, False, or None where floats cannot tell.

    Attributes:
        label: the rows as a statement names them.
        features, weights: evidence that the cone is everything, (n,) with n from d + 1 to about 2.25 d; else empty.
        total: every x is reached with sum(f) <= total * ||x||; None unless whole.
        separated: a vector that is not reached, with the proof of its distance. When undecided, possibly a vector
            that needs a code with a huge sum, if any reaches it.
    """

    whole: bool | None
    label: dict[str, Any]
    features: Indices
    weights: Array
    total: float | None
    separated: Reach | None

    def steps(self) -> list[dict[str, Any]]:
        """Evidence for the checker: kind whole-cone, or those of the separated vector; none if undecided."""
        if self.separated is not None:
            return self.separated.steps()
        if not self.whole:
            return []
        return [
            {
                "kind": "whole-cone",
                "theorem": "whole-cone",
                "rows": self.label,
                "features": self.features.tolist(),
                "weights": self.weights.tolist(),
                "total": self.total,
            }
        ]


def whole_cone(source: Source, features: Features = None, *, matrix: Matrix = "decoder") -> WholeCone:
    """Whether every vector is f @ W for some f >= 0.

    Cost: one nearest code with up to d active features, and d^3. Memory: the weights and a few d x d matrices.

    Args:
        source: an SAE (W is W_dec as stored, or W_enc's columns), or (m, d) rows.
        features: which rows; None for all.
        matrix: which rows of an SAE.

    Raises:
        ShapeError, InputError, FeatureError: rows or features do not fit.

    """
    d = select(source, matrix=matrix).shape[1]
    question = ask(source, np.zeros(d), features, matrix=matrix, upper=None)
    rows = question.rows
    base, missed = _spanning(rows, d)
    if missed is not None:
        return _not_whole(question, missed)
    target = -rows.unit(base).sum(axis=0)
    size = float(np.linalg.norm(target))
    weights = np.zeros(len(rows.length))
    weights[base] = 1.0  # of unit rows
    if size > 64 * U * len(base):
        found = nearest(rows, target, np.full(len(rows.length), np.inf))
        if found.direction.any():
            return _not_whole(question, found.direction)
        weights[found.features] += found.values * rows.length[found.features]
    return _proof(question, weights)


def _spanning(rows: UnitRows, d: int) -> tuple[Indices, Array | None]:
    """Rows that span the space, taken at random and where directions are missing; or a direction that none has."""
    usable = np.flatnonzero(rows.length > 0)
    order = np.random.default_rng(SEED).permutation(usable)
    chosen = order[: int(SPANNING * d) + 1]
    while True:
        unit = rows.unit(chosen)
        value, vector = np.linalg.eigh(unit.T @ unit)
        flat = vector[:, value <= FLAT * max(float(value[-1]), 1e-300)]  # (d, n)
        if not flat.shape[1]:
            return chosen, None
        taken = np.zeros(len(rows.length), dtype=bool)
        taken[chosen] = True
        left = np.flatnonzero((rows.length > 0) & ~taken)
        new = _along(rows, left, flat)
        if not new.size:
            return chosen, flat[:, 0]
        chosen = np.append(chosen, new)


def _along(rows: UnitRows, left: Indices, flat: Array) -> Indices:
    """For each direction the row that has most of it, if that is more than rounding."""
    best = np.zeros(flat.shape[1])
    which = np.full(flat.shape[1], -1)
    for start in range(0, len(left), 2048):
        part = left[start : start + 2048]
        share = np.abs(rows.unit(part) @ flat)
        top = np.argmax(share, axis=0)
        value = share[top, np.arange(flat.shape[1])]
        better = value > best
        best[better], which[better] = value[better], part[top[better]]
    return np.unique(which[best > 64 * U * len(flat)])


def _not_whole(question: Question, direction: Array) -> WholeCone:
    """The direction itself as the vector that is not reached; undecided where that is not proven for every f."""
    x = direction / np.linalg.norm(direction)
    asked = Question(x, question.rows, question.label, question.names, question.upper)
    found = separate(asked, x)
    empty, nothing = np.zeros(0, dtype=np.intp), np.zeros(0)
    if found is None:
        return WholeCone(None, question.label, empty, nothing, None, None)
    answered = Reach(asked, member(asked, empty, nothing), found)
    return WholeCone(False if found.total is None else None, question.label, empty, nothing, None, answered)


def _proof(question: Question, weights: Array) -> WholeCone:
    """Polished weights with their margins; undecided where the margins are within rounding.

    Rows are scaled by powers of two, as the checker does, and inverted likewise, so that `total` is what it finds.
    """
    at = np.flatnonzero(weights > 0)
    at = at[weights[at] > SMALL * np.median(weights[at])]
    stored = question.rows.stored[at]
    exponent = np.frexp(np.abs(stored).max(axis=1))[1]
    rows = np.ldexp(stored, -exponent[:, None])
    f = weights[at] * np.ldexp(1.0, exponent) / question.rows.length[at]
    factor, info = potrf(rows.T @ rows, lower=1)
    undecided = WholeCone(None, question.label, np.zeros(0, dtype=np.intp), np.zeros(0), None, None)
    if info:
        return undecided

    def cancelling(v: Array) -> Array:
        for _ in range(POLISH):
            v = v - rows @ potrs(factor, v @ rows, lower=1)[0]
        return v

    f = cancelling(f)
    for _ in range(RAISES):  # small weights make the margin and `total` bad, and there is room to raise them
        raised = f + cancelling(np.maximum(FLOOR * np.median(f) - f, 0.0))
        if not raised.min() > f.min():
            break
        f = raised
    if not (f > 0).all():
        return undecided
    inverse = potrs(factor, rows.T, lower=1)[0]  # (d, n), a left inverse
    lengths = np.linalg.norm(inverse, axis=0) * SLACK
    miss = float(np.linalg.norm(f @ rows)) + 4 * (len(f) + 4) * U * float(np.linalg.norm(np.abs(f) @ np.abs(rows)))
    room = f - lengths * miss
    if not (room > 0).all():
        return undecided
    code = lengths + float(np.max(lengths / room)) * (f + lengths * miss)
    total = float(np.ldexp(code, -exponent).sum()) * SLACK
    return WholeCone(True, question.label, question.names[at], np.ldexp(f, -exponent), total, None)


SLACK = 1 + 1e-5
"""Upwards: the checker's left inverse differs by rounding, as much as the condition of the normal equations allows."""
