"""Theorem cone-membership in rationals, with the mutants that must fall; and the solver against exact answers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sae_verify.geometry.cone import reach
from sae_verify.geometry.sparse_code import opposite, sparse_code

from .exact import INTEGERS, Matrix, Vector, add, at_most_root, dot, matrices, refutation, root, vectors
from .exact_cones import combination, nearest_square

D = 3
N = 5


@dataclass(frozen=True)
class Weak:
    """An admissible code, by construction, and any direction that the theorem allows."""

    x: Vector
    rows: Matrix
    f: Vector
    upper: list[Fraction | None]
    total: Fraction | None
    active: int | None
    y: Vector
    level: Fraction


@st.composite
def weak(draw: st.DrawFn, *, allowed: bool = True) -> Weak:
    f = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=N, max_size=N).map(lambda v: [Fraction(t) for t in v]))
    rows, y = draw(matrices(N, D)), draw(vectors(D).filter(any))
    near = draw(st.booleans())
    x = add(combination(rows, f, D), y, draw(st.sampled_from([0, Fraction(1, 3), 1]))) if near else draw(vectors(D))
    room = st.sampled_from([Fraction(0), Fraction(1, 2)])
    upper = [draw(st.one_of(st.none(), room.map(lambda e, v=v: v + e))) for v in f]
    total = draw(st.one_of(st.none(), room.map(lambda e: sum(f, Fraction(0)) + e)))
    active = draw(st.one_of(st.none(), st.integers(0, 1).map(lambda e: sum(v > 0 for v in f) + e)))
    unlimited = [dot(row, y) for row, u in zip(rows, upper, strict=True) if u is None]
    level = Fraction(0)
    if total is not None:
        level = max([*unlimited, Fraction(0)]) + draw(room)
    elif allowed and any(p > 0 for p in unlimited):
        rows = [[-t for t in row] if u is None and dot(row, y) > 0 else row for row, u in zip(rows, upper, strict=True)]
        x = add(combination(rows, f, D), y) if near else x
    return Weak(x, rows, f, upper, total, active, y, level)


def fails(w: Weak, *, limit: int = 0, clip: bool = True, level: bool = True, share: Fraction = Fraction(1)) -> bool:
    """(x . y - h) > ||y|| ||x - f rows||; the options are mutants."""
    over = []
    for row, u in zip(w.rows, w.upper, strict=True):
        if u is not None:
            above = dot(row, w.y) - w.level
            over.append(u * (max(above, Fraction(0)) if clip else above))
    over.sort(reverse=True)
    h = sum(over if w.active is None else over[: max(w.active - limit, 0)], Fraction(0)) * share
    h += w.level * w.total if w.total is not None and level else Fraction(0)
    if w.active == 0:
        h = Fraction(0)
    rest = add(w.x, combination(w.rows, w.f, D), -1)
    return not at_most_root(dot(w.x, w.y) - h, Fraction(1), dot(w.y, w.y) * dot(rest, rest))


@given(weak())
@settings(max_examples=150)
def test_no_admissible_code_comes_nearer(w: Weak) -> None:
    assert not fails(w)


def test_a_positive_product_with_an_unbounded_row_is_refuted() -> None:
    refutation(weak(allowed=False), fails)


def test_one_active_feature_less_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, limit=1))


def test_negative_parts_that_count_are_refuted() -> None:
    refutation(weak(), lambda w: fails(w, clip=False))


def test_a_level_for_nothing_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, level=False))


def test_half_of_the_bounds_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, share=Fraction(1, 2)))


# --- one active feature ---------------------------------------------------------------------------------------------

SHARES = st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1)])


def single_bound(x: Vector, row: Vector, t: Fraction, u: Fraction | None, *, at_bounds: bool = True) -> Fraction:
    """||r||^2 - q^2 / ||d||^2."""
    rest = add(x, row, -t)
    q = dot(rest, row)
    if at_bounds and ((t == u and q > 0) or (t == 0 and q < 0)):
        q = Fraction(0)
    return dot(rest, rest) - q * q / dot(row, row)


@given(vectors(D), vectors(D).filter(any), SHARES, SHARES, st.sampled_from([None, Fraction(0), Fraction(1, 2), 5]))
@settings(max_examples=150)
def test_one_feature(x: Vector, row: Vector, at: Fraction, other: Fraction, u: Fraction | None) -> None:
    limit = Fraction(3) if u is None else Fraction(u)
    bound = single_bound(x, row, at * limit, u)
    rest = add(x, row, -other * limit)
    assert bound <= dot(rest, rest)
    best = max(Fraction(0), dot(x, row) / dot(row, row))
    best = best if u is None else min(best, Fraction(u))
    rest = add(x, row, -best)
    assert single_bound(x, row, best, u) == dot(rest, rest)


def test_a_pull_beyond_the_bound_that_counts_loses_the_equality() -> None:
    def loose(case: tuple[Vector, Vector]) -> bool:
        x, row = case
        return single_bound(x, row, Fraction(0), Fraction(1), at_bounds=False) < dot(x, x) and dot(x, row) < 0

    refutation(st.tuples(vectors(D), vectors(D).filter(any)), loose)


# --- few active features --------------------------------------------------------------------------------------------


def cosine_bound(rows: Matrix) -> Fraction:
    """The least mu >= 0 of the theorem, rounded up."""
    worst = Fraction(0)
    for i, a in enumerate(rows):
        for b in rows[:i]:
            if dot(a, b) < 0:
                worst = max(worst, root(dot(a, b) ** 2 / (dot(a, a) * dot(b, b)), up=True))
    return worst


def correlation_bound(x: Vector, rows: Matrix, k: int, mu: Fraction, pairs: int) -> Fraction:
    squares = sorted((max(dot(x, row), Fraction(0)) ** 2 / dot(row, row) for row in rows), reverse=True)
    return dot(x, x) - sum(squares[:k], Fraction(0)) / (1 - pairs * mu)


Few = tuple[Vector, Matrix, int]


@st.composite
def few(draw: st.DrawFn) -> Few:
    rows = [row for row in draw(matrices(4, D, st.integers(-1, 3))) if any(row)]
    assume(len(rows) >= 2)
    k = draw(st.integers(1, len(rows)))
    if draw(st.booleans()):
        return combination(rows, [Fraction(int(i < k)) for i in range(len(rows))], D), rows, k
    return draw(vectors(D)), rows, k


@given(few())
@settings(max_examples=150)
def test_few_features_by_cosines(case: Few) -> None:
    x, rows, k = case
    mu = cosine_bound(rows)
    assume((k - 1) * mu < 1)
    assert correlation_bound(x, rows, k, mu, k - 1) <= nearest_square(rows, x, k)


@pytest.mark.parametrize("pairs", [0, 1])
def test_cosines_that_do_not_all_count_are_refuted(pairs: int) -> None:
    """With fewer than k - 1 of them, for k = 2 and 3: three obtuse rows, and a vector that k of them reach."""
    rows = [[Fraction(4) if i == j else Fraction(-1) for j in range(3)] for i in range(3)]
    k = pairs + 2
    x = combination(rows[:k], [Fraction(1)] * k, 3)
    mu = cosine_bound(rows)
    assert nearest_square(rows, x, k) == 0
    assert correlation_bound(x, rows, k, mu, pairs) > 0
    assert correlation_bound(x, rows, k, mu, k - 1) <= 0


# --- the solver -----------------------------------------------------------------------------------------------------


@given(matrices(N, D, INTEGERS), vectors(D))
@settings(max_examples=60)
def test_the_solver_encloses_the_exact_distance(rows: Matrix, x: Vector) -> None:
    found = reach(np.array(rows, dtype=np.float64), np.array(x, dtype=np.float64))
    square = nearest_square(rows, x)
    assert square <= Fraction(found.residual) ** 2
    assert Fraction(found.distance) ** 2 <= square
    assert found.residual <= float(square) ** 0.5 + 1e-7
    if found.separation is not None and found.separation.total is None:
        assert found.gap <= 1e-9
    elif found.separation is None:
        assert square <= 1e-20


@given(matrices(N, D, INTEGERS), vectors(D), st.integers(0, 3))
@settings(max_examples=60)
def test_sparse_codes_enclose_the_exact_distance(rows: Matrix, x: Vector, k: int) -> None:
    matrix = np.array(rows, dtype=np.float64)
    found = sparse_code(matrix, np.array(x, dtype=np.float64), k, cosine=opposite(matrix))
    square = nearest_square(rows, x, k)
    assert len(found.member.features) <= k
    assert square <= Fraction(found.residual) ** 2
    assert Fraction(found.distance) ** 2 <= square
    if k <= 1:
        assert found.gap <= 1e-6
