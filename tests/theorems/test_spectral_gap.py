"""Theorem spectral-gap in rationals: counts of singular values, residuals, and every rounding bound, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.definite import BLOCK, at_least, gram, residual

from .exact import Matrix, dot, matrices, product, refutation, squares, transpose

D = 3
LEVELS = st.fractions(0, 6, max_denominator=4)


def inertia(m: Matrix) -> tuple[int, int, int]:
    """How many eigenvalues of a symmetric matrix are positive, negative and zero (Sylvester), exactly."""
    m, positive, negative = [list(row) for row in m], 0, 0
    while m:
        n = len(m)
        pivot = next((i for i in range(n) if m[i][i] != 0), None)
        if pivot is None:
            where = next(((i, j) for i in range(n) for j in range(i) if m[i][j] != 0), None)
            if where is None:
                break
            i, j = where  # the congruence that adds row and column j to row and column i makes a pivot
            m[i] = [a + b for a, b in zip(m[i], m[j], strict=True)]
            for row in m:
                row[i] += row[j]
            pivot = i
        value = m[pivot][pivot]
        positive, negative = positive + (value > 0), negative + (value < 0)
        rest = [i for i in range(n) if i != pivot]
        m = [[m[i][j] - m[i][pivot] * m[pivot][j] / value for j in rest] for i in rest]
    return positive, negative, len(m)


def shifted(m: Matrix, by: Fraction) -> Matrix:
    return [[x - by * (i == j) for j, x in enumerate(row)] for i, row in enumerate(m)]


def semidefinite(m: Matrix) -> bool:
    return inertia(m)[1] == 0


def fractions_of(a: np.ndarray) -> Matrix:
    return [[Fraction(x) for x in row] for row in a.tolist()]


def symmetric(lower: np.ndarray) -> np.ndarray:
    return np.tril(lower) + np.tril(lower, -1).T


# --- the statement in exact rationals -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    rows: Matrix  # (n, D)
    vectors: Matrix  # (k, D)
    level: Fraction

    @property
    def gram(self) -> Matrix:
        return product(transpose(self.rows, D), self.rows)


@st.composite
def gaps(draw: st.DrawFn) -> Gap:
    rows = draw(matrices(draw(st.integers(1, 4)), D))
    k = draw(st.integers(0, D))
    kind = draw(st.sampled_from(["free", "axes", "scaled"]))
    vectors = draw(matrices(k, D)) if kind == "free" else [[Fraction(i == j) for j in range(D)] for i in range(k)]
    if kind == "scaled":  # columns of the rows vanish where the directions are, or nearly so
        tiny = draw(st.sampled_from([Fraction(0), Fraction(1, 100)]))
        rows = [[x * (tiny if j < k else 1) for j, x in enumerate(row)] for row in rows]
        vectors = [[9 * x for x in row] for row in vectors]
    return Gap(rows, vectors, draw(LEVELS))


def large_fails(gap: Gap, *, add: bool = True, count: int = 0) -> bool:
    """G + V V^T >= level, and fewer than d - k singular values whose square is at least the level."""
    k, total = len(gap.vectors), gap.gram
    if add and k:
        outer = product(transpose(gap.vectors, D), gap.vectors)
        total = [[a + b for a, b in zip(r, s, strict=True)] for r, s in zip(total, outer, strict=True)]
    positive, _, zero = inertia(shifted(gap.gram, gap.level))
    return semidefinite(shifted(total, gap.level)) and positive + zero < D - k + count


def small_fails(gap: Gap, *, independent: bool = True) -> bool:
    """||A V y||^2 <= level ||V y||^2 for all y, V of rank k, and fewer than k such singular values."""
    k = len(gap.vectors)
    if k == 0:
        return False
    inner = [[dot(a, b) for b in gap.vectors] for a in gap.vectors]
    if independent and inertia(inner)[0] < k:
        return False
    images = [[dot(row, v) for row in gap.rows] for v in gap.vectors]
    difference = [[gap.level * inner[i][j] - dot(images[i], images[j]) for j in range(k)] for i in range(k)]
    _, negative, zero = inertia(shifted(gap.gram, gap.level))
    return semidefinite(difference) and negative + zero < k


@given(gaps())
@settings(max_examples=150)
def test_both_sides_count_right(gap: Gap) -> None:
    assert not large_fails(gap)
    assert not small_fails(gap)


def test_every_singular_value_is_refuted() -> None:
    refutation(gaps(), lambda gap: large_fails(gap, count=1))


def test_dependent_directions_are_refuted() -> None:
    refutation(gaps(), lambda gap: small_fails(gap, independent=False))


# --- rounding -------------------------------------------------------------------------------------------------------


@st.composite
def symmetric_floats(draw: st.DrawFn) -> np.ndarray:
    """Lower triangles with ties, zeros and eigenvalues exactly at integers, at any scale that squares allow."""
    n = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["integers", "diagonal", "products", "floats"]))
    entries = draw(st.lists(st.integers(-4, 4), min_size=n * n, max_size=n * n))
    a = np.array(entries, dtype=np.float64).reshape(n, n)
    if kind == "diagonal":
        a = np.diag(np.diag(a))
    elif kind == "products":
        a = a.T @ a
    elif kind == "floats":
        a = a + draw(st.floats(-1, 1)) / 3.0
    return np.ldexp(np.tril(a), draw(st.sampled_from([0, 0, 0, 40, -40, 400, -400])))


@given(symmetric_floats(), st.data())
@settings(max_examples=300)
def test_no_claim_above_the_smallest_eigenvalue_is_accepted(lower: np.ndarray, data: st.DataObject) -> None:
    values = np.linalg.eigvalsh(lower, UPLO="L")
    scale = float(np.abs(values).max())
    offset = data.draw(st.sampled_from([0.0, 1e-16, -1e-16, 1e-15, -1e-15, -1e-13, 1e-10, -1e-10, -0.5, 0.5, -3.0]))
    error = data.draw(st.sampled_from([0.0, 0.0, 1e-15, 0.25])) * scale
    level = float(values[0]) + offset * scale - error
    accepted = at_least(lower, error, level)
    exact = shifted(fractions_of(symmetric(lower)), Fraction(level) + Fraction(error))
    if accepted:
        assert semidefinite(exact)
    if offset <= -1e-13 and scale > 0:
        assert accepted  # no more is lost than rounding


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 8]), st.sampled_from([0.0, 1e-12, 1.0]))
@settings(max_examples=40)
def test_residuals_are_bounded_whatever_the_factor_is(seed: int, n: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(n, n)))
    matrix = np.tril(factor @ factor.T + noise * rng.normal(size=(n, n)))
    left, whole = fractions_of(factor), fractions_of(symmetric(matrix))
    exact = product(left, transpose(left, n))
    difference = [[a - b for a, b in zip(r, s, strict=True)] for r, s in zip(whole, exact, strict=True)]
    assert Fraction(float(residual(matrix, factor).high)) ** 2 >= squares(difference)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 7, BLOCK, 2 * BLOCK + 5]), st.sampled_from([0, 300, -300]))
@settings(max_examples=15)
def test_gram_matrices_are_within_their_error(seed: int, n: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.ldexp(rng.normal(size=(n, 2)) * 10.0 ** rng.uniform(-9, 0, (n, 1)), exponent)
    matrix, error = gram([rows[: n // 3], rows[n // 3 :]], 2)
    columns = transpose(fractions_of(rows), 2)
    exact = [[dot(a, b) for b in columns] for a in columns]
    off = [[Fraction(x) - y for x, y in zip(r, s, strict=True)] for r, s in zip(matrix.tolist(), exact, strict=True)]
    assert Fraction(error) ** 2 >= squares(off)
    if n:
        assert error <= 1e-12 * max(matrix.trace(), 1e-290)  # and not idle


def test_residuals_across_blocks() -> None:
    """A change of one entry of a large matrix, in every corner of its blocks, is seen at its full size."""
    n, rng = BLOCK + 40, np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(n, n)))
    matrix = np.tril(factor @ factor.T)
    assert residual(matrix, factor).high < 1e-6
    for i, j in ((0, 0), (BLOCK - 1, 0), (BLOCK, BLOCK - 1), (n - 1, 0), (n - 1, n - 1), (n - 1, BLOCK)):
        changed = matrix.copy()
        changed[i, j] += 1.0
        assert residual(changed, factor).low > 0.9 * (1.0 if i == j else np.sqrt(2.0))


def test_large_matrices_with_a_known_spectrum() -> None:
    n, rng = BLOCK + 40, np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.linspace(1.0, 2.0, n)
    matrix = (turn * values) @ turn.T
    assert at_least(matrix, 0.0, 1.0 - 1e-9)
    assert not at_least(matrix, 0.0, 1.0 + 1e-9)
    assert not at_least(matrix, 1e-3, 1.0 - 1e-9)
    assert at_least(-matrix, 0.0, -2.0 - 1e-9)
    assert not at_least(-matrix, 0.0, -2.0 + 1e-9)


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_nothing_is_assumed_of_the_factorisation(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A routine that factors another matrix than it is given, up to a little or wholly, cannot make a claim true."""
    honest = np.linalg.cholesky
    matrix = np.diag([2.0, 1.0, 3.0])
    for lie in (1e-12, 1e-6, 0.1, 0.29, 5.0):
        monkeypatch.setattr(np.linalg, "cholesky", lambda m, lie=lie: honest(m + lie * np.eye(len(m))))
        assert not at_least(matrix, error, 1.0 - error + 0.5 * lie)
    for wrong in (np.zeros((3, 3)), np.eye(3), np.full((3, 3), np.nan), np.full((3, 3), 1e200)):
        monkeypatch.setattr(np.linalg, "cholesky", lambda _, wrong=wrong: wrong)
        with np.errstate(all="ignore"):
            assert not at_least(matrix, error, 1.0 - error)
    monkeypatch.undo()
    assert at_least(matrix, error, 1.0 - error - 1e-12)


def test_what_is_not_finite_proves_nothing() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        assert not at_least(np.array([[bad]]), 0.0, -1.0)
        assert not at_least(np.eye(2), bad, -1.0)
        assert not at_least(np.eye(2), 0.0, bad)
        matrix, error = gram([np.array([[bad, 1.0]])], 2)
        assert not at_least(matrix, error, -1.0)
    with np.errstate(over="ignore"):
        matrix, error = gram([np.array([[1e200, 1.0]])], 2)
    assert not at_least(matrix, error, -1.0)
