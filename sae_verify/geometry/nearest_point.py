"""The point of a polyhedron nearest to another: equalities and half-spaces with any right-hand sides.

Least distance programming by non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, ch. 23.4),
in the null space of the equalities. A search in floats: nothing here is trusted.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from sae_verify.geometry.held_cell import Array

DEPENDENT = 1e-9
"""Relative singular value below which equalities count as dependent; their right-hand sides may then disagree."""
ALONG = 1e-10
"""What is left of a half-space's normal beside the equalities, relative, below which it has no direction."""
INCOMPATIBLE = 1e-10
"""Residual of the non-negative least squares, relative, below which the half-spaces have no common point."""


def nearest_point(target: Array, equal: Array, level: Array, upper: Array, room: Array) -> Array | None:
    """argmin ||s - target|| with equal @ s = level and upper @ s <= room.

    Args:
        target: (d,).
        equal: (m, d).
        level: (m,); where rows of `equal` depend, they are met in the sense of least squares.
        upper: (n, d).
        room: (n,).

    Returns:
        (d,), up to rounding; None where no such point is found.
    """
    point, basis = target, np.zeros((0, len(target)))
    if equal.size:
        left, sigma, right = np.linalg.svd(equal, full_matrices=False)
        kept = sigma > DEPENDENT * max(float(sigma[0]), 1e-300)
        basis = right[kept]  # (rank, d)
        point = target + ((left.T @ (level - equal @ target))[kept] / sigma[kept]) @ basis
    if not upper.size:
        return point
    free = upper - (upper @ basis.T) @ basis  # (n, d)
    length, whole = np.linalg.norm(free, axis=1), np.linalg.norm(upper, axis=1)
    excess = upper @ point - room  # (n,)
    rows = length > ALONG * whole
    if not (rows & (excess > 0)).any():
        return point
    columns, over = (free[rows] / length[rows, None]).T, excess[rows] / length[rows]
    scale = float(over.max())
    stacked = np.concatenate([-columns, over[None] / scale])  # (d + 1, n)
    right_side = np.zeros(len(stacked))
    right_side[-1] = 1.0
    try:
        weight, _ = nnls(stacked, right_side, maxiter=30 * stacked.shape[1] + 100)
    except RuntimeError:  # it cycles on ties
        return None
    rest = right_side - stacked @ weight  # (d + 1,)
    if rest[-1] <= INCOMPATIBLE:
        return None
    return point - scale * rest[:-1] / rest[-1]
