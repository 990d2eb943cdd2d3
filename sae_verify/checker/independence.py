"""Proofs of linear independence: an approximate inverse is computed in floats, then its defect is bounded."""

from __future__ import annotations

import numpy as np

from .arithmetic import Array, Ball, gamma, norm, up
from .errors import Rejected


def rescaled(rows: Array) -> Array:
    """Rows scaled by powers of two (exactly) to a largest entry in [1/2, 1); zero and repeated rows are dropped."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    kept = rows[(largest > 2.0**-900) & (largest < 2.0**900)]
    if kept.shape[0] != np.count_nonzero(largest):
        raise Rejected("a held row is too large or too small to be handled exactly")
    scaled = np.ldexp(kept, -np.frexp(np.abs(kept).max(axis=1, initial=0.0))[1][:, None]) if kept.size else kept
    if not (np.ldexp(scaled, np.frexp(np.abs(kept).max(axis=1, initial=0.0))[1][:, None]) == kept).all():
        raise Rejected("a held row spans too many orders of magnitude to be scaled exactly")
    if not scaled.size:
        return scaled
    signs = np.sign(scaled[np.arange(len(scaled)), (scaled != 0).argmax(axis=1)])
    upright = scaled * signs[:, None] + 0.0  # no negative zeros, so that equal rows have equal bytes
    return upright[list({row.tobytes(): i for i, row in enumerate(upright)}.values())]


def defect(left: Array, right: Array) -> float:
    """An upper bound of ||I - left @ right||_F, for floats, in exact reals."""
    n = left.shape[1]
    difference = left @ right
    difference[np.diag_indices(difference.shape[0])] -= 1.0
    error = up((np.abs(left) @ np.abs(right)) * (3 * gamma(n)) + 2.0**-52 * np.abs(difference))
    return float(norm(Ball(difference.ravel(), error.ravel())).high)


def approximate_inverse(rows: Array) -> Array:
    """An approximate inverse; nothing is assumed of it."""
    try:
        return np.asarray(np.linalg.pinv(rows), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise Rejected(f"no approximate inverse was found: {error}") from None


def spans_everything(rows: Array) -> bool:
    """Whether (n, d) rows provably span R^d: some left inverse has a defect below 1."""
    rows = rescaled(rows)
    if rows.shape[0] < rows.shape[1]:
        return False
    return bool(defect(approximate_inverse(rows), rows) < 1.0)


def reach(rows: Array) -> float:
    """An upper bound k such that every r has some c with `rows @ c = r` and ||c|| <= k ||r||, for (n, d) rows.

    Theorem: witness-nearby. With R an approximate right inverse and E = rows R - I, ||E|| < 1, c = R (I + E)^-1 r.

    Raises:
        Rejected: the rows are not provably independent.
    """
    if rows.shape[0] == 0:
        return 0.0
    if rows.shape[0] > rows.shape[1]:
        raise Rejected(f"{rows.shape[0]} held equalities in {rows.shape[1]} dimensions are not independent")
    inverse = approximate_inverse(rows)
    miss = defect(rows, inverse)
    if not miss < 0.5:
        raise Rejected("the held equalities are not provably independent, so no exact point is known near the witness")
    return float((norm(Ball.exact(inverse.ravel())) / (Ball.exact(1.0) - Ball.exact(miss))).high)
