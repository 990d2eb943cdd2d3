"""Theorem first-order-closure in rationals, by ranks and by solving; and the search's answers against both."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from geometry.cells import cell_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.closing import closes, closing_set

from .exact import Matrix, Vector, add, dot, matrices, rank, refutation, solve, times, vectors

D = 3
SMALL = st.integers(-2, 2)
CASES = st.tuples(matrices(1, D, SMALL), matrices(3, D, SMALL), vectors(D, SMALL))
"""One equality, three candidates, g."""


def beside(v: Vector, rows: Matrix) -> Vector:
    """The part of v orthogonal to all rows, by Gram-Schmidt in rationals."""
    basis: Matrix = []
    for row in rows:
        for b in basis:
            row = add(row, b, -dot(row, b) / dot(b, b))
        if any(row):
            basis.append(row)
    for b in basis:
        v = add(v, b, -dot(v, b) / dot(b, b))
    return v


def floats(m: Matrix) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in m])


def left(equal: Matrix, rows: Matrix, g: Vector) -> Vector:
    """P g without its part in span {P w_u}."""
    return beside(beside(g, equal), [beside(row, equal) for row in rows])


@given(CASES, st.lists(st.integers(0, 2), unique=True))
@settings(max_examples=150)
def test_closed_iff_the_projection_is_in_the_span(case: tuple[Matrix, Matrix, Vector], chosen: list[int]) -> None:
    equal, rows, g = case
    held = [*equal, *(rows[u] for u in chosen)]
    rest = left(equal, [rows[u] for u in chosen], g)
    # The rest is itself admissible, and g along it is its square: so zero for all admissible means no rest.
    assert not any(times(held, rest))
    assert dot(g, rest) == dot(rest, rest)
    assert (not any(rest)) == (rank([*held, g]) == rank(held))


@given(CASES, vectors(D), st.lists(st.integers(0, 2), unique=True))
@settings(max_examples=150)
def test_the_distance_bounds_every_admissible_effect(
    case: tuple[Matrix, Matrix, Vector], raw: Vector, chosen: list[int]
) -> None:
    equal, rows, g = case
    delta = beside(raw, [*equal, *(rows[u] for u in chosen)])
    rest = left(equal, [rows[u] for u in chosen], g)
    assert dot(g, delta) ** 2 <= dot(rest, rest) * dot(delta, delta)


def test_the_unprojected_span_is_refuted() -> None:
    """P g in span {w_u} is another condition: it may fail where the effect is closed."""

    def wrong(case: tuple[Matrix, Matrix, Vector]) -> bool:
        equal, rows, g = case
        free = beside(g, equal)
        return not any(left(equal, rows[:1], g)) and any(beside(free, rows[:1]))

    refutation(CASES, wrong)


@given(CASES, st.lists(st.integers(0, 2), unique=True), st.sampled_from([1.0, 2.0**-40, 2.0**200]))
@settings(max_examples=150)
def test_closes_gives_the_exact_share(case: tuple[Matrix, Matrix, Vector], chosen: list[int], scale: float) -> None:
    equal, rows, g = case
    found = closes(cell_of(D, floats(equal)), floats([g])[0] * scale, floats(rows) * scale, chosen)
    free, rest = beside(g, equal), left(equal, [rows[u] for u in chosen], g)
    expected = float(dot(rest, rest) / dot(free, free)) ** 0.5 if any(free) else 0.0
    assert found.share == pytest.approx(expected, abs=1e-12)
    assert found.closed == (not any(rest))
    assert found.reach == pytest.approx(float(dot(rest, rest)) ** 0.5 * scale, rel=1e-9, abs=1e-12 * scale)


@given(CASES)
@settings(max_examples=150)
def test_the_smallest_set_is_that_of_exhaustion(case: tuple[Matrix, Matrix, Vector]) -> None:
    equal, rows, g = case
    sizes = [k for k in range(4) for u in combinations(range(3), k) if not any(left(equal, [rows[i] for i in u], g))]
    found = closing_set(cell_of(D, floats(equal)), floats([g])[0], floats(rows), 3)
    assert found.closed == bool(sizes)
    assert found.at_least <= min(sizes, default=4)
    if sizes:
        assert len(found.features) >= min(sizes)
        if min(sizes) <= 2:
            assert found.smallest
            assert len(found.features) == min(sizes) == found.at_least
    if found.smallest:
        assert len(found.features) == min(sizes)
    assert (np.diff(found.shares) <= 0).all()


def test_a_coefficient_system_is_the_same_condition() -> None:
    """By hand: g = 2 a + 3 w is closed by w, and by no other row."""
    a, w, g = [Fraction(1), Fraction(1), Fraction(0)], [Fraction(0), Fraction(1), Fraction(1)], None
    g = add([2 * x for x in a], w, 3)
    assert solve([[dot(a, a), dot(a, w)], [dot(a, w), dot(w, w)]], [dot(a, g), dot(w, g)]) == [2, 3]
    rows = floats([w, [Fraction(1), Fraction(0), Fraction(0)]])
    cell = cell_of(D, floats([a]))
    assert closes(cell, floats([g])[0], rows, [0]).closed
    assert not closes(cell, floats([g])[0], rows, [1]).closed
    assert closing_set(cell, floats([g])[0], rows, 2).features.tolist() == [0]
