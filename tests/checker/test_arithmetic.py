"""Every operation encloses every exact result: against rationals, on huge, tiny, denormal and cancelling values."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import (
    Ball,
    clip_low,
    combine,
    dot,
    exp,
    hull,
    norm,
    sqrt,
    squared_norm,
    total,
    up,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them: overflow ends in rejection

ordinary = st.floats(-1e3, 1e3)
extreme = st.sampled_from(
    [0.0, -0.0, 5e-324, -5e-324, 2.0**-1060, 2.2250738585072014e-308, 1e-300, 1e-160, 1e160, -1e160, 1e300, -1.7e308]
)
numbers = st.one_of(ordinary, extreme, st.floats(allow_nan=False, allow_infinity=False))
radii = st.one_of(st.just(0.0), st.floats(0, 1e-6), st.floats(0, 1e300))
balls = st.tuples(numbers, radii).map(lambda pair: Ball(np.asarray(pair[0]), np.asarray(pair[1])))


def vectors(size: int) -> st.SearchStrategy[list[float]]:
    plain = st.lists(numbers, min_size=size, max_size=size)
    tame = st.lists(ordinary, min_size=size, max_size=size)
    cancelling = tame.map(lambda v: [*v[: len(v) // 2], *(-a * (1 + 2.0**-50) for a in v[: len(v) - len(v) // 2])])
    return st.one_of(plain, tame, cancelling)


def members(ball: Ball) -> list[Fraction]:
    """Ends and middle of a scalar ball."""
    mid, rad = Fraction(float(ball.mid)), Fraction(float(ball.rad))
    return [mid - rad, mid, mid + rad, mid + rad / 3]


def assert_contains(ball: Ball, exact: Fraction) -> None:
    mid, rad, low, high = float(ball.mid), float(ball.rad), float(ball.low), float(ball.high)
    assert low < np.inf
    assert high > -np.inf
    assert not np.isnan(low)
    assert not np.isnan(high)
    if np.isfinite(mid) and np.isfinite(rad):
        assert rad >= 0
        assert abs(exact - Fraction(mid)) <= Fraction(rad)
    assert low == -np.inf or Fraction(low) <= exact
    assert high == np.inf or exact <= Fraction(high)
    assert ball.magnitude == np.inf or abs(exact) <= Fraction(float(ball.magnitude))


@given(balls, balls)
def test_sum_difference_and_product(a: Ball, b: Ball) -> None:
    for x, y in product(members(a), members(b)):
        assert_contains(a + b, x + y)
        assert_contains(a - b, x - y)
        assert_contains(a * b, x * y)
        assert_contains(-a, -x)


@given(balls, balls)
@example(Ball(np.asarray(1e300), np.asarray(0.0)), Ball(np.asarray(5e-324), np.asarray(0.0)))
@example(Ball(np.asarray(5e-324), np.asarray(0.0)), Ball(np.asarray(1.0), np.asarray(1.0 - 2.0**-53)))
def test_quotient(a: Ball, b: Ball) -> None:
    quotient = a / b
    if Fraction(float(b.mid)) ** 2 <= Fraction(float(b.rad)) ** 2:
        assert quotient.rad == np.inf
        return
    for x, y in product(members(a), members(b)):
        assert_contains(quotient, x / y)


@given(balls, balls, numbers)
def test_hull_and_clip(a: Ball, b: Ball, floor: float) -> None:
    for x in (*members(a), *members(b)):
        assert_contains(hull(a, b), x)
    for x in members(a):
        assert_contains(clip_low(a, floor), max(x, Fraction(floor)))


@given(numbers, numbers)
def test_between(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ball = Ball.between(low, high)
    for x in (low, high, 0.5 * low + 0.5 * high):
        assert_contains(ball, Fraction(x))


@given(balls)
def test_root(a: Ball) -> None:
    root = sqrt(a)
    for x in members(a):
        if x >= 0:
            assert max(float(root.low), 0.0) == 0 or Fraction(float(root.low)) ** 2 <= x
            assert root.high == np.inf or x <= Fraction(float(root.high)) ** 2


@given(st.integers(0, 7).flatmap(lambda n: st.tuples(vectors(n), vectors(n), st.lists(radii, min_size=n, max_size=n))))
@example(([1.5e154, 1.5e154, 1.5e154], [-1e154, -1e154, 1e154], [0.0] * 3))
@example(([2.0**-1060 * (1 + 2.0**-10), 1.0], [2.0**1000 / 3, 1 / 3], [0.0, 0.0]))
def test_dot_product(data: tuple[list[float], list[float], list[float]]) -> None:
    a, b, r = data
    x, y = Ball(np.array(a), np.array(r)), Ball.exact(np.array(b))
    result = dot(x, y)
    for sign in (-1, 0, 1):
        exact = sum((Fraction(p) + sign * Fraction(q)) * Fraction(s) for p, q, s in zip(a, r, b, strict=True))
        assert_contains(result, Fraction(exact))
    assert_contains(total(Ball.exact(np.array(b))), Fraction(sum(map(Fraction, b))))


@given(st.integers(1, 4), st.data())
def test_matrix_product_of_balls(n: int, data: st.DataObject) -> None:
    a, r = data.draw(vectors(n)), data.draw(st.lists(radii, min_size=n, max_size=n))
    rows = [data.draw(vectors(3)) for _ in range(n)]
    spread = [data.draw(st.lists(radii, min_size=3, max_size=3)) for _ in range(n)]
    result = combine(Ball(np.array(a), np.array(r)), Ball(np.array(rows), np.array(spread)))
    for s, t in product((-1, 1), repeat=2):
        for j in range(3):
            exact = sum(
                (Fraction(a[i]) + s * Fraction(r[i])) * (Fraction(rows[i][j]) + t * Fraction(spread[i][j]))
                for i in range(n)
            )
            assert_contains(result[j], Fraction(exact))


@given(st.integers(0, 6).flatmap(vectors), radii)
@example([5e-324, -5e-324], 0.0)
@example([1.7e308, 1.7e308], 0.0)
@example([2.0**-1074, 2.0**1000], 0.0)
def test_norm(v: list[float], radius: float) -> None:
    x = Ball(np.array(v), np.full(len(v), radius))
    for result, power in ((norm(x), 2), (squared_norm(x), 1)):
        for sign in (-1, 0, 1):
            exact = sum(((Fraction(p) + sign * Fraction(radius)) ** 2 for p in v), Fraction(0))
            assert max(float(result.low), 0.0) == 0 or Fraction(float(result.low)) ** power <= exact
            assert result.high == np.inf or exact <= Fraction(float(result.high)) ** power


def test_norm_of_small_and_large_vectors_is_sharp() -> None:
    for scale in (1.0, 2.0**-540, 2.0**500, 2.0**-990):
        found = norm(Ball.exact(np.array([3.0, 4.0]) * scale))
        assert abs(float(found.mid) / scale - 5) < 1e-14
        assert float(found.rad) <= 1e-14 * 5 * scale + 2.0**-900


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=5))
@example([5e-324, -5e-324, 0.0])
@example([700.0, -700.0])
def test_exponential(values: list[float]) -> None:
    found = exp(np.array(values))
    with mpmath.workdps(60):
        for i, v in enumerate(values):
            exact = mpmath.exp(mpmath.mpf(v))
            assert abs(exact - mpmath.mpf(float(found.mid[i]))) <= mpmath.mpf(float(found.rad[i]))
            assert float(found.rad[i]) <= 1e-15 * float(found.mid[i]) + 2.0**-999


@pytest.mark.parametrize("value", [701.0, -701.0, 1e300, -1e300, np.nan, np.inf])
def test_exponentials_out_of_range_are_refused_at_once(value: float) -> None:
    with pytest.raises(Rejected):
        exp(np.array([0.0, value]))


@given(st.floats(0, 1e300))
def test_up_is_upward(value: float) -> None:
    assert Fraction(float(up(value))) >= Fraction(value) * (1 + Fraction(1, 2**50))


# --- defects that were found ----------------------------------------------------------------------------------------


def test_a_sum_that_overflows_on_the_way_is_not_taken_for_its_sign() -> None:
    # Partial sums pass -1.8e308 while the exact sum is zero and the error bound is finite.
    a = np.array([1.5e154, 1.5e154, 1.5e154, 1.5e154])
    b = np.array([-1e154, -1e154, 1e154, 1e154])
    found = dot(Ball.exact(a), Ball.exact(b))
    assert found.low <= 0 <= found.high


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stands_for_everything(bad: float) -> None:
    for ball in (Ball(np.asarray(bad), np.asarray(1.0)), Ball(np.asarray(1.0), np.asarray(abs(bad)))):
        one, zero = Ball.exact(1.0), Ball.exact(0.0)
        results = (ball, ball + one, one - ball, ball * one, one / ball)
        for result in (*results, ball * zero, ball / one, -ball, sqrt(ball)):
            assert result.high == np.inf
        for result in results:
            assert result.low == -np.inf
        assert ball.magnitude == np.inf
        assert norm(Ball(ball.mid[None], ball.rad[None])).high == np.inf
        assert dot(Ball(ball.mid[None], ball.rad[None]), Ball.exact(np.zeros(1))).high == np.inf


def test_rounding_of_terms_whose_error_bound_would_underflow() -> None:
    # The products are of ordinary size, the first factors denormal: gamma times a factor alone is zero.
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.integers(1, 2**13, 5) * 2.0**-1074, rng.standard_normal(5) * 2.0**1000
        found = dot(Ball.exact(a), Ball.exact(b))
        exact = sum(Fraction(p) * Fraction(q) for p, q in zip(a.tolist(), b.tolist(), strict=True))
        assert_contains(found, Fraction(exact))
