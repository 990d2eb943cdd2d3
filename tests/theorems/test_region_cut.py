"""Theorem region-cut: points of caps in rationals, up to the rim; ellipsoids that miss a condition are refuted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .exact import Vector, add, dot, refutation, vectors

D = 3
SHARES = st.fractions(0, 1, max_denominator=12)


@dataclass(frozen=True)
class Cut:
    """The cap t >= b, an ellipsoid by t_c, s_n and the square of s_p, and a point t n + p by t and ||p||^2."""

    b: Fraction
    centre: Fraction
    along: Fraction
    across: Fraction
    t: Fraction
    p: Fraction

    def allowed(self, *, first: bool = True, second: bool = True, rounder: bool = True) -> bool:
        """The conditions of the theorem."""
        if self.along <= 0 or self.across <= 0 or (rounder and self.across < self.along**2):
            return False
        at_b = ((self.b - self.centre) / self.along) ** 2 + (1 - self.b**2) / self.across
        return (at_b <= 1 or not first) and ((1 - self.centre) / self.along <= 1 or not second)

    def inside(self) -> bool:
        return ((self.t - self.centre) / self.along) ** 2 + self.p / self.across <= 1


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    b = draw(
        st.one_of(st.sampled_from([Fraction(-1), Fraction(0), Fraction(1)]), st.fractions(-1, 1, max_denominator=12))
    )
    t = b + draw(SHARES) * (1 - b)
    p = draw(SHARES) * (1 - t * t)
    if draw(st.booleans()):  # near the choices of the prose, and enlarged by zero, a hair or a lot
        d = draw(st.integers(2, 4))
        more = 1 + draw(st.sampled_from([Fraction(0), Fraction(1, 10**30), Fraction(1), Fraction(10) ** 30]))
        if draw(st.booleans()):
            return Cut(
                b,
                (1 + d * b) / (d + 1),
                d * (1 - b) / (d + 1) * more,
                d * d * (1 - b * b) / (d * d - 1) * more**2,
                t,
                p,
            )
        return Cut(b, b, (1 - b) * more, (1 - b * b) * more**2, t, p)
    positive = st.fractions(Fraction(1, 12), 3, max_denominator=12)
    return Cut(b, draw(st.fractions(-2, 2, max_denominator=12)), draw(positive), draw(positive), t, p)


@given(cuts())
@settings(max_examples=500)
def test_the_cap_is_inside(c: Cut) -> None:
    if c.allowed():
        assert c.inside()


def test_the_premise_is_met_with_equality_and_each_condition_is_needed() -> None:
    assert refutation(cuts(), lambda c: c.allowed() and 0 < c.b < 1 and c.p == 1 - c.t**2 and c.t == c.b)
    assert refutation(cuts(), lambda c: c.allowed(first=False) and not c.inside())
    assert refutation(cuts(), lambda c: c.allowed(second=False) and not c.inside())
    assert refutation(cuts(), lambda c: c.allowed(rounder=False) and not c.inside())


def test_a_centre_beyond_one_is_covered_by_the_first_condition() -> None:
    assert refutation(cuts(), lambda c: c.centre > 1 and c.allowed() and c.t == 1 and c.inside())


def test_the_other_half_is_not_inside() -> None:
    below = st.tuples(cuts(), SHARES)
    assert refutation(
        below,
        lambda c: c[0].allowed() and not Cut(c[0].b, c[0].centre, c[0].along, c[0].across, -c[1], c[0].p).inside(),
    )


@given(cuts(), vectors(D), vectors(D), vectors(D), vectors(D).filter(any))
def test_in_an_ellipsoid_of_any_shape(c: Cut, scales: Vector, centre: Vector, y: Vector, u: Vector) -> None:
    """x = c + S y with a diagonal S, possibly singular: u . x >= beta is n . y >= b, and y decides, not x."""
    s_u = [s * x for s, x in zip(scales, u, strict=True)]
    assume(any(s_u))
    assume(any(y))
    square = dot(s_u, s_u)
    shrunk = [v / max(1, sum(abs(x) for x in y)) for v in y]  # in the unit ball
    x = add(centre, [s * v for s, v in zip(scales, shrunk, strict=True)])
    beta = dot(u, centre)  # b = 0
    assert (dot(u, x) >= beta) == (dot(s_u, shrunk) >= 0)
    if dot(u, x) >= beta and c.b == 0 and c.allowed():
        t_square = dot(s_u, shrunk) ** 2 / square
        # ((t - t_c)/s_n)^2 + ||p||^2/s_p^2 <= 1 with t = sqrt(t_square): linear in t, so compare with a root.
        rest = (t_square + c.centre**2) / c.along**2 + (dot(shrunk, shrunk) - t_square) / c.across - 1
        slope = 2 * c.centre / c.along**2
        assert rest <= 0 or (slope > 0 and rest**2 <= slope**2 * t_square)


ENDS = st.tuples(st.integers(-4, 4), st.integers(-4, 4)).map(lambda p: (Fraction(min(p)), Fraction(max(p))))
SLABS = st.tuples(st.lists(ENDS, min_size=1, max_size=2), vectors(D), st.integers(0, 40))


def distance(ends: tuple[Fraction, Fraction], *, wrong: bool = False) -> Fraction:
    low, high = ends
    if wrong:
        return max(abs(low), abs(high))
    return Fraction(0) if low <= 0 <= high else min(abs(low), abs(high))


def covered(case: tuple[list[tuple[Fraction, Fraction]], Vector, int], *, wrong: bool = False) -> bool:
    """Whether the box times the ball contains y, if the region does; the first axes are the slabs' normals."""
    slabs, y, square = case
    if dot(y, y) > square or any(not low <= x <= high for (low, high), x in zip(slabs, y, strict=False)):
        return True
    left = square - sum(distance(ends, wrong=wrong) ** 2 for ends in slabs)
    return dot(y[len(slabs) :], y[len(slabs) :]) <= left


@given(SLABS)
@settings(max_examples=300)
def test_slabs_of_a_ball_lie_in_a_box_times_a_ball(case: tuple[list[tuple[Fraction, Fraction]], Vector, int]) -> None:
    assert covered(case)


def test_a_ball_shrunk_by_the_far_ends_is_refuted() -> None:
    assert refutation(SLABS, lambda c: not covered(c, wrong=True))


@given(vectors(D), vectors(D), vectors(D), st.integers(1, 4), ENDS)
def test_turning_an_axis(n1: Vector, turned: Vector, y: Vector, size: int, room: tuple[Fraction, Fraction]) -> None:
    """Axis = share n_1 + size turned, for shares of both signs; the ends contain y by construction."""
    for share in (Fraction(-2), Fraction(0), Fraction(1, 3)):
        axis = add([share * x for x in n1], turned, size)
        low, high = dot(axis, y) - abs(room[0]), dot(axis, y) + abs(room[1])
        first = dot(n1, y) - abs(room[1]), dot(n1, y) + abs(room[0])
        ends = [share * x for x in first]
        assert (low - max(ends)) / size <= dot(turned, y) <= (high - min(ends)) / size
