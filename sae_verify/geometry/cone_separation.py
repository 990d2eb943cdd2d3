"""What a direction proves about all codes: for every admissible f, ||x - f @ W|| ||y|| >= x . y - max_f f . W y.

Theorem: cone-membership (b). Without bounds on f the last term is zero only if no row has a positive product with y, in
exact reals; y is therefore moved a little into the interior of the rows' polar cone. Where that has no interior (the
cone contains a line) a float vector can be a proof only by luck, and the statement is about all f with a sum up to some
huge total instead. Claims are moved outward by more than the checker's rounding.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sae_verify.geometry.codes import LONGEST, Question, Separation, U
from sae_verify.geometry.cone_solver import UnitRows, nearest
from sae_verify.geometry.held_cell import Array

ROUNDINGS = 4.0
"""Times (d + 4) U |row| |y|: more than the checker and this module together can lose in one product."""
FAR = 1e3
"""Relative to |x|: rows with larger bounds are treated like rows without when the direction moves inward, so that
their bounds do not multiply roundings."""
NARROW = 1e-10
"""Squared sine of the polar cone's opening, roughly; narrower cones count as having no interior. Costs tightness."""
LOSS = 1e-3
"""Share of the distance that is given up for the sum of the code when the total is chosen here."""
CLOSE = 1e-6
"""Cosine with a row beyond which a direction was not meant to be in the polar cone (the sum of the code is bounded)."""
INWARD_ROUNDS = 30
EXACT_ENTRIES = 2**18
"""Entries multiplied out in rationals where floats cannot tell a sign."""
SNAP = 2.0**-40
"""Entries of a direction that are that small, relative to the largest, are tried as zeros: rows may lie in a plane."""


def separate(question: Question, y: Array) -> Separation | None:
    """The best statement that a direction proves; None if it proves no distance above 0."""
    if not y.any():
        return None
    y = y / np.linalg.norm(y)
    rows, x, total = question.rows, question.x, question.total
    if question.active == 0:
        return _claim(question, y, total)
    most = np.minimum(question.upper, np.inf if total is None else total)
    far = most > FAR * float(np.linalg.norm(x)) / np.where(rows.length > 0, rows.length, np.inf)
    inner = _inward(rows, y, far & (rows.length > 0))
    options = [y, np.where(np.abs(y) < SNAP * np.abs(y).max(), 0.0, y)] if inner is None else [inner, y]
    claims = [_claim(question, o, total) for o in options if total is not None or _polar(question, o)]
    best = max((claim for claim in claims if claim is not None), key=lambda claim: claim.distance, default=None)
    room, level = float(x @ y), float(np.max(_high(rows, y), initial=0.0))
    if best is None and room > 0 and level > 0:  # no proof for all that was asked about, so for codes with a lower sum
        chosen = min(LOSS * room / level, LONGEST)
        best = _claim(question, y, chosen if total is None else min(total, chosen))
    return best


def _claim(question: Question, y: Array, total: float | None) -> Separation | None:
    """The distance that y proves for codes with that sum (None: any), moved inward by more than the rounding."""
    d, x = len(y), question.x
    level, most = 0.0, 0.0
    if question.active != 0:
        levels = [0.0] if total is None else _levels(question, y, total)
        level, most = min(
            ((t, _support(question, y, t) + (0.0 if total is None else t * total)) for t in levels), key=lambda o: o[1]
        )
    size = float(np.linalg.norm(y))
    lost = ROUNDINGS * (d + 4) * U * float(np.linalg.norm(x)) * size
    proven = (float(x @ y) - lost - most * (1 + 8 * U)) / size * (1 - 8 * (d + 8) * U)
    return Separation(y, level, proven, total) if proven > 0 else None


def _high(rows: UnitRows, y: Array) -> Array:
    """Upper bounds of rows @ y, (n,)."""
    size = float(np.linalg.norm(y))
    return rows.stored @ y + ROUNDINGS * (len(y) + 4) * U * size * rows.length


def _support(question: Question, y: Array, level: float) -> float:
    """The largest f . (W y - level) over codes within finite bounds and the number of active features."""
    finite = np.isfinite(question.upper)
    over = np.maximum(_high(question.rows, y)[finite] - level, 0.0) * question.upper[finite]
    if question.active is not None and question.active < len(over):
        over = np.partition(over, len(over) - question.active)[len(over) - question.active :]
    return float(over.sum()) * (1 + 4 * (len(over) + 4) * U)


def _levels(question: Question, y: Array, total: float) -> list[float]:
    """Multipliers worth trying: as low as rows without bounds allow, and where the sum would be used up."""
    high = _high(question.rows, y)
    unlimited = np.isinf(question.upper)
    lowest = float(np.max(high[unlimited], initial=0.0))
    finite = np.flatnonzero(~unlimited)
    order = finite[np.argsort(-high[finite])]
    filled = np.cumsum(question.upper[order])
    place = int(np.searchsorted(filled, total))
    return [lowest] if place >= len(order) else [lowest, max(lowest, float(high[order[place]]))]


def _polar(question: Question, y: Array) -> bool:
    """Whether no row without an upper bound has a positive product with y: by the bound, or in rationals for few."""
    doubt = np.flatnonzero(np.isinf(question.upper) & (question.rows.length > 0) & (_high(question.rows, y) > 0))
    if doubt.size * len(y) > EXACT_ENTRIES:
        return False
    there = np.flatnonzero(y)
    exact = [Fraction(v) for v in y[there]]
    return all(
        sum((Fraction(a) * b for a, b in zip(question.rows.stored[j, there], exact, strict=True)), Fraction(0)) <= 0
        for j in doubt
    )


def _inward(rows: UnitRows, y: Array, chosen: NDArray[np.bool_]) -> Array | None:
    """A direction near y with rows @ y clearly negative for the chosen rows; None where there is none.

    The least move c with d_j . c >= |d_j| for the rows that matter is a least distance problem (Lawson and Hanson,
    chapter 23): the residual (p, q) of the nearest code for (0, 1) over the rows (d_j / |d_j|, 1) gives c = -p / q.
    """
    d = len(y)
    clear = ROUNDINGS * (d + 4) * U
    price = rows.price(y)
    near = chosen & (price > -4 * clear)
    if not near.any():
        return y
    step = max(float(price[near].max()), 0.0) + 2 * clear
    if step > CLOSE:
        return None
    for _ in range(INWARD_ROUNDS):
        index = np.flatnonzero(near)
        lifted = np.concatenate([rows.unit(index), np.ones((len(index), 1))], axis=1)
        rest = nearest(UnitRows.of(lifted), np.append(np.zeros(d), 1.0), np.full(len(index), np.inf)).direction
        if not rest[-1] > NARROW:
            return None
        moved = y + step * rest[:-1] / rest[-1]
        moved /= np.linalg.norm(moved)
        wrong = chosen & (rows.price(moved) > -clear)
        if not wrong.any():
            return moved
        if not (wrong & ~near).any():
            step *= 2.0
        near |= wrong
    return None
