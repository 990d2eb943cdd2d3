"""Theorem modular-rank in rationals, on small integer matrices, at extreme scales; and the arithmetic it rests on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.modular import BLOCK, MAX_PRIME, invertible, is_prime, reduced, residues
from sae_verify.geometry import rank as search

from .exact import rank, refutation

PRIMES = (3, 5, 7, 4194287, 4194301)
EXACT = BLOCK * (MAX_PRIME - 1) ** 2 + MAX_PRIME
"""The largest integer that elimination makes."""
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1.7976931348623157e308, 1.0, -1.0, 0.1]),
)


def phi(x: float, p: int) -> int:
    """The image of an exact float in the field of p elements."""
    exact = Fraction(x)
    return exact.numerator * pow(exact.denominator, -1, p) % p


@st.composite
def integer_rows(draw: st.DrawFn, largest: int = 4) -> np.ndarray:
    """Small integer matrices, often of deficient rank: repeated, zero and combined rows."""
    n, d = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    entries = draw(st.lists(st.integers(-largest, largest), min_size=n * d, max_size=n * d))
    rows = np.array(entries, dtype=np.float64).reshape(n, d)
    for i in range(1, n):
        kind = draw(st.sampled_from(["free", "free", "repeat", "zero", "combine"]))
        if kind == "repeat":
            rows[i] = rows[draw(st.integers(0, i - 1))]
        elif kind == "zero":
            rows[i] = 0.0
        elif kind == "combine":
            rows[i] = rows[:i].T @ np.array(draw(st.lists(st.integers(-1, 1), min_size=i, max_size=i)))
    return rows


def exact_rank(rows: np.ndarray) -> int:
    return rank([[Fraction(x) for x in row] for row in rows.tolist()])


@given(st.lists(FLOATS, min_size=1, max_size=8), st.sampled_from(PRIMES))
@settings(max_examples=200)
def test_residues_are_those_of_the_exact_numbers(values: list[float], p: int) -> None:
    assert residues(np.array(values), p).tolist() == [phi(x, p) for x in values]


@given(st.lists(st.integers(-EXACT, EXACT), min_size=1, max_size=8), st.sampled_from(PRIMES[3:]), st.booleans())
@settings(max_examples=200)
def test_reduction_is_exact(values: list[int], p: int, multiples: bool) -> None:
    if multiples:
        values = [v // p * p for v in values]
    assert reduced(np.array(values, dtype=np.float64), p).tolist() == [v % p for v in values]


@pytest.mark.parametrize("p", PRIMES[3:])
def test_reduction_next_to_multiples_at_the_largest_sizes(p: int) -> None:
    """Where the quotient is rounded to the wrong side of an integer."""
    multiples = p * np.arange(EXACT // p - 20000, EXACT // p)
    for sign in (1, -1):
        for off in (-2, -1, 0, 1, 2):
            values = sign * multiples + off
            assert np.array_equal(reduced(values.astype(np.float64), p), values % p)


@given(integer_rows(), st.sampled_from(PRIMES))
@settings(max_examples=200)
def test_an_invertible_minor_proves_the_rank(rows: np.ndarray, p: int) -> None:
    size = min(rows.shape)
    minor = rows[:size, :size]
    if invertible(residues(minor, p), p):
        assert exact_rank(minor) == size


def test_the_converse_is_refuted() -> None:
    refutation(
        integer_rows(),
        lambda rows: (
            exact_rank(rows[:2, :2]) == min(2, *rows.shape) and not invertible(residues(rows[:2, :2], 5), 5)
            if min(rows.shape) > 1
            else False
        ),
    )


def test_residues_of_mantissas_alone_are_refuted() -> None:
    def fails(rows: np.ndarray) -> bool:
        minor = rows[: min(rows.shape), : min(rows.shape)]
        wrong = residues(np.frexp(minor)[0], 4194301)
        return invertible(wrong, 4194301) and exact_rank(minor) < len(minor)

    refutation(integer_rows(), fails)


@given(integer_rows(), st.data())
@settings(max_examples=200)
def test_the_search_finds_the_exact_rank_of_small_integers_at_every_scale(
    rows: np.ndarray, data: st.DataObject
) -> None:
    # Minors are below p, so that none vanishes modulo p by chance.
    n = len(rows)
    scales = data.draw(st.lists(st.integers(-1074, 1000), min_size=n, max_size=n))
    scaled = np.ldexp(rows, np.array(scales)[:, None])
    assert np.array_equal(np.ldexp(scaled, -np.array(scales)[:, None]), rows)
    found = search.rank(scaled)
    assert found.rank == exact_rank(rows)
    assert found.highest == min(rows.shape)
    minor = scaled[np.ix_(found.chosen, found.columns)]
    assert invertible(residues(minor, found.prime), found.prime)
    assert exact_rank(minor) == found.rank


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 12))
@settings(max_examples=30)
def test_the_search_never_exceeds_the_rank_of_a_product(seed: int, n: int, inner: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.integers(-50, 51, (n, inner)) @ rng.integers(-50, 51, (inner, 15))).astype(np.float64)
    assert search.rank(rows).rank <= min(n, inner, 15)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 37])
def test_elimination_across_blocks(size: int) -> None:
    p, rng = 4194301, np.random.default_rng(size)
    lower = np.tril(rng.integers(0, p, (size, size)), -1) + np.eye(size, dtype=np.int64)
    upper = np.triu(rng.integers(1, p, (size, size)))

    def product() -> np.ndarray:
        # Exact: 32 products of less than 2^44 at a time stay below 2^63.
        parts = [lower[:, s : s + 32] @ upper[s : s + 32] % p for s in range(0, size, 32)]
        return (np.sum(parts, axis=0) % p).astype(np.float64)

    assert invertible(product(), p)
    upper[size // 2, size // 2] = 0  # the determinant is the product of the diagonal
    assert not invertible(product(), p)
    upper[size // 2, size // 2] = p - 1
    assert invertible(product(), p)


def test_more_rows_than_a_strip_with_few_that_count() -> None:
    """The independent rows are rare and far apart; the search must not stop before it has met them all."""
    rows = np.zeros((3000, 7), dtype=np.float32)
    rows[:, 0] = 1.0
    for j in range(1, 7):
        rows[j * 450, j] = 2.0**-149
    found = search.rank(rows)
    assert found.rank == 7
    assert {j * 450 for j in range(1, 7)} < set(found.chosen.tolist())


def test_primes_are_told_from_others() -> None:
    sieve = [n for n in range(2, 3000) if all(n % q for q in range(2, n))]
    assert [n for n in range(3000) if is_prime(n)] == sieve
    assert all(is_prime(p) for p in search.PRIMES)
    assert not is_prime(2047 * 2039)
    assert not is_prime(MAX_PRIME + 15)  # 4194319 is a prime, and too large
