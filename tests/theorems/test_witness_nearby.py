"""Theorem witness-nearby in rationals: the point is constructed as in the proof, and checked against the statement."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Ball, combine, norm
from sae_verify.checker.errors import Rejected
from sae_verify.checker.independence import reach, rescaled

from .exact import (
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
    times,
    transpose,
    vectors,
)

N, D = 2, 3


@dataclass(frozen=True)
class Near:
    """Held equalities, an approximate right inverse, a vector, one half-space."""

    m: Matrix
    r: Matrix
    v: Vector
    w: Vector

    @property
    def defect_square(self) -> Fraction:
        return squares(minus_identity(product(self.m, self.r)))

    def admissible(self) -> Vector | None:
        """v* = v - R (M R)^-1 M v."""
        inner = solve(product(self.m, self.r), times(self.m, self.v))
        return None if inner is None else add(self.v, times(self.r, inner), -1)

    def distance(self, *, amplified: bool = True) -> Fraction:
        """k, rounded up at the fiftieth digit; without the factor 1 / (1 - c) it is a mutant."""
        c = root(self.defect_square, up=True) if amplified else Fraction(0)
        return root(squares(self.r) * dot(residual := times(self.m, self.v), residual), up=True) / (1 - c)


@st.composite
def nears(draw: st.DrawFn) -> Near:
    m = draw(matrices(N, D, st.integers(-2, 2)))
    digits = draw(st.sampled_from([1, 2, 3, 1000]))
    r = [[Fraction(round(x * digits), digits) for x in row] for row in np.linalg.pinv(np.array(m, dtype=float))]
    shrink = draw(st.sampled_from([1, 1, 10**6]))
    v = [x / shrink for x in draw(vectors(D))]
    return Near(m, r, v, draw(vectors(D)))


def premise(n: Near) -> bool:
    return n.defect_square < 1 and root(n.defect_square, up=True) < 1


@given(nears())
@settings(max_examples=100)
def test_an_admissible_point_lies_within_the_distance(n: Near) -> None:
    if not premise(n):
        return
    point = n.admissible()
    assert point is not None
    assert not any(times(n.m, point))
    gap = add(point, n.v, -1)
    k = n.distance()
    assert dot(gap, gap) <= k * k
    reach_w = root(dot(n.w, n.w), up=True) * k
    assert abs(dot(n.w, gap)) <= reach_w  # so w . v + ||w|| k <= t gives w . v* <= t
    assert root(dot(point, point), up=False) <= root(dot(n.v, n.v), up=True) + k


def test_the_premise_is_met_with_a_real_defect() -> None:
    refutation(nears(), lambda n: premise(n) and n.defect_square > Fraction(1, 100) and any(times(n.m, n.v)))


def test_without_the_amplification_is_refuted() -> None:
    """The nearest exact point itself can be farther than ||R|| ||M v||: R shorter than the true inverse, c near 1."""

    def wrong(n: Near) -> bool:
        if not premise(n):
            return False
        # The nearest of all exact points, not only the one of the proof.
        inner = solve(product(n.m, transpose(n.m, D)), times(n.m, n.v))
        assert inner is not None
        nearest = times(transpose(n.m, D), inner)
        k = n.distance(amplified=False)
        return dot(nearest, nearest) > k * k

    short = st.builds(
        lambda n, f: Near(n.m, [[x * f for x in row] for row in n.r], n.v, n.w),
        nears(),
        st.sampled_from([Fraction(1, 2), Fraction(3, 5)]),
    )
    refutation(short, wrong, 20000)


def test_a_defect_of_one_is_refuted() -> None:
    """M R - I of norm 1 or more leaves M R singular: the construction has no point to give."""
    refutation(nears(), lambda n: n.defect_square <= 2 and n.admissible() is None)


def test_a_half_space_without_the_reach_is_refuted() -> None:
    """W . v <= t alone does not give w . v* <= t."""

    def wrong(n: Near) -> bool:
        point = n.admissible() if premise(n) else None
        return point is not None and dot(n.w, point) > dot(n.w, n.v)

    refutation(nears(), wrong)


@given(nears())
@settings(max_examples=100)
def test_the_checkers_distance_covers_the_nearest_exact_point(n: Near) -> None:
    rows = rescaled(np.array(n.m, dtype=float).reshape(-1, D))
    if not rows.size:
        return
    v = Ball.exact(np.array([float(x) for x in n.v]))
    try:
        k = Fraction(float((norm(combine(v, Ball.exact(rows.T))) * Ball.exact(reach(rows))).high))
    except Rejected:
        assert rank([[Fraction(x) for x in row] for row in rows.tolist()]) < len(rows)
        return
    exact = [[Fraction(x) for x in row] for row in rows.tolist()]
    recorded = [Fraction(float(x)) for x in n.v]
    inner = solve(product(exact, transpose(exact, D)), times(exact, recorded))
    assert inner is not None
    nearest = times(transpose(exact, D), inner)
    assert dot(nearest, nearest) <= k * k


def test_dependent_equalities_are_rejected() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 0.0], [0.0, 2.0, 3.0]])
    assert len(rescaled(rows)) == 3  # the doubled row is the same row
    try:
        reach(rescaled(rows))
    except Rejected:
        return
    raise AssertionError("three rows of rank two were called independent")
