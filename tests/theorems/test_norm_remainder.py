"""Theorem norm-remainder: with 60 digits, along and across the centre, at zero, near radius one and beyond."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf, sqrt

from .exact import refutation

D, DIGITS = 3, 60
TINY = mpf(10) ** -45
Real = list[mpf]


def dot(a: Real, b: Real) -> mpf:
    return sum((x * y for x, y in zip(a, b, strict=True)), mpf(0))


def combine(*terms: tuple[mpf, Real]) -> Real:
    return [sum((c * v[i] for c, v in terms), mpf(0)) for i in range(D)]


def length(v: Real) -> mpf:
    return sqrt(dot(v, v))


@dataclass(frozen=True)
class Case:
    """A centre, eps0, and D = l + q + e."""

    z: tuple[float, ...]
    epsilon: float
    l: tuple[float, ...]  # noqa: E741
    q: tuple[float, ...]
    e: tuple[float, ...]

    def rho(self, z: Real) -> mpf:
        return sqrt(dot(z, z) / D + mpf(self.epsilon))

    @property
    def centre(self) -> Real:
        return [mpf(x) for x in self.z]

    def scaled(self, v: tuple[float, ...]) -> Real:
        return [mpf(x) / (sqrt(D) * self.rho(self.centre)) for x in v]

    @property
    def n(self) -> Real:
        return self.scaled(self.z)

    @property
    def w(self) -> Real:
        return combine(*((mpf(1), self.scaled(v)) for v in (self.l, self.q, self.e)))

    def value(self) -> Real:
        """N(z_0 + D) / sqrt(d)."""
        moved = combine((mpf(1), self.centre), *((mpf(1), [mpf(x) for x in v]) for v in (self.l, self.q, self.e)))
        return [x / (self.rho(moved) * sqrt(D)) for x in moved]

    def first(self, w: Real) -> Real:
        return combine((mpf(1), w), (-dot(self.n, w), self.n))

    def bilinear(self, a: Real, b: Real) -> Real:
        n = self.n
        return combine((3 * dot(n, a) * dot(n, b) - dot(a, b), n), (-dot(n, a), b), (-dot(n, b), a))

    def second(self, w: Real) -> Real:
        return [x / 2 for x in self.bilinear(w, w)]

    def rest(self) -> Real:
        """R."""
        one = mpf(1)
        return combine((one, self.value()), (-one, self.n), (-one, self.first(self.w)), (-one, self.second(self.w)))


def bound(r: mpf) -> mpf:
    return r**3 / 2 + mpf(35) / 64 * r**4 / (1 - r)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def vector(scale: float) -> tuple[float, ...]:
        return tuple(draw(st.integers(-4, 4)) * scale for _ in range(D))

    size = draw(st.sampled_from([1e-20, 1.0, 1e20]))
    z = vector(size)
    parts = [vector(size * draw(st.sampled_from([0.0, 1e-12, 0.01, 0.1, 0.3, 1.0]))) for _ in range(3)]
    if draw(st.booleans()):  # along the centre, often towards zero
        share = draw(st.sampled_from([-1.0, -0.9, -0.5, 0.5, 1e-6]))
        parts = [tuple(share * x for x in z), (0.0,) * D, (0.0,) * D]
    return Case(z, draw(st.sampled_from([1e-12, 1e-5, 1.0])) * size**2, parts[0], parts[1], parts[2])


@given(cases())
@settings(max_examples=300)
def test_the_model_of_order_two(c: Case) -> None:
    with mp.workdps(DIGITS):
        r = length(c.w)
        assert length(c.first(c.w)) <= r + TINY
        assert length(c.second(c.w)) <= r**2 / sqrt(3) + TINY
        if r < 1:
            assert length(c.rest()) <= bound(r) + TINY


@given(cases())
@settings(max_examples=200)
def test_the_parts(c: Case) -> None:
    with mp.workdps(DIGITS):
        linear, quadratic, error = (c.scaled(v) for v in (c.l, c.q, c.e))
        other = combine((mpf(1), quadratic), (mpf(1), error))
        model = combine((mpf(1), c.first(combine((mpf(1), linear), (mpf(1), quadratic)))), (mpf(1), c.second(linear)))
        remainder = combine(
            (mpf(1), c.first(error)),
            (mpf(1), c.bilinear(linear, other)),
            (mpf(1), c.second(other)),
            (mpf(1), c.rest()),
        )
        total = combine((mpf(1), c.n), (mpf(1), model), (mpf(1), remainder), (mpf(-1), c.value()))
        assert length(total) <= TINY * (1 + length(c.w) ** 2)
        assert length(c.first(error)) <= length(error) + TINY
        assert length(c.bilinear(linear, other)) <= 2 / sqrt(3) * length(linear) * length(other) + TINY


@given(st.one_of(st.sampled_from([0.0, -1e-12, 1e-12, -0.999, 1e6]), st.floats(-0.9999, 10)))
@settings(max_examples=200)
def test_the_scalar_form(at: float) -> None:
    with mp.workdps(DIGITS):
        x = mpf(at)
        f = 1 / sqrt(1 + x) - (1 - x / 2 + 3 * x**2 / 8)
        if x >= 0:
            assert -mpf(5) / 16 * x**3 - TINY <= f <= TINY
        else:
            assert -TINY <= f <= mpf(5) / 16 * abs(x) ** 3 / (1 - abs(x)) + TINY


def split(c: Case, *, across_only: bool = False) -> tuple[mpf, mpf, mpf, mpf]:
    """Parts of the remainder along c and across, times sqrt(s), and the bounds of (d); z_0 != 0 and |a| < 1."""
    z = c.centre
    s = D * c.rho(z) ** 2
    w = [x * mp.sqrt(s) for x in c.w]
    unit = [x / length(z) for x in z]
    ur = dot(unit, w)
    up = combine((mpf(1), w), (-ur, unit))
    h = D * mpf(c.epsilon) / s
    a, p = abs(dot(z, w)) / s, (dot(up, up) + h * ur**2) / s
    rest = [x * mp.sqrt(s) for x in c.rest()]
    along = dot(unit, rest)
    across = length(combine((mpf(1), rest), (-along, unit)))
    f = max(a**2 / (1 - a), p / (2 * (1 - a) ** 3))
    first = length(z) * (p * a * (2 - a) / (2 * (1 - a) ** 2) + 3 * p**2 / (8 * (1 - a) ** 4)) + abs(ur) * h * f
    return abs(along), across, first if not across_only else mpf(0), length(up) * f


def splits(c: Case) -> bool:
    return any(c.z) and abs(dot(c.n, c.w)) < 1


@given(cases())
@settings(max_examples=200)
def test_the_split_form(c: Case) -> None:
    with mp.workdps(DIGITS):
        if splits(c):
            along, across, first, second = split(c)
            room = TINY * (length(c.centre) + 1) / (1 - abs(dot(c.n, c.w))) ** 4
            assert along <= first + room
            assert across <= second + room


def test_a_split_form_without_the_part_along_is_refuted() -> None:
    def wrong(c: Case) -> bool:
        with mp.workdps(DIGITS):
            return splits(c) and bool(split(c)[0] > split(c, across_only=True)[2] + mpf(10) ** -20 * length(c.centre))

    assert refutation(cases(), wrong)


@given(cases())
def test_what_holds_everywhere(c: Case) -> None:
    with mp.workdps(DIGITS):
        moved = combine((mpf(1), c.centre), *((mpf(1), [mpf(x) for x in v]) for v in (c.l, c.q, c.e)))
        r, rho, rho_0 = length(c.w), c.rho(moved), c.rho(c.centre)
        assert length(c.value()) <= 1
        assert rho**2 >= mpf(c.epsilon) * (1 - TINY)
        assert rho >= rho_0 * (1 - r) - TINY * rho_0
        assert length(combine((mpf(1), c.value()), (mpf(-1), c.n))) <= 2 * r * rho_0 / (rho_0 + rho) + TINY


@pytest.mark.parametrize("mutant", ["a third of the cube", "cube alone", "half of the second", "scalar cube alone"])
def test_smaller_bounds_are_refuted(mutant: str) -> None:
    def wrong(c: Case) -> bool:
        with mp.workdps(DIGITS):
            r = length(c.w)
            if mutant == "half of the second":
                return bool(length(c.second(c.w)) > r**2 / 2 + TINY)
            if mutant == "scalar cube alone":
                x = -min(r, mpf("0.9"))
                return bool(1 / sqrt(1 + x) - (1 - x / 2 + 3 * x**2 / 8) > mpf(5) / 16 * abs(x) ** 3 + TINY)
            if r >= 1:
                return False
            return bool(length(c.rest()) > r**3 * (mpf(1) / 2 if mutant == "cube alone" else mpf(1) / 3) + TINY)

    assert refutation(cases(), wrong, 2000)
