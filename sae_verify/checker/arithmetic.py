"""Midpoint-radius arithmetic on float64 arrays, rounded outward. The only place where the checker rounds.

A `Ball(mid, rad)` stands for every real array v with |v - mid| <= rad, entry by entry; an entry of which either number
is not finite stands for every real number. Each operation returns a ball that contains every exact result. What is
trusted: IEEE 754 double precision in round-to-nearest for + - * / and sqrt, and that a matrix product sums products in
some order, fused or not. For a sum of n products any such order gives |computed - exact| <= gamma_n * sum |a||b| with
gamma_n = n u / (1 - n u) (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), plus n * eta
for underflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import Rejected

Array = NDArray[np.float64]

U = 2.0**-53
"""Unit roundoff."""
TINY = 2.0**-1000
"""Above anything that underflow can lose in the few operations of one step (each loses at most 2^-1075)."""
MAX_EXPONENT = 700.0
"""Of `exp`: beyond it a result, or its inverse, leaves the range of floats."""
FEW = 1.0 + 16 * U
"""Covers the rounding of at most eight operations on non-negative numbers."""


def up(radius: Any) -> Any:
    """Round a non-negative quantity, computed with at most eight operations, up."""
    return radius * FEW + TINY


def gamma(n: int) -> float:
    """An upper bound of gamma_(n + 2), the two extra roundings being those of the radius itself."""
    return (n + 2) * U * (1 + (n + 16) * 4 * U)


@dataclass(frozen=True, eq=False)
class Ball:
    """Every real array within `rad` of `mid`, entry by entry; `rad` is non-negative."""

    mid: Array
    rad: Array

    @classmethod
    def exact(cls, value: Any) -> Ball:
        """The one array whose entries are these floats."""
        mid = np.asarray(value, dtype=np.float64)
        return cls(mid, np.zeros(mid.shape))

    @classmethod
    def between(cls, low: Any, high: Any) -> Ball:
        """The smallest ball this arithmetic can give that contains [low, high]."""
        low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        mid = 0.5 * low + 0.5 * high
        return cls(mid, up(np.maximum(high - mid, mid - low)))

    @property
    def low(self) -> Array:
        """A lower bound, entry by entry: -inf where nothing is known, never NaN or inf."""
        value = self.mid - self.rad
        if not np.isfinite(value).all():
            return np.where(np.isfinite(value), np.nextafter(value, -np.inf), -np.inf)
        return np.nextafter(value, -np.inf) if self.rad.any() else value

    @property
    def high(self) -> Array:
        """An upper bound, entry by entry: inf where nothing is known, never NaN or -inf."""
        value = self.mid + self.rad
        if not np.isfinite(value).all():
            return np.where(np.isfinite(value), np.nextafter(value, np.inf), np.inf)
        return np.nextafter(value, np.inf) if self.rad.any() else value

    @property
    def magnitude(self) -> Array:
        """An upper bound of the absolute value, entry by entry."""
        value = np.abs(self.mid) + self.rad
        return np.where(np.isfinite(value), np.nextafter(value, np.inf), np.inf)

    def __getitem__(self, index: Any) -> Ball:
        return Ball(self.mid[index], self.rad[index])

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)

    def __add__(self, other: Ball) -> Ball:
        mid = self.mid + other.mid
        return Ball(mid, up(self.rad + other.rad + U * np.abs(mid)))

    def __sub__(self, other: Ball) -> Ball:
        return self + (-other)

    def __mul__(self, other: Ball) -> Ball:
        mid = self.mid * other.mid
        spread = np.abs(self.mid) * other.rad + np.abs(other.mid) * self.rad + self.rad * other.rad
        return Ball(mid, up(spread + U * np.abs(mid)))

    def __truediv__(self, other: Ball) -> Ball:
        """Quotient; where the divisor's ball meets zero or is not finite the radius is infinite."""
        with np.errstate(all="ignore"):
            mid = self.mid / other.mid
            room = np.nextafter(np.abs(other.mid) - other.rad, -np.inf)
            spread = self.rad / room + np.abs(mid) * (other.rad / room)  # a product may vanish before it is divided
            rad = np.where((room > 0) & np.isfinite(other.mid), up(up(spread + 2 * U * np.abs(mid))), np.inf)
        return Ball(mid, rad)


