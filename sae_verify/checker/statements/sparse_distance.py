"""How far a vector is from everything that few active features write.

Theorem: cone-membership (c) for one feature, which is exact, and (d) for more, from the correlations with the vector
and the most negative cosine between two rows. Nothing but the claim is taken from the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..arithmetic import TINY, Array, Ball, clip_low, gamma, row_lengths, sqrt, squared_norm, total, up
from ..errors import Rejected
from ..reader import Reader
from ..sae import Sae
from .cone import BLOCK, Codes, products, read_codes, read_target
from .subject import Kind, Subject, need

PAIRS = 2**40
"""Multiplications that the cosines of all pairs may take, about a minute's work."""
PAIR_BLOCK = 128
"""Rows whose cosines with all others are held at a time."""
_KNOWN: WeakKeyDictionary[Sae, dict[Any, float]] = WeakKeyDictionary()
"""The most negative cosine by SAE and choice of rows: many steps speak of the same rows."""


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    codes, x = read_codes(subject, step), read_target(subject, step)
    distance = step.number("distance")
    k = codes.active
    if k is None:
        raise step.fail("active", "must be a number of features")
    if k == 0:
        square = squared_norm(x)
    elif k == 1:
        square = _one(codes, x)
    else:
        square = _several(codes, x, k, lambda: _most_negative(subject.sae, codes))
    need(square.low >= 0 and distance >= 0, "nothing is proven about the distance")
    need(sqrt(square).low >= distance, f"the distance is only proven to be at least {float(sqrt(square).low):.9g}")
    return f"every code ({codes}) stays at least {distance!r} away from the vector", {"distance": distance}


def _one(codes: Codes, x: Ball) -> Ball:
    """The least ||x - t d_j||^2 over all rows and 0 <= t <= upper_j: a ball whose low end is a lower bound.

    With r = x - t0 d for the float t0 next to the optimum: ||x - t d||^2 = ||r||^2 - 2 s r.d + s^2 ||d||^2 for
    s = t - t0, so at least ||r||^2 - q^2 / ||d||^2, where q is the part of r . d that an admissible s can use.
    """
    least = squared_norm(x)
    for start in range(0, len(codes.rows), BLOCK):
        rows = np.ascontiguousarray(codes.rows[start : start + BLOCK])  # (b, d)
        upper = codes.upper[start : start + BLOCK]
        rows, upper = rows[rows.any(axis=1)], upper[rows.any(axis=1)]
        if not len(rows):
            continue
        length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        t = np.clip((rows / length[:, None]) @ x.mid / length, 0.0, np.minimum(upper, 1e300))  # any t will do
        rest = Ball.exact(x.mid) - Ball.exact(t[:, None]) * Ball.exact(rows)
        square = _dots(rest, rest)
        pull = _dots(Ball.exact(rows), rest)
        upward, downward = np.maximum(pull.high, 0.0), np.maximum(-pull.low, 0.0)
        useful = np.maximum(np.where(t < upper, upward, 0.0), np.where(t > 0, downward, 0.0))
        share = Ball.exact(useful) / sqrt(_dots(Ball.exact(rows), Ball.exact(rows)))  # its square may be in range only
        gain = share * share
        gain = Ball(np.where(useful > 0, gain.mid, 0.0), np.where(useful > 0, gain.rad, 0.0))
        lows = (square - gain).low
        least = least if least.low <= lows.min() else Ball.exact(lows.min())
    return least


def _dots(a: Ball, b: Ball) -> Ball:
    """Inner products row by row, (n,)."""
    d = a.mid.shape[1]
    mid = np.einsum("nd,nd->n", a.mid, b.mid)
    size_a, size_b = np.abs(a.mid), np.abs(b.mid)
    spread = gamma(d) * np.einsum("nd,nd->n", size_a, size_b)
    spread += np.einsum("nd,nd->n", size_a + a.rad, b.rad) + np.einsum("nd,nd->n", a.rad, size_b)
    return Ball(mid, up(spread * (1 + 8 * gamma(d)) + 4 * d * TINY))


def _several(codes: Codes, x: Ball, k: int, negative: Callable[[], float]) -> Ball:
    """||x||^2 - (the k largest squared cosines with x) / (1 - (k - 1) mu), mu the most negative cosine of two rows."""
    square = squared_norm(x)
    kept = np.flatnonzero(codes.rows.any(axis=1))
    if not kept.size:
        return square
    mu = negative() if kept.size > 1 else 0.0
    room = Ball.exact(1.0) - Ball.exact(mu) * Ball.exact(float(min(k, kept.size) - 1))
    if not room.low > 0:
        raise Rejected(f"rows have cosines as low as {-mu:.4g}, which proves nothing for {k} active features")
    price = products(codes.rows, x.mid)
    low = _lowest_lengths(codes.rows)
    need((low[kept] > 0).all(), "a row is too short for its length to be bounded")
    cosine = Ball.exact(np.maximum(price.high[kept], 0.0)) / Ball.exact(low[kept])
    largest = np.sort((cosine * cosine).high)[::-1][:k]
    return square - total(Ball.exact(largest)) / room


def _lowest_lengths(rows: Array) -> Array:
    """Lower bounds of the rows' lengths."""
    square = np.einsum("nd,nd->n", rows, rows)
    d = rows.shape[1]
    return np.maximum(sqrt(clip_low(Ball(square, up(square * 2 * gamma(d) + d * TINY)), 0.0)).low, 0.0)


def _most_negative(sae: Sae, codes: Codes) -> float:
    """An upper bound, from 0, of minus the cosine between any two different non-zero rows."""
    known = _KNOWN.setdefault(sae, {})
    if codes.label not in known:
        known[codes.label] = most_negative(codes.rows)
    return known[codes.label]


def most_negative(rows: Array) -> float:
    """The same for (n, d) rows. Each product is off by at most gamma_d times both lengths (Cauchy-Schwarz)."""
    n, d = rows.shape
    if n * n * d > PAIRS:
        raise Rejected(f"the cosines of {n} rows in {d} dimensions are more than is computed here")
    kept = rows[rows.any(axis=1)]
    high, low = row_lengths(kept), _lowest_lengths(kept)
    need((low > 0).all(), "a row is too short for its length to be bounded")
    worst = 0.0
    for start in range(0, len(kept), PAIR_BLOCK):
        block = slice(start, start + PAIR_BLOCK)
        against = kept[start:]  # earlier pairs are done
        opposite = -(kept[block] @ against.T)
        index = np.arange(len(opposite))
        opposite[index, index] = 0.0
        error = gamma(d) * high[block, None] * high[None, start:] + d * TINY
        bound = up(up(np.maximum(opposite, 0.0) + error) / low[block, None] / low[None, start:])
        found = float(np.max(np.where(np.isnan(bound), np.inf, bound), initial=0.0))
        worst = max(worst, found)
    return worst


KIND = Kind(
    theorem="cone-membership",
    keys=("rows", "point", "vector", "upper", "total", "active", "distance"),
    prove=_prove,
)
