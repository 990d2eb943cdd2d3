"""Theorem attention-remainder: with 60 digits, for one position, ties, weights near 0 and 1, tiny and huge scores."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import exp, mp, mpf

from .exact import refutation

DIGITS = 60
TINY = mpf(10) ** -40


@dataclass(frozen=True)
class Head:
    """Scores at the centre, their changes, and the values along one functional u."""

    scores: list[float]
    changes: list[float]
    values: list[float]

    def softmax(self, scores: list[mpf]) -> list[mpf]:
        """Weights, straight from the definition."""
        top = max(scores)
        terms = [exp(s - top) for s in scores]
        return [t / sum(terms) for t in terms]

    @property
    def p(self) -> list[mpf]:
        return self.softmax([mpf(s) for s in self.scores])

    @property
    def moved(self) -> list[mpf]:
        return self.softmax([mpf(s) + mpf(c) for s, c in zip(self.scores, self.changes, strict=True)])

    def average(self, weights: list[mpf]) -> mpf:
        return sum((q * mpf(v) for q, v in zip(weights, self.values, strict=True)), mpf(0))

    @property
    def c(self) -> list[mpf]:
        mean = sum((q * mpf(x) for q, x in zip(self.p, self.changes, strict=True)), mpf(0))
        return [mpf(x) - mean for x in self.changes]

    @property
    def w(self) -> list[mpf]:
        return [mpf(v) - self.average(self.p) for v in self.values]

    def sum(self, *factors: list[mpf]) -> mpf:
        total = mpf(0)
        for terms in zip(self.p, *factors, strict=True):
            product = mpf(1)
            for t in terms:
                product *= t
            total += product
        return total

    @property
    def change(self) -> mpf:
        return self.average(self.moved) - self.average(self.p)

    def parts(self) -> tuple[mpf, mpf, mpf, mpf]:
        """N, Z, L_2 and L_3."""
        c, w = self.c, self.w
        grown = [exp(x) for x in c]
        one = self.sum(w, c)
        two = one + self.sum(w, c, c) / 2
        three = two + self.sum(w, c, c, c) / 6 - one * self.sum(c, c) / 2
        return self.sum(w, grown), self.sum(grown), two, three

    def bound(self, *, larger: bool = True, division: bool = True) -> mpf:
        """Of (b); without what e^c adds, or without the term of Z - 1, it is a mutant."""
        c, w = self.c, self.w
        m = [max(mpf(1), exp(x)) if larger else mpf(1) for x in c]
        third = self.sum([abs(x) for x in w], m, [abs(x) ** 3 for x in c]) / 6
        return third + (abs(self.parts()[2]) * self.sum(m, c, c) / 2 if division else 0)

    @property
    def size(self) -> mpf:
        return 1 + max(abs(mpf(v)) for v in self.values)


@st.composite
def heads(draw: st.DrawFn) -> Head:
    n = draw(st.integers(1, 4))
    score = draw(st.sampled_from([0.0, 1.0, 20.0]))
    change = draw(st.sampled_from([0.0, 1e-12, 1e-3, 0.1, 1.0, 6.0]))
    value = draw(st.sampled_from([1e-15, 1.0, 1e15]))

    def row(scale: float) -> list[float]:
        return [draw(st.integers(-3, 3)) * scale for _ in range(n)]

    return Head(row(score), row(change), row(value))


@given(heads())
@settings(max_examples=200)
def test_the_normalised_form(h: Head) -> None:
    with mp.workdps(DIGITS):
        n, z, two, three = h.parts()
        assert abs(h.sum(h.c)) <= TINY
        assert abs(h.sum(h.w)) <= TINY * h.size
        assert z >= 1 - TINY
        assert abs(h.change - n / z) <= TINY * h.size
        for guess in (two, three, mpf(0), h.size):
            assert abs(h.change - guess) <= abs(n - guess * z) + TINY * h.size


@given(heads())
@settings(max_examples=200)
def test_order_two_and_three(h: Head) -> None:
    with mp.workdps(DIGITS):
        n, z, two, three = h.parts()
        c, w = h.c, h.w
        grown = [exp(x) for x in c]
        room = TINY * h.size * z
        second = h.sum(w, [g - 1 - x - x**2 / 2 for g, x in zip(grown, c, strict=True)]) - two * (z - 1)
        assert abs(n - two * z - second) <= room
        rest = h.sum(w, [g - 1 - x - x**2 / 2 - x**3 / 6 for g, x in zip(grown, c, strict=True)])
        one = h.sum(w, c)
        third = rest - one * (z - 1 - h.sum(c, c) / 2) - (three - one) * (z - 1)
        assert abs(n - three * z - third) <= room * (1 + abs(three))
        assert abs(h.change - two) <= h.bound() + TINY * h.size


@given(heads())
@settings(max_examples=100)
def test_the_divided_form(h: Head) -> None:
    with mp.workdps(DIGITS):
        _, z, two, _ = h.parts()
        theta = [exp(x) - 1 - x - x**2 / 2 for x in h.c]
        assert abs(h.change - two - h.sum(h.w, theta) / z - two * (1 / z - 1)) <= TINY * h.size
        for p, x in zip(h.p, h.c, strict=True):
            assert z >= 1 + p * (exp(x) - 1 - x) - TINY
        for zeta in (z - 1, 2 * (z - 1) + 1):
            assert abs(1 / z - 1) <= zeta / (1 + zeta) + TINY
        for x in (abs(x) for x in h.c):
            assert abs(exp(-x) - 1 + x - x**2 / 2) <= min(x**3 / 6, x**2 / 2 - x + 1) + TINY


@given(st.floats(-9, 9), st.floats(0.1, 1))
def test_what_rises(at: float, share: float) -> None:
    with mp.workdps(DIGITS):
        c, nearer = mpf(at), mpf(at) * share
        if abs(at) > 1e-6:
            theta = [abs(exp(x) - 1 - x - x**2 / 2) / abs(x) for x in (nearer, c)]
            assert theta[0] <= theta[1] + TINY
            excess = [(exp(x) - 1 - x) / x**2 for x in sorted((nearer, c))]
            assert excess[0] <= excess[1] + TINY


@given(heads())
def test_the_elementary_bounds(h: Head) -> None:
    with mp.workdps(DIGITS):
        for x in h.c:
            m = max(mpf(1), exp(x))
            assert abs(exp(x) - 1 - x - x**2 / 2) <= m * abs(x) ** 3 / 6 + TINY
        m_all = [max(mpf(1), exp(x)) for x in h.c]
        assert h.parts()[1] - 1 <= h.sum(m_all, h.c, h.c) / 2 + TINY


@given(heads(), st.integers(-3, 3), st.sampled_from([1e-9, 1.0, 1e9]))
def test_a_value_that_moves(h: Head, by: int, scale: float) -> None:
    with mp.workdps(DIGITS):
        move = mpf(by) * scale
        after = Head(h.scores, h.changes, [*h.values[:-1], 0.0])
        true = after.average(h.moved) + h.moved[-1] * (mpf(h.values[-1]) + move)
        said = h.average(h.moved) + h.p[-1] * exp(h.c[-1]) / h.parts()[1] * move
        assert abs(true - said) <= TINY * (h.size + abs(move))
        indicator = Head(h.scores, h.changes, [0.0] * (len(h.values) - 1) + [1.0])
        assert abs(indicator.change - (h.moved[-1] - h.p[-1])) <= TINY
        assert abs(h.moved[-1] - h.p[-1] - indicator.parts()[2]) <= indicator.bound() + TINY
        assert 0 <= h.moved[-1] <= 1


@given(heads())
def test_the_convex_hull(h: Head) -> None:
    with mp.workdps(DIGITS):
        assert min(h.w) - TINY * h.size <= h.change <= max(h.w) + TINY * h.size


@pytest.mark.parametrize("mutant", ["no growth", "no division", "first order", "not centred"])
def test_wrong_bounds_are_refuted(mutant: str) -> None:
    def wrong(h: Head) -> bool:
        with mp.workdps(DIGITS):
            missing = abs(h.change - h.parts()[2])
            if mutant == "no growth":  # of Z: without m, the bound on Z - 1 fails
                return bool(h.parts()[1] - 1 > h.sum(h.c, h.c) / 2 + TINY)
            if mutant == "no division":
                return bool(missing > h.bound(division=False) + TINY * h.size)
            if mutant == "first order":
                return bool(abs(h.change - h.sum(h.w, h.c)) > h.bound() + TINY * h.size)
            raw = [mpf(x) for x in h.changes]
            return bool(sum(q * exp(x) for q, x in zip(h.p, raw, strict=True)) < 1 - TINY)

    assert refutation(heads(), wrong, 2000)
