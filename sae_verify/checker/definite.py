"""Lower bounds on the smallest eigenvalue of a symmetric matrix, and Gram matrices with their rounding.

Theorem: spectral-gap. A factor L is computed in floats and nothing is assumed of it: L L^T is positive semidefinite
whatever L is, so that only the residual has to be bounded. (The route without a residual, by an a-priori bound of the
Cholesky factorisation's own error, is S. M. Rump, Verification of positive definiteness, BIT 46 (2006), 433-452; it
would have the checker trust the factorisation, and is looser, for its sums are not blocked.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .arithmetic import TINY, Array, Ball, U, gamma, norm, row_lengths, total

BLOCK = 256
"""Rows summed in one matrix product. A sum of n in blocks is a chain of BLOCK + n / BLOCK additions, not of n."""
INNER = 64
"""The same for the product L L^T, of fewer terms."""


def gram(blocks: Iterable[Array], width: int) -> tuple[Array, float]:
    """(G, e) with ||G - A^T A||_2 <= e, for A made of blocks of rows, (., width); e is inf where nothing is known.

    Each product passes its own rounding, fewer additions within its block than that has rows (at most BLOCK are taken
    at a time) and one for each block, so that an entry is off by at most gamma times that of |A|^T |A|, whose spectral
    norm is at most ||A||_F^2 = trace(A^T A).
    """
    result, longest, count = np.zeros((width, width)), 0, 0
    for rows in blocks:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            result += block.T @ block
            longest, count = max(longest, len(block)), count + 1
    factor = gamma(longest + count)
    # trace(A^T A) is at most 1 / (1 - gamma) of the computed one, up to underflow.
    trace = float(total(Ball.exact(result.diagonal())).high) + TINY
    error = factor * trace * (1.0 + 4.0 * factor) + TINY if factor < 2.0**-20 else math.inf
    return result, error


def at_least(matrix: Array, error: float, level: float) -> bool:
    """Whether every symmetric matrix within `error` (spectral norm) of this one has all its eigenvalues >= level.

    The lower triangle of `matrix`, (n, n), stands for the whole. False where it cannot be proven.
    """
    size = len(matrix)
    if size == 0:
        return True
    if not (np.isfinite(matrix).all() and math.isfinite(error) and math.isfinite(level)):
        return False
    diagonal = np.diag_indices(size)
    spread = float(np.maximum(matrix[diagonal] - level, 0.0).sum())
    # Room for the rounding of the residual, of the diagonal and of the comparison that decides whether it was enough.
    room = 2.0 * gamma(_chain(size)) * spread + 32.0 * U * (abs(level) + error) + 8.0 * TINY
    shift = level + error + room
    lowered = matrix.copy()
    lowered[diagonal] -= shift
    try:
        factor: Array = np.asarray(np.tril(np.linalg.cholesky(lowered)), dtype=np.float64)
    except np.linalg.LinAlgError:
        return False
    if not np.isfinite(factor).all():
        return False
    # matrix = lowered + shift I up to the rounding of that subtraction, and lowered >= -residual.
    moved = U * float(np.abs(lowered[diagonal]).max())
    proven = Ball.exact(shift) - residual(lowered, factor) - Ball.exact(moved) - Ball.exact(TINY) - Ball.exact(error)
    return bool(proven.low >= level)


def residual(matrix: Array, factor: Array) -> Ball:
    """At least ||M - L L^T||_2, for the symmetric M in a lower triangle and a lower triangular L, both (n, n)."""
    size, parts = len(matrix), []
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        product = np.zeros((end - start, end))
        for inner in range(0, end, INNER):
            stop = min(inner + INNER, end)
            product[:, inner:] += factor[start:end, inner:stop] @ factor[inner:end, inner:stop].T
        difference = np.tril(matrix[start:end, :end] - product, start)
        parts.append(float(norm(Ball.exact(difference.ravel())).high))
    # Off the diagonal each entry stands for two. The difference itself is rounded, and so is the product: entry i, j by
    # gamma |L_i| |L_j|, which sums to ||L||_F^2.
    seen = norm(Ball.exact(np.array(parts))) * Ball.exact(math.sqrt(2.0) * (1.0 + 4.0 * U))
    squares = norm(Ball.exact(row_lengths(factor)))
    return seen + Ball.exact(gamma(_chain(size))) * squares * squares + Ball.exact(TINY)


def _chain(n: int) -> int:
    """Longest chain of roundings that a product passes in a sum of n of them, INNER at a time."""
    return min(n, INNER) + -(-n // INNER)
