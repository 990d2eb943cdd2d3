"""How many singular values of decoder rows or encoder columns are small, and that all others are not.

Theorem: spectral-gap. The upper side multiplies the rows with the directions given; the lower side adds the directions
to the rows and factors the Gram matrix of both. Nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, gamma, norm, row_lengths, sqrt
from ..definite import BLOCK, at_least, gram
from ..errors import Rejected
from ..independence import defect
from ..reader import Reader
from .rank import describe
from .subject import Kind, Subject, need

RANGE = 2.0**300
"""Largest entries beyond it, or below its inverse, are refused: squares must neither overflow nor vanish."""


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    stored = subject.rows(step)
    if step.text("side", ("directions", "rows")) == "directions":
        rows = stored
    else:
        need(len(stored) <= stored.shape[1], "the side of the rows is for no more rows than dimensions")
        rows = stored.T
    size = rows.shape[1]
    need(size > 0, "there are no singular values to speak of")
    vectors = step.matrix("vectors", size)
    few = len(vectors)
    need(few <= size, f"{few} directions in {size} dimensions")
    highest = max(float(np.max(rows, initial=0.0)), -float(np.min(rows, initial=0.0)))
    need(highest == 0.0 or 1.0 / RANGE <= highest <= RANGE, f"the largest weight, {highest:.3g}, is out of range")
    at_most, lower = _optional(step, "at_most"), _optional(step, "at_least")
    if at_most is None and lower is None:
        raise Rejected("singular values need an upper side, a lower side or both")
    need(at_most is None or few > 0, "an upper side needs directions")
    need(lower is None or few < size, "a lower side needs directions that are left out")
    if at_most is not None and lower is not None:
        need(at_most < lower, "the two sides meet, so that no number of singular values is exact")
    if at_most is not None:
        _small(rows, vectors, at_most)
    if lower is not None:
        _large(rows, vectors, lower)
    text = f"{describe(step, len(stored))}: {_words(few, size, at_most, lower)}"
    return text, {"small": few, "of": size, "at_most": at_most, "at_least": lower}


def _optional(step: Reader, key: str) -> float | None:
    """A number from 0, or null."""
    if step.raw(key) is None:
        return None
    value = step.number(key)
    if value < 0:
        raise step.fail(key, "must not be negative")
    return value


def _small(rows: Array, vectors: Array, claimed: float) -> None:
    """||A w|| <= claimed ||w|| for every w in the span of the directions, of dimension k."""
    size, few = rows.shape[1], len(vectors)
    turn = defect(vectors, vectors.T)  # ||V^T V - I||
    need(turn < 0.5, "the directions are not provably near orthonormal")
    shortest = sqrt(Ball.exact(1.0) - Ball.exact(turn))
    lengths = norm(Ball.exact(np.concatenate([row_lengths(part) for part in _parts(rows)] or [np.zeros(1)])))
    longest = sqrt(Ball.exact(float(few)) * (Ball.exact(1.0) + Ball.exact(turn)))  # at least ||V||_F
    # Entry i, j of the product is off by gamma |a_i| |v_j|, and by underflow of each of its terms.
    count = math.sqrt(float(max(1, len(rows)) * few)) * size * 2.0**-1000
    rounding = Ball.exact(gamma(size)) * lengths * longest + Ball.exact(count)
    level = float((Ball.exact(claimed) * shortest - rounding).low)
    need(level > 0, f"an upper side of {claimed:.3g} is below what rounding lets be proven here")
    products, error = gram((part @ vectors.T for part in _parts(rows)), few)
    square = float((Ball.exact(level) * Ball.exact(level)).low)
    need(at_least(-products, error, -square), f"the directions are not proven to stay below {claimed:.9g}")


def _large(rows: Array, vectors: Array, claimed: float) -> None:
    """||A x|| >= claimed ||x|| for every x orthogonal to the directions, a space of dimension d - k or more."""
    square = float((Ball.exact(claimed) * Ball.exact(claimed)).high)
    lengths = norm(Ball.exact(np.concatenate([row_lengths(part) for part in _parts(rows)] or [np.zeros(1)])))
    typical = float(lengths.high) / math.sqrt(rows.shape[1])
    # Any factor is sound: x sees none of it. This one lifts the small directions above the claim and little further.
    added = vectors * (2.0 * max(claimed, typical))
    matrix, error = gram((part for source in (rows, added) for part in _parts(source)), rows.shape[1])
    need(at_least(matrix, error, square), f"the other directions are not proven to stay above {claimed:.9g}")


def _parts(rows: Array) -> Iterator[Array]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _words(few: int, size: int, at_most: float | None, lower: float | None) -> str:
    """The claim, with its numbers in full: rounding them for print might claim more."""
    if at_most is not None and lower is not None:
        return f"exactly {few:,} of {size:,} singular values <= {at_most!r}, the others >= {lower!r}"
    if at_most is not None:
        many = f"all {size:,}" if few == size else f"at least {few:,} of {size:,}"
        return f"{many} singular values <= {at_most!r}"
    many = f"all {size:,}" if few == 0 else f"at least {size - few:,} of {size:,}"
    return f"{many} singular values >= {lower!r}"


KIND = Kind(
    theorem="spectral-gap",
    keys=("rows", "side", "vectors", "at_most", "at_least"),
    prove=_prove,
)
