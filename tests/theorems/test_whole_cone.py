"""Theorem whole-cone in rationals, with the mutants that must fall; and the solver against exact answers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sae_verify.geometry.whole_cone import whole_cone

from .exact import (
    INTEGERS,
    Matrix,
    Vector,
    add,
    dot,
    matrices,
    minus_identity,
    product,
    rank,
    refutation,
    root,
    solve,
    squares,
    transpose,
    vectors,
)
from .exact_cones import combination, reaches_everything

D = 2
N = 4


@dataclass(frozen=True)
class Near:
    """Rows, weights that may nearly cancel, and an approximate left inverse."""

    rows: Matrix
    f: Vector
    inverse: Matrix


@st.composite
def near(draw: st.DrawFn, *, spanning: bool = True) -> Near:
    rows = draw(matrices(N - 1, D))
    f = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=N, max_size=N).map(lambda v: [Fraction(t) for t in v]))
    last = [-t / f[-1] for t in combination(rows, f[:-1], D)]
    off = draw(st.sampled_from([Fraction(0), Fraction(1, 100), Fraction(1)]))
    rows = [*rows, add(last, draw(vectors(D)), off)]
    if spanning:
        assume(rank(rows) == D)
    return Near(rows, f, draw_inverse(draw, rows))


def draw_inverse(draw: st.DrawFn, rows: Matrix) -> Matrix:
    """(W^T W)^-1 W^T, a little off; zeros if there is none."""
    columns = transpose(rows, D)
    gram = [[dot(a, b) for b in columns] for a in columns]
    solved = [solve(gram, [row[i] for i in range(D)]) for row in rows]
    if any(s is None for s in solved):
        return [[Fraction(0)] * N for _ in range(D)]
    inverse = transpose([s for s in solved if s is not None], D)
    size = draw(st.sampled_from([Fraction(0), Fraction(1, 50)]))
    return [add(row, noise, size) for row, noise in zip(inverse, draw(matrices(D, N, st.integers(-1, 1))), strict=True)]


def proven(n: Near, *, spanning: bool = True, cancelling: bool = True, positive: bool = True) -> bool:
    """The theorem's condition, decided on the safe side; the options are mutants."""
    c = root(squares(minus_identity(product(n.inverse, n.rows))), up=True) if spanning else Fraction(0)
    if c >= 1:
        return False
    miss = combination(n.rows, n.f, D)
    eta = root(dot(miss, miss), up=True) if cancelling else Fraction(0)
    columns = transpose(n.inverse, N)
    rho = [root(dot(column, column), up=True) / (1 - c) for column in columns]
    return not positive or all(f > r * eta for f, r in zip(n.f, rho, strict=True))


@given(near())
@settings(max_examples=150)
def test_what_is_proven_is_true(n: Near) -> None:
    if proven(n):
        assert reaches_everything(n.rows, D)


def test_the_condition_can_hold_without_exact_cancellation() -> None:
    refutation(near(), lambda n: proven(n) and any(combination(n.rows, n.f, D)))


def test_weights_that_do_not_cancel_are_refuted() -> None:
    refutation(near(), lambda n: proven(n, cancelling=False) and not reaches_everything(n.rows, D))


def test_rows_that_do_not_span_are_refuted() -> None:
    refutation(near(spanning=False), lambda n: proven(n, spanning=False) and not reaches_everything(n.rows, D))


def test_margins_that_do_not_count_are_refuted() -> None:
    refutation(near(), lambda n: proven(n, positive=False) and not reaches_everything(n.rows, D))


@given(near(), vectors(D))
@settings(max_examples=150)
def test_the_construction(n: Near, x: Vector) -> None:
    """g = p(x) + s f* writes x, is not negative, and obeys the bound on every entry."""
    assume(proven(n))
    mapped = product(n.inverse, n.rows)  # I + E

    def p(v: Vector) -> Vector:
        solved = solve(transpose(mapped, D), v)  # v (I + E)^-1
        assert solved is not None
        return combination(n.inverse, solved, N)

    miss = combination(n.rows, n.f, D)
    exact = add(n.f, p(miss), -1)
    assert not any(combination(n.rows, exact, D))
    c = root(squares(minus_identity(mapped)), up=True)
    eta = root(dot(miss, miss), up=True)
    rho = [root(dot(column, column), up=True) / (1 - c) for column in transpose(n.inverse, N)]
    least = [f - r * eta for f, r in zip(n.f, rho, strict=True)]
    assert all(e >= value for e, value in zip(exact, least, strict=True))
    size = root(dot(x, x), up=True)
    t = max(r / value for r, value in zip(rho, least, strict=True))
    g = add(p(x), exact, size * t)
    assert combination(n.rows, g, D) == x
    for entry, f, r in zip(g, n.f, rho, strict=True):
        assert 0 <= entry <= size * (r + (f + r * eta) * t) * (1 + Fraction(1, 10**40))


@given(matrices(6, 3, INTEGERS))
@settings(max_examples=80)
def test_the_solver_decides_small_dictionaries(rows: Matrix) -> None:
    found = whole_cone(np.array(rows, dtype=np.float64))
    assert (found.whole is True) == reaches_everything(rows, 3)


@given(matrices(8, 3, st.integers(-1, 1)))
@settings(max_examples=60)
def test_the_solver_decides_degenerate_dictionaries(rows: Matrix) -> None:
    """Many ties, lines and repeated rows; a negative answer may be left open where the cone contains a line."""
    found = whole_cone(np.array(rows, dtype=np.float64))
    assert (found.whole is True) == reaches_everything(rows, 3)
    if found.whole is False:
        assert found.separated is not None
        assert found.separated.distance > 0.999
