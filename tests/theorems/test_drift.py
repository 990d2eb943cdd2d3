"""Theorem drift: exactly in rationals, for any multipliers, with drift zero, tiny and huge."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import Matrix, Vector, add, at_most_root, dot, matrices, refutation, root, times, vectors

D, K, N = 3, 2, 2


@dataclass(frozen=True)
class Drift:
    """Held columns (as rows), half-spaces, multipliers, and a delta that says how much drifts and what is room."""

    e: Matrix
    w: Matrix
    room: Vector
    g: Vector
    mu: Vector
    nu: Vector
    delta: Vector

    @property
    def moved(self) -> Vector:
        return times(self.e, self.delta)

    def residual(self) -> Vector:
        rest = self.g
        for weight, row in zip((*self.mu, *self.nu), (*self.e, *self.w), strict=True):
            rest = add(rest, row, -weight)
        return rest

    def excess(self, *, price: bool = True) -> Fraction:
        """A lower bound on g . delta minus the bound, with t and r the lengths of delta's own drift and of delta."""
        rest, slack = self.residual(), add(times(self.w, self.delta), self.room)
        lengths = root(dot(rest, rest) * dot(self.delta, self.delta), up=True)
        if price:
            lengths += root(dot(self.moved, self.moved) * dot(self.mu, self.mu), up=True)
        return dot(self.g, self.delta) - lengths - dot(self.nu, slack)


@st.composite
def drifts(draw: st.DrawFn) -> Drift:
    scale = draw(st.sampled_from([Fraction(1), Fraction(10) ** 15, Fraction(1, 10**15), Fraction(0)]))
    delta = [x * scale for x in draw(vectors(D))]
    e = draw(matrices(K, D))
    if draw(st.booleans()) and any(e[0]):  # the first pre-activation exactly held
        delta = add(delta, e[0], -dot(delta, e[0]) / dot(e[0], e[0]))
    nu, room = [abs(x) for x in draw(vectors(N))], [abs(x) for x in draw(vectors(N))]
    w, mu = draw(matrices(N, D)), draw(vectors(K))
    g = draw(vectors(D))
    if draw(st.booleans()):  # explained by what is held
        g = [Fraction(0)] * D
        for weight, row in zip(mu, e, strict=True):
            g = add(g, row, weight)
        nu = [Fraction(0)] * N
    return Drift(e, w, room, g, mu, nu, delta)


@given(drifts())
@settings(max_examples=300)
def test_the_bound(c: Drift) -> None:
    assert c.excess() <= 0


@given(drifts())
def test_the_bound_for_each_preactivation_by_itself(c: Drift) -> None:
    slack = add(times(c.w, c.delta), c.room)
    left = dot(c.g, c.delta) - dot(c.nu, slack) - sum(abs(m) * abs(x) for m, x in zip(c.mu, c.moved, strict=True))
    rest = c.residual()
    assert at_most_root(left, Fraction(1), dot(rest, rest) * dot(c.delta, c.delta))


@given(drifts())
def test_without_drift_it_is_exact_holding(c: Drift) -> None:
    if not any(c.moved):
        assert c.excess(price=False) <= 0


def test_drift_must_be_paid_for() -> None:
    assert refutation(drifts(), lambda c: c.excess(price=False) > Fraction(1, 10**20))
    negative = drifts().map(lambda c: Drift(c.e, c.w, c.room, c.g, c.mu, [-x for x in c.nu], c.delta))
    assert refutation(negative, lambda c: c.excess() > 0)
    # Equality: a gradient that one held column explains, and a delta along it.
    assert refutation(
        drifts(),
        lambda c: (
            any(c.moved)
            and not any(c.residual())
            and not any(c.nu)
            and abs(c.excess()) < Fraction(1, 10**20)
            and c.g != [0] * D
        ),
    )


@given(drifts(), st.fractions(0, 4, max_denominator=4), st.fractions(0, 4, max_denominator=4), st.fractions(0, 1))
def test_the_least_bound_is_concave_and_rises(c: Drift, t: Fraction, s: Fraction, share: Fraction) -> None:
    """A least value over finitely many multipliers, squared lengths replaced by their roots to 50 digits."""
    choices = [c.mu, [Fraction(0)] * K, [-x for x in c.mu]]

    def least(drift: Fraction) -> Fraction:
        values = []
        for mu in choices:
            rest = Drift(c.e, c.w, c.room, c.g, mu, c.nu, c.delta).residual()
            values.append(drift * root(dot(mu, mu), up=True) + root(dot(rest, rest), up=True))
        return min(values)

    middle = share * t + (1 - share) * s
    assert least(middle) >= share * least(t) + (1 - share) * least(s)
    assert least(max(t, s)) >= least(min(t, s))
