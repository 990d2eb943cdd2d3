"""Theorem linear-dual in rationals, at admissible points constructed exactly; and its use by the solver."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from geometry.cells import Case, admissible_samples, cases
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.worst_case import worst_case

from .exact import INTEGERS, POSITIVE, Matrix, Vector, add, at_most_root, dot, matrices, refutation, vectors

D = 3


@dataclass(frozen=True)
class Weak:
    """An admissible delta, by construction, and any multipliers."""

    v: Vector
    delta: Vector
    equal: Matrix
    upper: Matrix
    slack: Vector
    radius: Fraction
    mu: Vector
    nu: Vector


@st.composite
def weak(draw: st.DrawFn) -> Weak:
    delta = draw(vectors(D))
    square = dot(delta, delta)
    equal = draw(matrices(2, D))
    equal = [add([x * square for x in row], delta, -dot(row, delta)) for row in equal]  # A delta = 0, exactly
    upper = draw(matrices(2, D))
    room = draw(st.lists(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(3)]), min_size=2, max_size=2))
    slack = [max(Fraction(0), dot(row, delta)) + extra for row, extra in zip(upper, room, strict=True)]
    radius = Fraction(int(np.ceil(np.sqrt(float(square))))) + draw(st.sampled_from([Fraction(0), Fraction(1, 3)]))
    assert radius**2 >= square
    mu, nu = draw(vectors(2)), draw(vectors(2))
    v = draw(vectors(D))
    if draw(st.booleans()):  # nearly tight: what is left of v is short, or points along delta
        v = [x / 100 for x in draw(st.sampled_from([v, delta]))]
        change = draw(st.sampled_from([lambda n: max(n, Fraction(0)), lambda n: -max(n, Fraction(0)), lambda n: n]))
        for multiplier, row in zip([*mu, *map(change, nu)], [*equal, *upper], strict=True):
            v = add(v, row, multiplier)
    return Weak(v, delta, equal, upper, slack, radius, mu, nu)


def fails(
    w: Weak, *, clip: bool = True, equalities: bool = True, slack: bool = True, ball: bool = True, sign: int = 1
) -> bool:
    """v . delta > nu . s + r ||v - A^T mu - B^T nu||; the options are mutants."""
    nu = [max(n, Fraction(0)) for n in w.nu] if clip else w.nu
    rest = w.v
    for multiplier, row in zip(w.mu if equalities else [], w.equal, strict=False):
        rest = add(rest, row, -multiplier)
    for multiplier, row in zip(nu, w.upper, strict=True):
        rest = add(rest, row, -multiplier * sign)
    cost = dot(nu, w.slack) if slack else Fraction(0)
    return not at_most_root(dot(w.v, w.delta) - cost, w.radius if ball else Fraction(0), dot(rest, rest))


@given(weak())
@settings(max_examples=100)
def test_weak_duality(w: Weak) -> None:
    assert not fails(w)


@given(weak(), st.integers(0, 1), POSITIVE)
@settings(max_examples=100)
def test_slacks_may_be_widened_and_multipliers_rounded(w: Weak, row: int, extra: Fraction) -> None:
    slack, nu = list(w.slack), list(w.nu)
    slack[row] += extra
    nu[row] = max(nu[row], Fraction(0)) + extra / 1000
    assert not fails(Weak(w.v, w.delta, w.equal, w.upper, slack, w.radius, w.mu, nu))


def test_a_negative_multiplier_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, clip=False))


def test_free_slack_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, slack=False))


def test_without_the_ball_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, ball=False))


def test_the_wrong_sign_of_nu_is_refuted() -> None:
    refutation(weak(), lambda w: fails(w, sign=-1))


def test_an_equality_that_does_not_hold_is_refuted() -> None:
    def wrong(w: Weak, rows: Matrix) -> Weak:
        v = add([m * x for m in w.mu[:1] for x in rows[0]], rows[1], w.mu[1])
        return Weak(v, w.delta, rows, *_rest(w))

    refutation(st.builds(wrong, weak(), matrices(2, D, INTEGERS)), fails)


def _rest(w: Weak) -> tuple[Matrix, Vector, Fraction, Vector, Vector]:
    return w.upper, w.slack, w.radius, w.mu, w.nu


@given(cases())
@settings(max_examples=100)
def test_the_solvers_multipliers_bound_every_admissible_point(case: Case) -> None:
    found = worst_case(case.cell, case.g, case.radius)
    for half, (features, values) in zip(case.cell.half_spaces, found.upper, strict=True):
        assert (values >= 0).all()
        assert np.isfinite(half.slack[features]).all()
    samples = admissible_samples(case.cell, case.radius, 50, 0)
    assert (samples @ case.g).max() <= found.dual + 1e-12 * np.linalg.norm(case.g) * case.radius


@given(cases())
@settings(max_examples=100)
def test_strong_duality_so_the_search_loses_nothing(case: Case) -> None:
    found = worst_case(case.cell, case.g, case.radius)
    assert abs(found.dual - found.value) <= 1e-9 * np.linalg.norm(case.g) * case.radius


def other_ball_fails(w: Weak, factor: Matrix | None, *, transposed: bool = True, norm: str = "dual") -> bool:
    """The same over the box that just contains delta (no factor), or an ellipsoid; the options are mutants."""
    nu = [max(n, Fraction(0)) for n in w.nu]
    rest = w.v
    for multiplier, row in zip([*w.mu, *nu], [*w.equal, *w.upper], strict=True):
        rest = add(rest, row, -multiplier)
    gained = dot(w.v, w.delta) - dot(nu, w.slack)
    if factor is None:
        radius = max(abs(x) for x in w.delta)
        size = sum(abs(x) for x in rest) if norm == "dual" else max(abs(x) for x in rest)
        return gained > radius * size
    columns = list(zip(*factor, strict=True)) if transposed else factor
    image = [dot(list(column), rest) for column in columns]  # L^T rest
    return not at_most_root(gained, w.radius, dot(image, image))


@given(weak())
@settings(max_examples=100)
def test_weak_duality_over_a_box(w: Weak) -> None:
    assert not other_ball_fails(w, None)


@given(weak(), matrices(D, D))
@settings(max_examples=100)
def test_weak_duality_over_an_ellipsoid(w: Weak, factor: Matrix) -> None:
    """With y = delta of the case, L y is the perturbation: its constraints are made to hold by moving them along."""
    moved = [dot(row, w.delta) for row in factor]  # L y
    change = add(moved, w.delta, Fraction(-1))
    slack = [s + max(Fraction(0), dot(row, change)) for s, row in zip(w.slack, w.upper, strict=True)]
    square = dot(moved, moved)
    equal = [add([x * square for x in row], moved, -dot(row, moved)) for row in w.equal]
    assert not other_ball_fails(Weak(w.v, moved, equal, w.upper, slack, w.radius, w.mu, w.nu), factor)


def test_wrong_dual_norms_are_refuted() -> None:
    assert refutation(weak(), lambda w: other_ball_fails(w, None, norm="linf"))
    skew = [
        [Fraction(1), Fraction(5), Fraction(0)],
        [Fraction(0), Fraction(1), Fraction(0)],
        [Fraction(0)] * 2 + [Fraction(1)],
    ]

    def fails_untransposed(w: Weak) -> bool:
        moved = [dot(row, w.delta) for row in skew]
        free = Weak(w.v, moved, [], [], [], w.radius, [], [])
        return other_ball_fails(free, skew, transposed=False)

    assert refutation(weak(), fails_untransposed)
