"""Ranks of stored weights without rounding, by elimination modulo large primes, independent of the package's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sae_verify.geometry.held_cell import Array

PRIMES = (2147483647, 2147483629, 2147483587)
"""Just below 2^31, so that products of residues fit into 64 bits. The package's own primes are below 2^22."""


def exact_rank(rows: Array) -> int:
    """The rank of (n, d) floats over the rationals.

    Every minor that is not zero modulo some prime is not zero, so this is never too large. It is too small only if the
    minors that matter vanish modulo all of PRIMES, by chance about once in 10^27.
    """
    return max((_rank(_residues(rows, p), p) for p in PRIMES), default=0) if rows.size else 0


def _residues(rows: Array, p: int) -> NDArray[np.int64]:
    mantissa, exponent = np.frexp(rows)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    powers = {int(e): pow(2, int(e) - 53, p) for e in np.unique(exponent)}  # negative powers are inverses
    scale = np.vectorize(powers.__getitem__, otypes=[np.int64])(exponent)
    return whole % p * scale % p


def _rank(work: NDArray[np.int64], p: int) -> int:
    found = 0
    for column in range(work.shape[1]):
        pivots = np.flatnonzero(work[found:, column])
        if not pivots.size:
            continue
        work[[found, found + pivots[0]]] = work[[found + pivots[0], found]]
        row = work[found] * pow(int(work[found, column]), -1, p) % p
        below = found + 1 + np.flatnonzero(work[found + 1 :, column])
        work[below] = (work[below] - work[below, column : column + 1] * row % p) % p
        found += 1
        if found == len(work):
            break
    return found
