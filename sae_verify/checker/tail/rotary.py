"""Rotary positions in exact reals: entry i of the first r of a head turns by position * base^(-2 i / r), scaled or not.

Models compute the angles in float32; the exact ones are those the formula means, and what is certified.
The tables come from decimal arithmetic with `_DIGITS` digits. No intermediate number reaches 2^50, and a value takes
fewer than 10^4 operations, each wrong by at most one unit of its last digit: before it is rounded to the nearest float
an entry is wrong by less than `_ERROR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Rotary:
    """Rotary positions other than plain ones over the whole head.

    The frequency f_i = base^(-2 i / width) becomes f_i / factor (`linear`), or goes over to that from f_i as its wave
    gets longer, by the number of turns within the length of the training (`llama3`) or by the index (`yarn`).

    Attributes:
        base: at least 1.
        width: how many entries of a head turn, even; the tables pair entry i with entry i + d_head / 2, as if the rest
            of each half were turned by nothing.
        kind: `plain`, `linear`, `llama3` or `yarn`.
        factor: at least 1.
        low: turns below which a frequency is divided by the factor (llama3), or the index from which on it starts to be
            (yarn).
        high: turns above which it is kept (llama3), or the index from which on it is divided (yarn).
        trained: length of the training (llama3).

    """

    base: float
    width: int
    kind: str = "plain"
    factor: float = 1.0
    low: float = 0.0
    high: float = 0.0
    trained: float = 0.0

    def scaled(self, index: int, frequency: Decimal) -> Decimal:
        """What becomes of f_i, within the digits of the context."""
        if self.kind == "plain":
            return frequency
        factor, low, high = Decimal(self.factor), Decimal(self.low), Decimal(self.high)
        if self.kind == "linear":
            return frequency / factor
        at = Decimal(self.trained) * frequency / (2 * _pi()) if self.kind == "llama3" else Decimal(index)
        kept = (at - low) / (high - low) if self.kind == "llama3" else (high - at) / (high - low)
        kept = min(max(kept, Decimal(0)), Decimal(1))
        return frequency * (kept + (1 - kept) / factor)


def tables(base: float | Rotary, d_head: int, positions: Sequence[int]) -> tuple[Ball, Ball]:
    """(cos, sin) of shape (len(positions), d_head) each; the second half of a row repeats the first.

    Args:
        base: at least 1, or how the positions are scaled.
        d_head: even.
        positions: from zero.

    """
    rotary = base if isinstance(base, Rotary) else Rotary(base, d_head)
    known = rotary.kind in ("plain", "linear", "llama3", "yarn") and rotary.factor >= 1.0
    ordered = rotary.kind not in ("llama3", "yarn") or rotary.low < rotary.high
    even = d_head % 2 == 0 and rotary.width % 2 == 0 and 0 < rotary.width <= d_head
    placed = all(0 <= position < MAX_POSITION for position in positions)
    if not (even and rotary.base >= 1.0 and known and ordered and placed):
        raise Rejected(f"no rotary table for {base}, width {d_head} and positions {list(positions)[:8]}")
    rows = [_row(rotary, d_head, position) for position in positions]
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
def _row(rotary: Rotary, d_head: int, position: int) -> Array:
    """(2, d_head / 2): cos and sin at one position, nearest floats."""
    values = [_cos_sin(position, angle) for angle in _angles(rotary, d_head)]
    return np.array([[float(cos) for cos, _ in values], [float(sin) for _, sin in values]])


@cache
def _angles(rotary: Rotary, d_head: int) -> tuple[Decimal, ...]:
    """The angle that each pair of entries turns by from one position to the next; zero for those that do not."""
    with localcontext(Context(prec=_DIGITS)):
        logarithm = Decimal(rotary.base).ln()
        turning = range(rotary.width // 2)
        angles = [rotary.scaled(i, (logarithm * (-2 * i) / rotary.width).exp()) for i in turning]
        return (*angles, *(Decimal(0),) * (d_head // 2 - len(angles)))


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
