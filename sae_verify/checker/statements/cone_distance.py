"""A direction that proves how far a vector is from everything that admissible codes write.

Theorem: cone-membership (b): the support function of the codes at the direction. A row without an upper bound must not
have more than the level in the direction, in exact reals; where floats cannot tell, integers do, for few rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, clip_low, dot, norm, total
from ..errors import Rejected
from ..reader import Reader
from .cone import Codes, products, read_codes, read_target
from .subject import Kind, Subject, need

EXACT_ENTRIES = 2**20
"""Entries of rows that are multiplied out in integers, about a second's work; more rows in doubt are a rejection."""


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    codes, x = read_codes(subject, step), read_target(subject, step)
    y, level, distance = subject.vector(step, "direction"), step.number("level"), step.number("distance")
    need(y.any(), "the direction is zero")
    if level < 0 or (codes.total is None and level != 0):
        raise step.fail("level", "must be from 0, and 0 where the sum of the code has no bound")
    most = support(codes, y, level)
    margin = dot(Ball.exact(y), x) - most - Ball.exact(distance) * norm(Ball.exact(y))
    need(margin.low >= 0, f"the direction misses the distance {distance:.9g} by {float(-margin.low):.3g} of its length")
    return f"every code ({codes}) stays at least {distance!r} away from the vector", {"distance": distance}


def support(codes: Codes, y: Array, level: float) -> Ball:
    """An upper bound of the largest f @ rows . y over the admissible codes, as a ball of shape ().

    level * total + the largest `active` of upper_j max(0, d_j . y - level); rows without an upper bound may have no
    more than the level.
    """
    if codes.active == 0:
        return Ball.exact(0.0)
    price, t = products(codes.rows, y), Ball.exact(level)
    free = np.isinf(codes.upper)
    doubt = np.flatnonzero(free & ~(price.high <= level))
    doubt = doubt[codes.rows[doubt].any(axis=1)]  # a zero row has 0, and the level is from 0
    if doubt.size * codes.rows.shape[1] > EXACT_ENTRIES:
        raise Rejected(f"{doubt.size} rows are not proven to stay below the level")
    for j in doubt:
        need(stays_below(codes.rows[j], y, level), "a row without an upper bound goes beyond the level")
    over = clip_low(price[~free] - t, 0.0) * Ball.exact(codes.upper[~free])
    high = np.sort(over.high)[::-1]
    most = total(Ball.exact(high if codes.active is None else high[: codes.active]))
    return most if codes.total is None else most + t * Ball.exact(codes.total)


def stays_below(row: Array, y: Array, level: float) -> bool:
    """Whether row . y <= level, decided in integers."""
    terms = [(-level).as_integer_ratio()]
    for a, b in zip(row.tolist(), y.tolist(), strict=True):
        if a and b:
            (n, p), (k, q) = a.as_integer_ratio(), b.as_integer_ratio()
            terms.append((n * k, p * q))
    common = max(bottom for _, bottom in terms)  # powers of two
    return sum(top * (common // bottom) for top, bottom in terms) <= 0


KIND = Kind(
    theorem="cone-membership",
    keys=("rows", "point", "vector", "upper", "total", "active", "direction", "level", "distance"),
    prove=_prove,
)
