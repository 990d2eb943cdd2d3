"""Theorem activation-remainder: with 60 digits, at kinks, ties, zero width, tiny and huge arguments."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from sae_verify.model.operations.activation import Activation

from .derivations.activations import ACTIVATIONS, KAPPA, C, T, X
from .derivations.test_activations import cells
from .exact import refutation

NAMES = {f.name: f for f in ACTIVATIONS}
SUPREMA = {name: [mpf(v) for v in row] for name, row in cells("first derivative | second").items()}
TURNS = {
    name: [[mpf(pair.split(" ")[0]) for pair in cell.split(", ")] for cell in row]
    for name, row in cells("second derivative turns").items()
}
DIGITS = 60
SIZES = st.sampled_from([0.0, 1e-30, 1e-9, 1e-3, 0.1, 1.0, 7.0, 300.0])
NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, 0.79228699, 12.0]), st.floats(-12, 12))


def derivatives(name: str) -> list[Callable[[mpf], mpf]]:
    """Sigma and its first three derivatives, straight from sympy: no polynomial of the derivation."""
    sigma = NAMES[name].sigma.subs(C, sp.sqrt(2 / sp.pi))
    return [sp.lambdify(X, sp.diff(sigma, X, k), "mpmath") for k in range(4)]


SIGMA = {name: derivatives(name) for name in NAMES}
POINTS = st.tuples(
    st.sampled_from(list(NAMES)), NUMBERS, *[st.tuples(NUMBERS, SIZES).map(lambda p: p[0] * p[1] / 12)] * 3
)
Point = tuple[str, float, float, float, float]


def model(point: Point) -> tuple[mpf, mpf]:
    """What sigma(c + u) misses the model by, and the part of R without the third derivative."""
    name, c, l, q, e = point[0], *(mpf(x) for x in point[1:])  # noqa: E741
    s = SIGMA[name]
    first, second = s[1](c), s[2](c)
    missing = s[0](c + l + q + e) - (s[0](c) + first * (l + q) + second * l**2 / 2)
    return missing, first * e + second * (l * (q + e) + (q + e) ** 2 / 2)


def slack(point: Point) -> mpf:
    """Cancellation in 60 digits."""
    return mpf(10) ** (10 - DIGITS) * (1 + sum(abs(mpf(x)) for x in point[1:])) ** 4


def width(point: Point) -> mpf:
    return sum((mpf(x) for x in point[2:]), mpf(0))


@given(POINTS)
@settings(max_examples=300)
def test_the_cubic_bound(point: Point) -> None:
    with mp.workdps(DIGITS):
        missing, known = model(point)
        assert abs(missing - known) <= SUPREMA[point[0]][2] * abs(width(point)) ** 3 / 6 + slack(point)
        first, second = (abs(SIGMA[point[0]][k](mpf(point[1]))) for k in (1, 2))
        u = abs(width(point))
        assert abs(missing - known) <= (SUPREMA[point[0]][0] + first + second * u / 2) * u + slack(point)


def turned(name: str, k: int, low: mpf, high: mpf) -> list[mpf]:
    """Derivative k at both ends and where it turns in between: (d)."""
    inside = [x for t in TURNS[name][k - 2] for x in (t, -t) if low < x < high]
    return [SIGMA[name][k](x) for x in (low, high, *inside)]


@given(POINTS)
@settings(max_examples=200)
def test_the_bounds_on_the_interval(point: Point) -> None:
    with mp.workdps(DIGITS):
        missing, known = model(point)
        c, u = mpf(point[1]), width(point)
        low, high = min(c, c + u), max(c, c + u)
        hair = mpf(10) ** -11  # the turning points are given to 1e-12
        m = max(abs(v) for v in turned(point[0], 3, low, high)) + hair
        assert abs(missing - known) <= m * abs(u) ** 3 / 6 + slack(point)
        second = turned(point[0], 2, low, high)
        at_c = SIGMA[point[0]][2](c)
        assert (min(second) - hair - at_c) * u**2 / 2 - slack(point) <= missing - known
        assert missing - known <= (max(second) + hair - at_c) * u**2 / 2 + slack(point)


@given(st.sampled_from(list(NAMES)), NUMBERS, SIZES, st.fractions(-1, 1))
@settings(max_examples=150)
def test_ranges_on_intervals(name: str, centre: float, half: float, at: Fraction) -> None:
    with mp.workdps(DIGITS):
        m, h = mpf(centre), mpf(half)
        x = m + h * mpf(at.numerator) / at.denominator
        for k in (2, 3):
            values = turned(name, k, m - h, m + h)
            assert min(values) - mpf(10) ** -11 <= SIGMA[name][k](x) <= max(values) + mpf(10) ** -11
            assert abs(SIGMA[name][k](x)) <= SUPREMA[name][k - 1] + mpf(10) ** -50
        assert abs(SIGMA[name][3](x) - SIGMA[name][3](m)) <= h * SUPREMA[name][3] + mpf(10) ** -50


@pytest.mark.parametrize("name", list(NAMES))
def test_wrong_remainders_are_refuted(name: str) -> None:
    points = POINTS.map(lambda p: (name, *p[1:]))

    def beyond(point: Point, share: float, *, cross: bool = True) -> bool:
        with mp.workdps(DIGITS):
            missing, known = model(point)
            rest = abs(missing - (known if cross else SIGMA[name][1](mpf(point[1])) * mpf(point[4])))
            return bool(rest > share * SUPREMA[name][2] * abs(width(point)) ** 3 / 6 + slack(point))

    assert refutation(points, lambda p: beyond(p, 0.8), 1000)
    assert refutation(points, lambda p: beyond(p, 1.0, cross=False), 1000)
    # The range by the ends alone misses the turning point.
    with mp.workdps(DIGITS):
        top = TURNS[name][1][0]
        ends = max(abs(SIGMA[name][3](x)) for x in (top - 1, top + 1))
        assert abs(SIGMA[name][3](top)) > ends + mpf("0.01")


PARTS = st.lists(st.integers(-4, 4).map(Fraction), min_size=6, max_size=6)


def product(parts: list[Fraction]) -> tuple[Fraction, Fraction]:
    a0, a1, am, b0, b1, bm = parts
    said = a0 * b0 + a0 * (b1 + bm) + b0 * (a1 + am) + a1 * b1
    return (a0 + a1 + am) * (b0 + b1 + bm), said + a1 * bm + am * b1 + am * bm


@given(PARTS)
def test_the_product(parts: list[Fraction]) -> None:
    exact, said = product(parts)
    assert exact == said


def test_a_product_whose_rests_do_not_meet_is_refuted() -> None:
    assert refutation(PARTS, lambda p: product(p)[0] != product(p)[1] - p[2] * p[5])


@pytest.mark.parametrize("name", list(NAMES))
def test_the_models_own_activations_are_these(name: str) -> None:
    x = torch.linspace(-9, 9, 181, dtype=torch.float64)
    own = Activation(name)(x)
    exact = torch.tensor([float(SIGMA[name][0](mpf(float(v)))) for v in x], dtype=torch.float64)
    torch.testing.assert_close(own, exact, atol=1e-12, rtol=1e-12)
    assert sp.Rational("0.044715") == KAPPA
    assert NAMES[name].polynomial(2).as_expr().has(T) == (name != "gelu")
