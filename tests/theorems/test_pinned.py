"""Theorem pinned: an approximate left inverse proves full rank, in rationals; the package's proof of it is sound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from bounds.instances import final_norm_of, instance_of, readout_at
from geometry.cells import cell_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sae_verify.bounds import Pinned
from sae_verify.checker.independence import spans_everything

from .exact import (
    Matrix,
    Vector,
    matrices,
    minus_identity,
    product,
    rank,
    refutation,
    squares,
    times,
    transpose,
    vectors,
)

N, D = 4, 3


@st.composite
def inverses(draw: st.DrawFn) -> tuple[Matrix, Matrix, Vector]:
    """M (n, d), a matrix R (d, n) that is often near a left inverse, and a non-zero delta."""
    m = draw(matrices(N, D, st.integers(-2, 2)))
    if draw(st.booleans()):
        digits = draw(st.sampled_from([1, 2, 10]))
        r = [[Fraction(round(x * digits), digits) for x in row] for row in np.linalg.pinv(np.array(m, dtype=float))]
    else:
        r = draw(matrices(D, N, st.integers(-1, 1)))
    return m, r, draw(vectors(D, st.integers(-2, 2)).filter(any))


def kernel(case: tuple[Matrix, Matrix, Vector]) -> bool:
    return not any(times(case[0], case[2]))


@given(inverses())
@settings(max_examples=100)
def test_a_defect_below_one_leaves_only_zero(case: tuple[Matrix, Matrix, Vector]) -> None:
    m, r, _ = case
    if squares(minus_identity(product(r, m))) < 1:
        assert rank(m) == D
        assert not kernel(case)


def test_the_premise_is_met() -> None:
    refutation(inverses(), lambda c: squares(minus_identity(product(c[1], c[0]))) < 1)


HALVES = matrices(2, 2, st.integers(-2, 2)).map(lambda r: [[x / 2 for x in row] for row in r])
SMALL = st.tuples(matrices(2, 2, st.integers(-1, 1)), HALVES)
"""M and R of two by two, for what goes wrong with a weaker premise."""


def test_a_defect_of_one_is_refuted() -> None:
    refutation(SMALL, lambda c: squares(minus_identity(product(c[1], c[0]))) <= 1 and rank(c[0]) < 2)


def test_the_largest_entry_instead_of_the_norm_is_refuted() -> None:
    def wrong(case: tuple[Matrix, Matrix]) -> bool:
        defect = minus_identity(product(case[1], case[0]))
        return max(abs(x) for row in defect for x in row) < 1 and rank(case[0]) < 2

    refutation(SMALL, wrong)


def test_a_right_inverse_is_refuted() -> None:
    """||I - M R|| < 1 says that the rows are independent, not that they span: two rows in three dimensions."""
    right = st.tuples(matrices(2, D, st.integers(-1, 1)), matrices(D, 2, st.integers(-1, 1)))
    refutation(right, lambda c: squares(minus_identity(product(*c))) < 1 and rank(c[0]) < D)


@given(matrices(N, D, st.integers(-2, 2)), st.sampled_from([1.0, 2.0**-40, 2.0**300]))
@settings(max_examples=100)
def test_the_checker_never_calls_a_deficient_matrix_spanning(m: Matrix, scale: float) -> None:
    spans = spans_everything(np.array(m, dtype=float) * scale)
    assert spans == (rank(m) == D)  # integers this small leave no room for doubt either way


@given(st.integers(0, 2**32 - 1), st.floats(1e-18, 1e-3))
@settings(max_examples=100)
def test_the_checker_on_nearly_dependent_rows(seed: int, gap: float) -> None:
    """Rows whose last direction has size `gap`: spanning in exact reals, and the checker may only be cautious."""
    rng = np.random.default_rng(seed)
    m = rng.integers(-3, 4, size=(3, 3)).astype(float)
    m[2] = m[0] + m[1]
    assert not spans_everything(m)
    m[2, 0] += gap
    if spans_everything(m):
        assert rank([[Fraction(x) for x in row] for row in m.tolist()]) == 3


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_a_pinned_bound_is_the_value_at_zero(kind: str) -> None:
    rng = np.random.default_rng(1)
    norm, unembedding = final_norm_of(kind, 4, rng), rng.normal(size=(3, 4))
    pinned = instance_of(rng.normal(size=4), unembedding, norm, cell_of(4, rng.normal(size=(6, 4))))
    loose = instance_of(pinned.h, unembedding, norm, cell_of(4, rng.normal(size=(3, 4))))
    assert Pinned().applies(pinned)
    assert not Pinned().applies(loose)
    value = float(readout_at(pinned, np.zeros(4)))
    for radius in (0.0, 1.0, 1e9):
        bound = Pinned().bound(pinned, radius)
        assert bound.radius is None
        assert value <= bound.value <= value + 1e-9


@given(matrices(N, D, st.integers(-1, 1)))
def test_trivial_is_full_rank(m: Matrix) -> None:
    assume(m)
    assert cell_of(D, np.array(m, dtype=float)).trivial == (rank(transpose(m, D)) == D)
