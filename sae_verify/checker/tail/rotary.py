"""Rotary positions in exact reals: entry i of a head, of width d_head, turns by position * base^(-2 i / d_head).

Models compute the angles in float32; the exact ones are those the formula means, and what is certified.
The tables come from decimal arithmetic with `_DIGITS` digits. No intermediate number reaches 2^50, and a value takes
fewer than 10^4 operations, each wrong by at most one unit of its last digit: before it is rounded to the nearest float
an entry is wrong by less than `_ERROR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from functools import cache, lru_cache

import numpy as np

from ..arithmetic import Array, Ball, U, up
from ..errors import Rejected

MAX_POSITION = 2**24
"""Positions of a prompt lie below it, so that angles do not eat up the digits."""
_DIGITS = 60
_SMALL = Decimal(10) ** -_DIGITS
_ERROR = 1e-30


def tables(base: float, d_head: int, positions: Sequence[int]) -> tuple[Ball, Ball]:
    """(cos, sin) of shape (len(positions), d_head) each; the second half of a row repeats the first.

    Args:
        base: at least 1.
        d_head: even.
        positions: from zero.

    """
    if d_head % 2 or not base >= 1.0 or not all(0 <= position < MAX_POSITION for position in positions):
        raise Rejected(f"no rotary table for base {base}, width {d_head} and positions {list(positions)[:8]}")
    rows = [_row(base, d_head, position) for position in positions]
    halves = np.array(rows).reshape(len(rows), 2, d_head // 2)
    mid = np.concatenate([halves, halves], axis=-1)  # (T, 2, d_head)
    rad = up(U * np.abs(mid) + _ERROR)  # the first is at least half the distance to the next float
    return Ball(mid[:, 0], rad[:, 0]), Ball(mid[:, 1], rad[:, 1])


def rotate(x: Ball, cos: Ball, sin: Ball) -> Ball:
    """Rotate x (..., T, d_head), halves paired: x cos + (-x2, x1) sin, with tables (T, d_head)."""
    half = x.mid.shape[-1] // 2
    swapped = Ball(
        np.concatenate([-x.mid[..., half:], x.mid[..., :half]], axis=-1),
        np.concatenate([x.rad[..., half:], x.rad[..., :half]], axis=-1),
    )
    return x * cos + swapped * sin


@lru_cache(maxsize=8192)
def _row(base: float, d_head: int, position: int) -> Array:
    """(2, d_head / 2): cos and sin at one position, nearest floats."""
    values = [_cos_sin(position, angle) for angle in _angles(base, d_head)]
    return np.array([[float(cos) for cos, _ in values], [float(sin) for _, sin in values]])


@cache
def _angles(base: float, d_head: int) -> tuple[Decimal, ...]:
    """base^(-2 i / d_head) for i below d_head / 2."""
    with localcontext(Context(prec=_DIGITS)):
        logarithm = Decimal(base).ln()
        return tuple((logarithm * (-2 * i) / d_head).exp() for i in range(d_head // 2))


def _cos_sin(position: int, step: Decimal) -> tuple[Decimal, Decimal]:
    """Of position * step: the exponential series, after whole turns are taken off."""
    with localcontext(Context(prec=_DIGITS)):
        turn, angle = 2 * _pi(), position * step
        angle -= (angle / turn).to_integral_value() * turn  # at most half a turn
        sums, term, k = [Decimal(1), Decimal(0)], Decimal(1), 0
        while abs(term) > _SMALL:
            k += 1
            term = term * angle / k
            sums[k % 2] += -term if k % 4 in (2, 3) else term
        return sums[0], sums[1]


@cache
def _pi() -> Decimal:
    """Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_of_inverse(n: int) -> Decimal:
        result, power, k = Decimal(0), Decimal(1) / n, 0
        while power > _SMALL:
            result += power / (2 * k + 1) * (-1) ** k
            power, k = power / (n * n), k + 1
        return result

    with localcontext(Context(prec=_DIGITS)):
        return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)
