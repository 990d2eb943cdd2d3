"""What is left of the exponential after the first terms of its series, enclosed. Theorem: attention-remainder."""

from __future__ import annotations

import numpy as np

from ..arithmetic import Array, Ball, U
from .elementary import exp
from .sizes import grow

SERIES = 24
"""Terms of the power series of exp below 1; the rest is below 2^-80."""


def _series(c: Array, first: int, scale: float) -> Array:
    """scale * sum over k >= first of c^(k - first) / k!, from above to rounding, for 0 <= c <= 1."""
    total = np.zeros_like(c)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, first + SERIES)]))
    for k in range(first + SERIES - 1, first - 1, -1):
        total = total * c + scale / factorials[k]
    return grow(total + 2.0**-70)


def excess1(c: Array) -> Ball:
    """(exp(c) - 1) / c, which is positive and rises with c: a ball."""
    small = np.clip(c, -1.0, 1.0)
    total = np.zeros_like(c)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, SERIES + 1)]))
    for k in range(SERIES, 0, -1):
        total = total * small + 1.0 / factorials[k]
    large = np.where(np.abs(c) > 1.0, c, 2.0)
    raised = exp(large)
    direct = (raised.mid - 1.0) / large
    error = (raised.rad + 4 * U * (raised.mid + 1.0)) / np.abs(large)
    near = np.abs(c) <= 1.0
    return Ball(np.where(near, total, direct), grow(np.where(near, 2.0**-45, error)))


def excess3(c: Array) -> Array:
    """(exp(c) - 1 - c - c^2/2) / c from above, for c >= 0."""
    small = np.minimum(c, 1.0)
    series = _series(small, 3, 1.0) * small**2
    safe = np.maximum(c, 1.0)
    direct = (exp(safe).high - 1.0 - safe - 0.5 * safe**2) / safe + 2.0**-40
    return np.where(c <= 1.0, grow(series), grow(np.maximum(direct, 0.0)))


def excess2(c: Array) -> Array:
    """2 (exp(c) - 1 - c) / c^2 from above, for c >= 0."""
    small, safe = np.minimum(c, 1.0), np.maximum(c, 1.0)
    direct = 2.0 * (exp(safe).high - 1.0 - safe) / safe**2 + 2.0**-40
    return np.where(c <= 1.0, _series(small, 2, 2.0), grow(direct))


def excess2_low(c: Array) -> Array:
    """2 (exp(c) - 1 - c) / c^2 from below, for c >= 0: seven terms of its series."""
    return 1.0 + c / 3 * (1 + c / 4 * (1 + c / 5 * (1 + c / 6 * (1 + c / 7 * (1 + c / 8))))) - 2.0**-40
