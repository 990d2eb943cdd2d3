"""Every vector is what some code without negative entries writes.

Theorem: whole-cone. The rows named as evidence have a left inverse up to a defect, and positive weights that cancel
nearly; an exact cancellation with positive weights is then close by. Rows are first scaled by powers of two, exactly,
which changes no cone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, combine, norm, row_lengths, total
from ..errors import Rejected
from ..independence import approximate_inverse, defect
from ..reader import Reader
from .cone import read_rows
from .subject import Kind, Subject, need


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    rows, names, _ = read_rows(subject, step)
    features, weights = subject.features(step), step.numbers("weights")
    if len(features) != len(weights):
        raise step.fail("weights", "must be one a feature")
    need(np.isin(features, names).all(), "the evidence uses a feature that is not among the rows")
    place = np.zeros(subject.m, dtype=np.intp)
    place[names] = np.arange(len(names))
    need(len(features) > subject.d, f"{len(features)} rows cannot reach all of {subject.d} dimensions")
    need((weights > 0).all(), "a weight is not positive")
    scaled, exponent = by_powers_of_two(rows[place[features]])
    moved = np.ldexp(weights, exponent)  # weights of the scaled rows
    need((np.ldexp(moved, -exponent) == weights).all() and (moved > 0).all(), "a weight cannot be scaled exactly")
    inverse, miss_of_inverse = left_inverse(scaled)
    c = Ball.exact(miss_of_inverse)
    need(c.high < 0.5, "the rows are not proven to span every direction")
    miss = norm(combine(Ball.exact(moved), Ball.exact(scaled)))  # of the cancellation
    reach = Ball.exact(row_lengths(np.ascontiguousarray(inverse.T))) / (Ball.exact(1.0) - c)  # (n,)
    room = Ball.exact(moved) - reach * miss
    need((room.low > 0).all(), "no exact cancellation with positive weights is proven to be close by")
    claimed = None if step.raw("total") is None else step.number("total")
    some = "" if len(names) == subject.m else f" on {len(names)} features"
    text = f"every vector is f @ W for some f >= 0{some}"
    if claimed is not None:
        most = _total(reach, Ball.exact(moved) + reach * miss, room, exponent)
        need(most.high <= claimed, f"the sum of the code is only proven to be at most {float(most.high):.9g} |x|")
        text += f" with sum(f) <= {claimed!r} |x|"
    return text, {"rows": len(names), "evidence": len(features), "total": claimed}


def _total(reach: Ball, weights: Ball, room: Ball, exponent: np.ndarray) -> Ball:
    """An upper bound of sum(f) for |x| = 1, with f = g + t w: |g_i| <= reach_i and t = max_i reach_i / w_i."""
    t = Ball.exact(float((Ball.exact(reach.high) / Ball.exact(room.low)).high.max()))
    f = (Ball.exact(reach.high) + t * Ball.exact(weights.high)).high
    back = np.ldexp(f, -exponent)  # in units of the stored rows
    need((np.ldexp(back, exponent) == f).all(), "a row is too long or too short")
    return total(Ball.exact(back))


def by_powers_of_two(rows: Array) -> tuple[Array, np.ndarray]:
    """Rows scaled exactly to a largest entry in [1/2, 1), and the exponents: row = scaled * 2^exponent."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if not ((largest > 2.0**-900) & (largest < 2.0**900)).all():
        raise Rejected("a row of the evidence is zero, or too large or too small to be scaled exactly")
    exponent = np.frexp(largest)[1]
    scaled = np.ldexp(rows, -exponent[:, None])
    if not (np.ldexp(scaled, exponent[:, None]) == rows).all():
        raise Rejected("a row of the evidence spans too many orders of magnitude to be scaled exactly")
    return scaled, exponent


def left_inverse(rows: Array) -> tuple[Array, float]:
    """An approximate left inverse, (d, n), and its defect: by the normal equations, or slowly if they fail."""
    try:
        inverse = np.asarray(np.linalg.solve(rows.T @ rows, rows.T), dtype=np.float64)
        c = defect(inverse, rows)
        if c < 0.5:
            return inverse, c
    except np.linalg.LinAlgError:
        pass
    inverse = approximate_inverse(rows)
    return inverse, defect(inverse, rows)


KIND = Kind(theorem="whole-cone", keys=("rows", "features", "weights", "total"), prove=_prove)
