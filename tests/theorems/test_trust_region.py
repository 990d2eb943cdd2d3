"""Theorem trust-region: exactly in rationals, on matrices that are definite, singular, zero and scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .exact import Matrix, Vector, add, at_most_root, dot, matrices, refutation, solve, times, transpose, vectors

D, N = 3, 2


@dataclass(frozen=True)
class Quadratic:
    """M = B^T B is positive semidefinite by itself, and Q = m I - M; w, e are rows; y is feasible by construction."""

    b: Matrix
    m: Fraction
    g: Vector
    w: Matrix
    room: Vector
    e: Matrix
    nu: Vector
    mu: Vector
    v: Vector
    y: Vector
    spare: Fraction

    @property
    def shifted(self) -> Matrix:
        columns = transpose(self.b, D)
        return [[dot(x, z) for z in columns] for x in columns]

    @property
    def q(self) -> Matrix:
        return [[self.m * (i == j) - x for j, x in enumerate(row)] for i, row in enumerate(self.shifted)]

    @property
    def slack(self) -> Vector:
        return add(times(self.w, self.y), self.room)

    @property
    def square(self) -> Fraction:
        """r^2, the ball of y and a little more."""
        return dot(self.y, self.y) + self.spare

    @property
    def a(self) -> Vector:
        a = self.g
        for weight, row in zip((*self.nu, *self.mu), (*self.w, *self.e), strict=True):
            a = add(a, row, -weight)
        return a

    def value(self) -> Fraction:
        return dot(self.g, self.y) + dot(self.y, times(self.q, self.y)) / 2

    def bound(self, *, m: Fraction | None = None, weaker: bool = False) -> tuple[Fraction, Fraction]:
        """The rational part, and the square of ||a - M v||, which multiplies r (or r + ||v||)."""
        mv = times(self.shifted, self.v)
        rest = add(self.a, mv, -1)
        part = dot(self.v, mv) / 2 if not weaker else dot(self.a, self.v) - dot(self.v, mv) / 2
        return (self.m if m is None else m) * self.square / 2 + dot(self.nu, self.slack) + part, dot(rest, rest)


@st.composite
def quadratics(draw: st.DrawFn) -> Quadratic:
    scale = draw(st.sampled_from([Fraction(1), Fraction(10) ** 12, Fraction(1, 10**12), Fraction(0)]))
    y = draw(vectors(D))
    e = draw(matrices(1, D))
    if any(e[0]):  # y is made orthogonal to e
        y = add(y, e[0], -dot(y, e[0]) / dot(e[0], e[0]))
    c = Quadratic(
        b=[[x * scale for x in row] for row in draw(matrices(2, D))],  # rank at most 2 of 3: M is singular
        m=Fraction(draw(st.integers(0, 3))),
        g=draw(vectors(D)),
        w=draw(matrices(N, D)),
        room=[abs(x) for x in draw(vectors(N))],
        e=e,
        nu=[abs(x) for x in draw(vectors(N))],
        mu=draw(vectors(1)),
        v=draw(vectors(D)),
        y=y,
        spare=Fraction(draw(st.integers(0, 2))),
    )
    if draw(
        st.booleans()
    ):  # the bound is attained: M v = a, y = v, no room, and y on the sphere when nothing is to spare
        g = times(c.shifted, y)
        for weight, row in zip((*c.nu, *c.mu), (*c.w, *c.e), strict=True):
            g = add(g, row, weight)
        return replace(c, g=g, v=y, room=[Fraction(0)] * N)
    return c


@given(quadratics())
@settings(max_examples=300)
def test_the_checked_form(c: Quadratic) -> None:
    part, rest = c.bound()
    assert at_most_root(c.value() - part, Fraction(1), rest * c.square)


@given(quadratics())
def test_the_weaker_form_is_weaker(c: Quadratic) -> None:
    """(a - M v) . v + ||a - M v|| ||v|| >= 0."""
    part, rest = c.bound()
    weaker, _ = c.bound(weaker=True)
    assert at_most_root(part - weaker, Fraction(1), rest * dot(c.v, c.v))


@given(quadratics(), matrices(3, D), vectors(D))
def test_the_exact_form(c: Quadratic, b: Matrix, other: Vector) -> None:
    full = replace(c, b=b)
    best = solve(full.shifted, full.a)
    assume(best is not None)
    assert best is not None
    exact = replace(c, b=b, v=best)
    part, rest = exact.bound()
    assert rest == 0
    assert full.value() <= part
    assert dot(best, times(full.shifted, best)) / 2 == dot(full.a, best) / 2
    if dot(best, best) <= full.square:  # no other vector is better
        otherwise = replace(c, b=b, v=other)
        worse, left = otherwise.bound()
        assert at_most_root(part - worse, Fraction(1), left * full.square)


@given(quadratics(), st.fractions(-3, 3, max_denominator=4))
def test_the_cut(c: Quadratic, b: Fraction) -> None:
    """The last row plays n, with room b - n . y of either sign: a value above the bound is beyond b."""
    part, rest = c.bound()
    part += c.nu[-1] * (b - c.slack[-1])
    above = not at_most_root(c.value() - part, Fraction(1), rest * c.square)
    if above:
        assert dot(c.w[-1], c.y) > b


def test_wrong_forms_are_refuted() -> None:
    def beyond(c: Quadratic, part: Fraction, rest: Fraction) -> bool:
        return not at_most_root(c.value() - part, Fraction(1), rest * c.square)

    # Without m r^2/2; without the residual; with half of v^T M v; with a negative multiplier of a half-space.
    assert refutation(quadratics(), lambda c: beyond(c, c.bound(m=Fraction(0))[0], c.bound()[1]))
    assert refutation(quadratics(), lambda c: c.value() > c.bound()[0])
    assert refutation(
        quadratics(), lambda c: beyond(c, c.bound()[0] - dot(c.v, times(c.shifted, c.v)) / 4, c.bound()[1])
    )
    negative = quadratics().map(lambda c: replace(c, nu=[-x for x in c.nu]))
    assert refutation(negative, lambda c: beyond(c, *c.bound()))
    # A negative m, even where M stays semidefinite: ||y||^2 < r^2 breaks it.
    smaller = st.tuples(quadratics(), st.integers(-3, -1).map(Fraction))

    def concave(case: tuple[Quadratic, Fraction]) -> bool:
        c = replace(case[0], m=case[1])
        return beyond(c, *c.bound())

    assert refutation(smaller, concave)
    assert refutation(quadratics(), lambda c: c.value() == c.bound()[0] and c.bound()[1] == 0 and any(c.y))  # attained