def hull(a: Ball, b: Ball) -> Ball:
    """A ball containing both."""
    return Ball.between(np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def clip_low(a: Ball, floor: float) -> Ball:
    """max(a, floor)."""
    return Ball.between(np.maximum(a.low, floor), np.maximum(a.high, floor))


def combine(x: Ball, matrix: Ball) -> Ball:
    """`x @ matrix` for x of shape (n,) and matrix of shape (n, m): shape (m,)."""
    n = x.mid.shape[0]
    size = np.abs(matrix.mid)
    # gamma multiplies the sum, not its terms: those may be so small that the product would underflow.
    spread = gamma(n) * (np.abs(x.mid) @ size)
    if x.rad.any():
        spread = spread + x.rad @ size
    if matrix.rad.any():
        spread = spread + (np.abs(x.mid) + x.rad) @ matrix.rad
    return Ball(x.mid @ matrix.mid, up(spread * (1 + 4 * gamma(n)) + n * TINY))


def combine_rows(x: Array, rows: Array, lengths: Array) -> Ball:
    """`x @ rows` for floats x (n,) and rows (n, d) whose l2 norms are at most `lengths`: one pass over the rows.

    The radius of every entry is the rounding of the whole, gamma_n * sum |x_j| ||row_j||: wider than `combine`'s.
    """
    n = len(x)
    spread = gamma(n) * float(np.abs(x) @ lengths) * (1 + 4 * gamma(n)) + n * TINY
    return Ball(x @ rows, np.full(rows.shape[1], up(spread)))


def project_rows(x: Ball, rows: Array, lengths: Array) -> Ball:
    """`rows @ x` for a vector x (d,) and floats rows (n, d), by Cauchy-Schwarz: one pass over the rows."""
    d = rows.shape[1]
    size, lost = float(norm(Ball.exact(x.mid)).high), float(norm(Ball.exact(x.rad)).high)
    return Ball(rows @ x.mid, up(lengths * up(gamma(d) * size + lost * (1 + 4 * gamma(d)))) + d * TINY)


def dot(x: Ball, y: Ball) -> Ball:
    """Inner product of two vectors: a ball of shape ()."""
    result = combine(x, Ball(y.mid[:, None], y.rad[:, None]))
    return Ball(result.mid[0], result.rad[0])


def total(x: Ball) -> Ball:
    """Sum of the entries."""
    return dot(x, Ball.exact(np.ones_like(x.mid)))


def sqrt(a: Ball) -> Ball:
    """Square root of a quantity known to be non-negative."""
    low = np.nextafter(np.sqrt(np.maximum(a.low, 0.0)), -np.inf)
    high = np.nextafter(np.sqrt(np.maximum(a.high, 0.0)), np.inf)
    return Ball.between(np.maximum(low, 0.0), high)


def squared_norm(x: Ball) -> Ball:
    """||x||^2, non-negative."""
    square = dot(x, x)
    return clip_low(square, 0.0)


def norm(x: Ball) -> Ball:
    """||x||_2, free of spurious overflow and underflow: x is first scaled by a power of two."""
    largest = float(np.max(x.magnitude, initial=0.0))
    if largest == 0.0:
        return Ball.exact(0.0)
    if not np.isfinite(largest):
        return Ball(np.asarray(np.inf), np.asarray(np.inf))
    if 2.0**-200 < largest < 2.0**200:  # squares neither overflow nor vanish
        return sqrt(squared_norm(x))
    scale = 2.0 ** max(-1000, min(1000, int(np.frexp(largest)[1])))
    # A division by a power of two is exact but for underflow, which the added radius covers.
    shrunk = Ball(x.mid / scale, up(x.rad / scale))
    result = sqrt(squared_norm(shrunk))
    return Ball(result.mid * scale, up(result.rad * scale))


def row_lengths(rows: Array) -> Array:
    """Upper bounds of the l2 norms of (n, d) rows of floats, for d up to 2^20.

    The factor covers gamma_d and the root; the constant covers squares that vanish below the float range.
    """
    return np.sqrt(np.einsum("nd,nd->n", rows, rows)) * (1 + 2.0**-30) + 2.0**-500


def exp(a: Array) -> Ball:
    """Exp of exact floats, by the standard library's correctly rounded decimal arithmetic.

    Raises:
        Rejected: a result would leave the range of floats.

    """
    if not bool((np.abs(a) <= MAX_EXPONENT).all()):
        raise Rejected(f"an exponent is beyond {MAX_EXPONENT:g}")
    context = Context(prec=40)
    values = [float(context.exp(context.create_decimal_from_float(float(v)))) for v in np.ravel(a)]
    mid = np.array(values).reshape(np.shape(a))
    return Ball(mid, up(4 * U * np.abs(mid)))
