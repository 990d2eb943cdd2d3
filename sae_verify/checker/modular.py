"""Arithmetic modulo a prime on floats: weights as residues, and elimination by exact matrix products.

Theorem: modular-rank. A float is an integer times a power of two, and two is a unit modulo an odd prime, so that every
float has a residue, whatever its size. Products of residues are summed in float64 without any rounding as long as the
sum stays below 2^53.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import Array
from .errors import Rejected

BLOCK = 256
"""Products summed at a time: 2^8."""
MAX_PRIME = 2**22
"""Primes are smaller: 2^8 products of less than 2^44 each, and one residue more, stay below 2^53."""
_LOWEST = -1200
"""Below the exponent of any float's 53-bit mantissa."""


def is_prime(p: int) -> bool:
    """Whether 2 <= p < MAX_PRIME is a prime, by trial division."""
    return 2 <= p < MAX_PRIME and all(p % q for q in range(2, min(p, 2048)) if q * q <= p)


def residues(values: Array, p: int) -> Array:
    """Finite floats modulo an odd prime p, in the order given, integers from 0 to p - 1 held as float64."""
    half = pow(2, -1, p)
    powers = [pow(half, -_LOWEST, p)]
    for _ in range(2400):
        powers.append(powers[-1] * 2 % p)
    mantissa, exponent = np.frexp(values)  # exact, subnormal numbers included
    whole = np.ldexp(mantissa, 53).astype(np.int64)  # |whole| <= 2^53
    scale = np.array(powers, dtype=np.int64)[exponent.astype(np.int64) - 53 - _LOWEST]
    return (whole % p * scale % p).astype(np.float64)


def reduced(values: Array, p: int) -> Array:
    """Integers of at most 2^52 + 2^22 in absolute value, held as float64, modulo p; in place."""
    # The quotient may be off by one, through rounding; its product with p stays below 2^53, so that all here is exact.
    values -= np.floor(values * (1.0 / p)) * p
    values[values < 0] += p
    values[values >= p] -= p
    return values


def invertible(matrix: Array, p: int) -> bool:
    """Whether all leading minors of a matrix of residues, (r, r), are non-zero modulo p, and so its determinant.

    Block elimination: with D the leading block, det = det D * det(rest - left D^-1 right).
    """
    work, size = matrix.copy(), len(matrix)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        inverse = _inverse(work[start:end, start:end], p)
        if inverse is None:
            return False
        left = reduced(work[end:, start:end] @ inverse, p)
        rest = work[end:, end:]
        rest -= left @ work[start:end, end:]
        reduced(rest, p)
    return True


def _inverse(block: Array, p: int) -> Array | None:
    """The inverse modulo p by elimination without exchanges, (b, b); None when a leading minor is zero."""
    work = block.copy()
    for j in range(len(work)):
        pivot = int(work[j, j])
        if pivot == 0:
            return None
        scale = pow(pivot, -1, p)
        row = reduced(work[j] * scale, p)
        row[j] = scale
        column = work[:, j].copy()
        column[j] = 0.0
        work[:, j] = 0.0
        work -= np.outer(column, row)
        work[j] = row
        reduced(work, p)
    return work


def checked_prime(p: int) -> int:
    """An odd prime below MAX_PRIME, or a rejection."""
    if p == 2 or not is_prime(p):
        raise Rejected(f"{p} is not an odd prime below {MAX_PRIME}")
    return p
