"""Theorem through-blocks: the claim, cuts and free directions, exactly or with 60 digits; wrong forms are refuted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import (
    Matrix,
    Vector,
    add,
    at_most_root,
    dot,
    matrices,
    product,
    refutation,
    root,
    times,
    transpose,
    vectors,
)

D = 3
SCALES = st.sampled_from([Fraction(1), Fraction(10) ** 12, Fraction(1, 10**12), Fraction(0)])


@dataclass(frozen=True)
class Claim:
    """W, a centre, u, the constant minus tau, and d eps0."""

    w: Vector
    c: Vector
    u: Vector
    k: Fraction
    floor: Fraction

    def roots(self, *, up: bool) -> tuple[Fraction, Fraction]:
        """Rho at c + u and s = rho at c, to 50 digits."""
        z = add(self.c, self.u)
        return root(dot(z, z) + self.floor, up=up), root(dot(self.c, self.c) + self.floor, up=up)

    def excess(self, *, square: bool = True, tangent: bool = True) -> Fraction:
        """The left side minus the right: not above zero, up to what fifty digits hide."""
        rho, s = self.roots(up=True)
        right = dot(self.w, self.c) + self.k * s + dot(add(self.w, self.c, self.k / s * tangent), self.u)
        curve = max(self.k, Fraction(0)) * dot(self.u, self.u) / (2 * s) if square else Fraction(0)
        return dot(self.w, add(self.c, self.u)) + self.k * rho - right - curve

    def hidden(self) -> Fraction:
        rho, s = self.roots(up=True)
        return abs(self.k) * (rho + s + dot(self.u, self.u) / s) / 10**45


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    scale = draw(SCALES)
    u = [x * scale for x in draw(vectors(D))]
    floor = draw(st.sampled_from([Fraction(1, 10**9), Fraction(1, 10**3), Fraction(2)]))
    return Claim(draw(vectors(D)), draw(vectors(D)), u, Fraction(draw(st.integers(-4, 4))), floor)


@given(claims())
@settings(max_examples=300)
def test_the_claim_without_the_norm(claim: Claim) -> None:
    assert claim.excess() <= claim.hidden()
    z = add(claim.c, claim.u)
    below = at_most_root(dot(claim.w, z), -claim.k, dot(z, z) + claim.floor)  # w . z <= -k rho
    rho, _ = claim.roots(up=True)
    if abs(dot(claim.w, z) + claim.k * rho) > claim.hidden() + Fraction(1, 10**30):
        assert below == (dot(claim.w, z) / rho + claim.k <= 0)


def test_the_square_and_the_tangent_are_needed() -> None:
    assert refutation(claims(), lambda c: c.excess(square=False) > c.hidden())
    assert refutation(claims(), lambda c: c.k < 0 and c.excess(tangent=False) > c.hidden())


CUTS = st.tuples(vectors(D), vectors(D).filter(any), vectors(D), st.integers(-4, 4), st.integers(0, 3))


def cut(case: tuple[Vector, Vector, Vector, int, int], *, rest: bool = True) -> tuple[bool, bool]:
    """Whether U(y) > 0, and whether y is kept; eta is |q . y| and some more, or is forgotten."""
    g, n, y, constant, more = case
    a = dot(g, n) / dot(n, n)
    if a <= 0:
        return False, True
    eta = abs(dot(add(g, n, -a), y)) + more if rest else Fraction(0)
    return constant + dot(g, y) > 0, dot(n, y) > -(constant + eta) / a


@given(CUTS)
@settings(max_examples=300)
def test_a_cut_keeps_what_can_break_the_claim(case: tuple[Vector, Vector, Vector, int, int]) -> None:
    positive, kept = cut(case)
    assert kept or not positive


def test_a_cut_that_forgets_the_other_directions_is_refuted() -> None:
    assert refutation(CUTS, lambda c: cut(c, rest=False) == (True, False))
    assert refutation(CUTS, lambda c: cut(c) == (False, False))  # and something is cut off


@given(matrices(1, D), matrices(2, D), matrices(D, 1), vectors(D))
def test_free_directions(a: Matrix, columns: Matrix, m: Matrix, delta: Vector) -> None:
    """Any B and M at all; Frobenius norms for the spectral ones."""
    if any(a[0]):
        delta = add(delta, a[0], -dot(a[0], delta) / dot(a[0], a[0]))
    b = transpose(columns, D)
    y = times(columns, delta)
    x = add(delta, times(b, y), -1)
    whole = [add([Fraction(i == j) for j in range(D)], row, -1) for i, row in enumerate(product(b, columns))]
    off = [add(row, other, -1) for row, other in zip(whole, product(m, a), strict=True)]
    assert x == times(off, delta)
    assert dot(x, x) <= sum(dot(r, r) for r in off) * dot(delta, delta)
    assert dot(y, y) <= sum(dot(r, r) for r in columns) * dot(delta, delta)


def test_without_the_equalities_it_is_refuted() -> None:
    cases = st.tuples(matrices(1, D), matrices(D, 1), vectors(D))

    def wrong(c: tuple[Matrix, Matrix, Vector]) -> bool:
        return any(times(product(c[1], c[0]), c[2]))

    assert refutation(cases, wrong)
