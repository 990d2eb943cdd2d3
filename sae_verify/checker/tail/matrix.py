"""Products of matrices of balls, and the affine maps of a model."""

from __future__ import annotations

import numpy as np

from ..arithmetic import TINY, Array, Ball, gamma, up


def matmul(x: Ball, y: Ball) -> Ball:
    """`x @ y` for x (..., n, k) and y (..., k, m): shape (..., n, m), leading axes broadcast as numpy's."""
    k = x.mid.shape[-1]
    size = np.abs(y.mid)
    # gamma multiplies the sum, not its terms: those may be so small that the product would underflow.
    spread = gamma(k) * (np.abs(x.mid) @ size)
    if x.rad.any():
        spread = spread + x.rad @ size
    if y.rad.any():
        spread = spread + (np.abs(x.mid) + x.rad) @ y.rad
    return Ball(x.mid @ y.mid, up(spread * (1 + 4 * gamma(k)) + k * TINY))


def affine(x: Ball, weight: Array, bias: Array) -> Ball:
    """`x W^T + b` for x (..., n, k), W (m, k) and b (m,): shape (..., n, m)."""
    return matmul(x, Ball.exact(weight.T)) + Ball.exact(bias)


def row_sums(x: Ball) -> Ball:
    """Sums over the last axis, which is kept: (..., n, 1)."""
    return matmul(x, Ball.exact(np.ones((x.mid.shape[-1], 1))))
