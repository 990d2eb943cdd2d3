"""The rank of rows over the rationals, from below, by elimination modulo a prime.

Theorem: modular-rank. Floats are rationals, so the stored rows have an exact rank. A minor that is not zero modulo a
prime is not zero; the search finds the largest one it can, row by row, and the checker eliminates it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import BLOCK, Features, Matrix, Rows, Source, named, select
from sae_verify.sae.base import SAE

PRIMES = (4194301, 4194287)
"""Tried in turn while the rank falls short. Below 2^22, so that sums of 256 products are exact in float64; as large as
that allows, for a minor vanishes modulo p by chance about once in p."""
EXACT = 256
"""Products of residues that may be summed exactly."""
STRIP = 64
"""Rows eliminated one by one, before matrix products take over."""
PROBES = 3
"""Random combinations of the rows that are left: if all reduce to zero, so do those rows, but for one chance in p^3."""
SEED = 0


@dataclass(frozen=True, eq=False)
class ModularRank:
    """Rows that are independent over the rationals.

    Attributes:
        rank: how many; a proven lower bound of the rank, and with overwhelming probability the rank itself.
        highest: the largest rank that (n, d) rows can have.
        chosen: (rank,) row indices, in the order of elimination.
        columns: (rank,) column of each one's pivot.
        prime: modulo which every leading minor in this order is non-zero.
    """

    rank: int
    highest: int
    chosen: np.ndarray
    columns: np.ndarray
    prime: int


def rank(
    source: Source, features: Features = None, *, matrix: Matrix = "decoder", primes: Sequence[int] = PRIMES
) -> ModularRank:
    """The largest rank found, with its evidence.

    Rows are taken in random order until the rank is the largest possible, or until random combinations of all that are
    left add nothing. Cost: n d + d^3 operations where rows are generic. Memory: two (rank, d) matrices.

    Args:
        source: an SAE, or (n, d) rows.
        features: which rows; None for all.
        matrix: decoder rows or encoder columns of an SAE.
        primes: odd primes below 2^22, tried in turn.

    Raises:
        InputError: there is no prime, or one is even, too large or composite; otherwise errors as `rows.select`.

    """
    rows = select(source, features, matrix)
    if not primes:
        raise InputError("no primes", rule="at least one is needed")
    best: ModularRank | None = None
    for p in primes:
        _check_prime(p)
        found = _eliminate(rows, p)
        if best is None or found.rank > best.rank:
            best = found
        if best.rank == best.highest:
            break
    assert best is not None
    return best


def rank_step(
    sae: SAE, features: Features = None, *, matrix: Matrix = "decoder", primes: Sequence[int] = PRIMES
) -> dict[str, Any]:
    """Evidence for "the rank of these rows over the rationals is at least r"; arguments and errors as `rank`."""
    found = rank(sae, features, matrix=matrix, primes=primes)
    return {
        "kind": "rank",
        "theorem": "modular-rank",
        "rows": named(features, matrix),
        "rank": found.rank,
        "chosen": found.chosen.tolist(),
        "columns": found.columns.tolist(),
        "prime": found.prime,
    }


def _check_prime(p: int) -> None:
    if not (2 < p < 2**22 and all(p % q for q in range(2, 2048) if q * q <= p)):
        raise InputError(f"prime {p}", rule="it must be an odd prime below 2^22")


class _Residues:
    """Floats modulo p: an integer times a power of two, and two has an inverse modulo p."""

    def __init__(self, p: int) -> None:
        powers, low = [1], [1]
        for _ in range(1100):
            powers.append(powers[-1] * 2 % p)
        half = pow(2, -1, p)
        for _ in range(1200):
            low.append(low[-1] * half % p)
        self.p, self.zero = p, 1200
        self.powers = np.array(low[:0:-1] + powers, dtype=np.int64)  # powers[zero + e] = 2^e

    def of(self, rows: Rows) -> Array:
        """(n, d) floats to integers from 0 to p - 1, held as float64."""
        mantissa, exponent = np.frexp(rows.astype(np.float64))
        scale = self.powers[exponent.astype(np.int64) + (self.zero - 53)]
        return (np.ldexp(mantissa, 53).astype(np.int64) % self.p * scale % self.p).astype(np.float64)

    def reduced(self, values: Array) -> Array:
        """Integers up to 2^52 + p in absolute value, modulo p, in place."""
        values -= np.floor(values * (1.0 / self.p)) * self.p
        values += self.p * (values < 0)
        values -= self.p * (values >= self.p)
        return values

    def minus(self, values: Array, left: Array, right: Array) -> Array:
        """`values - left @ right` modulo p, in place, summing no more products at a time than stay exact."""
        for start in range(0, left.shape[1], EXACT):
            values -= left[:, start : start + EXACT] @ right[start : start + EXACT]
            self.reduced(values)
        return values


class _Basis:
    """Rows found so far, reduced: the pivot columns hold the identity."""

    def __init__(self, field: _Residues, highest: int, width: int) -> None:
        self.field = field
        self.rows = np.zeros((highest, width))
        self.columns = np.zeros(highest, dtype=np.intp)
        self.rank = 0

    def left(self, block: Array) -> Array:
        """What is left of rows, (n, d), after elimination of the pivot columns; in place."""
        r = self.rank
        return self.field.minus(block, block[:, self.columns[:r]], self.rows[:r]) if r else block

    def extend(self, block: Array) -> list[int]:
        """Take in rows that are independent of the others, (n, d); their places in the block, in order."""
        block, field, r = self.left(block), self.field, self.rank
        taken: list[int] = []
        pivots: list[int] = []
        for i, row in enumerate(block):
            if r + len(taken) == len(self.rows):
                break
            where = np.flatnonzero(row)
            if not where.size:
                continue
            j = int(where[0])
            row *= pow(int(row[j]), -1, field.p)
            field.reduced(row)
            column = block[:, j].copy()
            column[i] = 0.0
            others = np.flatnonzero(column)
            block[others] = field.reduced(block[others] - column[others, None] * row)
            taken.append(i)
            pivots.append(j)
        new = block[taken]
        if r and taken:
            field.minus(self.rows[:r], self.rows[:r, pivots], new)
        self.rows[r : r + len(taken)] = new
        self.columns[r : r + len(taken)] = pivots
        self.rank = r + len(taken)
        return taken


def _eliminate(rows: Rows, p: int) -> ModularRank:
    count, width = rows.shape
    field, highest = _Residues(p), min(count, width)
    basis, chosen = _Basis(field, highest, width), []
    order = np.random.default_rng(SEED).permutation(count)
    probe_at = highest + STRIP  # before, a probe would cost more than it could save
    for start in range(0, count, STRIP):
        if basis.rank == highest:
            break
        if start >= probe_at:
            if not _probes(rows, order[start:], basis).any():
                break
            probe_at = 2 * start
        strip = order[start : start + STRIP]
        chosen += [int(strip[i]) for i in basis.extend(field.of(rows[strip]))]
    columns = basis.columns[: basis.rank].copy()
    return ModularRank(basis.rank, highest, np.array(chosen, dtype=np.intp), columns, p)


def _probes(rows: Rows, rest: np.ndarray, basis: _Basis) -> Array:
    """Random combinations of the rows that are left, reduced: (PROBES, d)."""
    field = basis.field
    weights = np.random.default_rng(SEED + len(rest)).integers(field.p, size=(PROBES, len(rest))).astype(np.float64)
    combined = np.zeros((PROBES, rows.shape[1]))
    for start in range(0, len(rest), BLOCK):
        part = field.of(rows[rest[start : start + BLOCK]])
        field.minus(combined, weights[:, start : start + BLOCK], part)  # the sign of a combination plays no part
    return basis.left(combined)
