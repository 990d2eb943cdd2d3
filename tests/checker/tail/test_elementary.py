"""Elementary functions against fifty digits of mpmath; the constants and error budgets of the docstrings, exactly."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import factorial
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import TINY, Ball, U
from sae_verify.checker.tail import elementary

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

EXACT: dict[str, Callable[[Any], Any]] = {
    "exp": mpmath.exp,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
}
BUDGET = {"exp": (0.0, 6.1), "sigmoid": (0.0, 12.1), "tanh": (8.1, 0.0), "erf": (4.1, 0.0)}
"""What the radius may be at most, in U: absolute, and relative to the value."""


def corners() -> np.ndarray:
    """Zero, denormals, huge numbers, ends of ranges and of table cells, and the neighbours of all of them."""
    ends = [0.0, 5e-324, 2.0**-1060, 1e-308, 1e-300, 1e-17, 1e-8, 0.5, 1.0, 6.0, 20.0, 37.0, 350.0, 690.0, 700.0, 745.0]
    cells = [j / 16 for j in range(100)]
    halves = [float(mpmath.log(2) * (k + 0.5)) for k in range(-1076, 1009, 97)]
    ends += [*cells, *halves, 708.4, 709.8, 744.4, 746.0, 1e3, 1e16, 1e160, 1e300, 1.7976931348623157e308]
    values = np.array(ends)
    values = np.concatenate([values, np.nextafter(values, np.inf), np.nextafter(values, -np.inf)])
    values = np.concatenate([values, -values])
    return values[np.isfinite(values)]


def samples() -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = np.concatenate([rng.normal(size=700) * scale for scale in (1e-9, 1e-3, 0.1, 1.0, 3.0, 30.0, 300.0)])
    return np.concatenate([corners(), spread])


def overshoot(name: str, x: np.ndarray) -> float:
    """The largest |exact - mid| / rad of the known entries, inf where there is an error but no radius."""
    ball: Ball = getattr(elementary, name)(x)
    worst = mpmath.mpf(0)
    with mpmath.workdps(50):
        for v, mid, rad in zip(x, ball.mid, ball.rad, strict=True):
            if np.isfinite(mid) and np.isfinite(rad):
                error = abs(EXACT[name](mpmath.mpf(float(v))) - mpmath.mpf(float(mid)))
                worst = max(worst, error / float(rad) if rad else mpmath.inf * (error > 0))
    return float(worst)


@pytest.mark.parametrize("name", EXACT)
def test_encloses_the_exact_value_and_says_something(name: str) -> None:
    x = samples()
    ball: Ball = getattr(elementary, name)(x)
    known = (x <= 700) if name == "exp" else np.full(x.shape, True)
    absolute, relative = BUDGET[name]
    assert (np.isfinite(ball.mid) & np.isfinite(ball.rad) == known).all()
    assert (ball.rad[known] <= (absolute + relative * np.abs(ball.mid[known])) * U + 4 * TINY).all()
    assert (ball.rad[known] > 0).all()
    # A radius a tenth as wide would not do: the test is able to fail, and the budget is not padded.
    assert 0.1 < overshoot(name, x) <= 1.0


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-0.0)
def test_encloses_whatever_float(v: float) -> None:
    for name in EXACT:
        assert overshoot(name, np.array([v])) <= 1.0


@pytest.mark.parametrize("name", EXACT)
def test_nothing_is_known_of_what_is_no_number(name: str) -> None:
    ball: Ball = getattr(elementary, name)(np.array([np.nan, np.inf, -np.inf, 0.5]))
    assert not (np.isfinite(ball.mid) & np.isfinite(ball.rad))[:3].any()
    assert np.isfinite(ball.rad[3])
    assert (ball.low[:3] == -np.inf).all()
    assert (ball.high[:3] == np.inf).all()


def test_exp_knows_nothing_beyond_its_range_and_keeps_zero_in_reach_below() -> None:
    ball = elementary.exp(np.array([700.0, np.nextafter(700.0, 701.0), 709.0, 1e300, -1e300]))
    assert np.isfinite(ball.rad).tolist() == [True, False, False, False, True]
    assert ball.low[4] <= 0 < ball.high[4] <= 4 * TINY


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    ball: Ball = getattr(elementary, name)(x)
    flat: Ball = getattr(elementary, name)(np.ravel(x))
    assert ball.mid.shape == ball.rad.shape == shape
    assert (np.ravel(ball.mid) == flat.mid).all()
    assert (np.ravel(ball.rad) == flat.rad).all()


def rational(x: Any) -> Fraction:
    """A number of mpmath, exactly."""
    sign, mantissa, exponent, _ = mpmath.mpf(x)._mpf_
    return Fraction(-1 if sign else 1) * int(mantissa) * Fraction(2) ** int(exponent)


def test_the_constants_are_what_they_claim() -> None:
    with mpmath.workdps(120):
        ln2 = rational(mpmath.log(2))
        assert 0 <= rational(mpmath.pi) - Fraction(elementary.PI) < Fraction(1, 10**78)
        assert mpmath.erfc(6) < U / 4
    left = ln2 - Fraction(elementary.LN2_HIGH) - Fraction(elementary.LN2_LOW)
    assert 0 <= left < Fraction(1, 2**100)
    assert (Fraction(elementary.LN2_HIGH) * 2**42).denominator == 1
    for k in range(-1077, 1012):
        assert Fraction(k * elementary.LN2_HIGH) == k * Fraction(elementary.LN2_HIGH)
    for n, coefficient in enumerate(elementary._EXP):
        assert abs(Fraction(coefficient) - Fraction(1, factorial(n))) <= Fraction(U) / factorial(n)


def test_the_error_budget_of_exp_holds_in_rationals() -> None:
    """The recurrence of the docstring, in units of U."""
    r, terms = Fraction("0.3501"), elementary.EXP_TERMS
    sums = [sum((r**j / factorial(n + j) for j in range(terms - n)), Fraction(0)) for n in range(terms)]
    error = Fraction(1, factorial(terms - 1))
    for n in reversed(range(terms - 1)):
        error = sums[n] + r * sums[n + 1] + r * error + (Fraction(1, factorial(n)) if n >= 3 else 0)
    assert error < Fraction("2.5")
    least = Fraction("0.704")
    assert least < rational(mpmath.exp(-0.3501))
    truncation = Fraction("1.03") * r**terms / factorial(terms) / Fraction(U)
    total = (error + truncation) / least + Fraction("0.72")
    assert total < 5 < elementary.EXP_ERROR / U


def test_the_error_budget_of_erf_holds_in_rationals() -> None:
    """Coefficients rounded to nearest, truncation by Cramer's inequality, and Horner's rounding, in units of U."""
    table = elementary.erf_table()
    assert table.shape == (elementary.ERF_TERMS, round(elementary.ERF_LARGEST / elementary.ERF_STEP) + 1)
    with mpmath.workdps(60):
        for j, column in enumerate(table.T):
            exact = mpmath.taylor(mpmath.erf, mpmath.mpf(j) / 8, elementary.ERF_TERMS - 1)
            for got, value in zip(column, exact, strict=True):
                # The differences that `taylor` takes are good to some thirty digits of the largest coefficient.
                assert abs(mpmath.mpf(float(got)) - value) <= U * abs(value) + mpmath.mpf(10) ** -25, j
    h, sizes = Fraction(1, 16), [Fraction(float(np.abs(row).max())) for row in table]
    tops = [sum((c * h**i for i, c in enumerate(sizes[n:])), Fraction(0)) for n in range(len(sizes))]
    tops[0] = Fraction(1)  # a value of erf
    error = sizes[-1]
    for n in reversed(range(len(sizes) - 1)):
        error = tops[n] + h * tops[n + 1] + h * error + sizes[n]
    n = elementary.ERF_TERMS
    cramer = 1.23 * 2 ** ((n - 1) / 2) * mpmath.sqrt(mpmath.factorial(n - 1)) / mpmath.factorial(n) / 16**n
    assert float(error) + float(cramer) / U + 0.25 < 3 < elementary.ERF_ERROR / U


def nudged_table(row: int) -> np.ndarray:
    table = elementary.erf_table().copy()
    table[row] *= 1 + 1e-10 * 16**row
    return table


@pytest.mark.parametrize("row", range(4))
def test_a_wrong_table_of_erf_is_caught(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = nudged_table(row)
    monkeypatch.setattr(elementary, "erf_table", lambda: table)
    assert overshoot("erf", samples()) > 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LN2_HIGH", 0.6931471805599453),
        ("LN2_LOW", 0.0),
        ("PER_LN2", 1.0),
        ("EXP_ERROR", U / 4),
        ("EXP_SMALLEST", -690.0),
        ("_EXP", elementary._EXP[:-2]),
        ("_EXP", [*elementary._EXP[:2], 0.5 + 1e-13, *elementary._EXP[3:]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_constant_of_exp_is_caught(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementary, name, value)
    assert overshoot("exp", samples()) > 1


@pytest.mark.parametrize(("name", "value"), [("ERF_LARGEST", 4.0), ("ERF_ERROR", U / 4), ("ERF_STEP", 0.0625)])
def test_a_wrong_constant_of_erf_is_caught(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    elementary.erf_table()  # made from the right constants
    monkeypatch.setattr(elementary, name, value)
    x = samples()
    assert overshoot("erf", x[np.abs(x) < 3] if name == "ERF_STEP" else x) > 1
