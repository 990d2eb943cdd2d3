"""Theorem activation-remainder (c), (d): the derivatives by computer algebra, the tables by interval arithmetic."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import sympy as sp
from mpmath import iv, libmp, mp, mpf

from . import activations
from .activations import ACTIVATIONS, GELU, GELU_TANH, KAPPA, SILU, Activation, C, Interval, T, X

PROSE = (Path(__file__).parents[3] / "theory" / "19-activation-remainder.md").read_text(encoding="utf-8")
NAMES = {f.name: f for f in ACTIVATIONS}


def cells(title: str) -> dict[str, list[str]]:
    """The rows of the table of the prose whose head contains the title, by activation."""
    table = next(part for part in PROSE.split("\n\n") if part.startswith("| |") and title in part.splitlines()[0])
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def ends(x: Interval) -> tuple[Fraction, Fraction]:
    """Both ends of an interval as the rationals that they are."""
    low, high = (Fraction(*libmp.to_rational(end)) for end in x._mpi_)
    return low, high


def near(x: Interval, stated: str) -> bool:
    """Whether the whole interval is within 1e-12 of the decimal."""
    return all(abs(end - Fraction(Decimal(stated))) <= Fraction(1, 10**12) for end in ends(x))


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("f", ACTIVATIONS, ids=lambda f: f.name)
def test_the_polynomials_are_the_derivatives(f: Activation, k: int) -> None:
    derivative = sp.diff(f.sigma if f is not SILU else X / 2 * (1 + sp.tanh(X / 2)), X, k)
    polynomial = f.polynomial(k).as_expr()
    if f.p is None:
        density = sp.exp(-(X**2) / 2) / sp.sqrt(2 * sp.pi)
        assert sp.simplify(derivative / density - polynomial) == 0
    else:
        assert sp.expand(derivative.replace(sp.tanh, lambda _: T) - (1 - T**2) * polynomial) == 0


def test_the_prose_names_the_polynomials_of_gelu() -> None:
    for k, text in ((2, 2 - X**2), (3, X * (X**2 - 4)), (4, -(X**4) + 7 * X**2 - 4), (5, X * (X**2 - 2) * (X**2 - 9))):
        assert sp.expand(GELU.polynomial(k).as_expr() - text) == 0


def test_silu_is_half_of_one_plus_a_tangent() -> None:
    assert sp.simplify((SILU.sigma - X / 2 * (1 + sp.tanh(X / 2))).rewrite(sp.exp)) == 0


@pytest.mark.parametrize("f", ACTIVATIONS, ids=lambda f: f.name)
def test_what_is_odd_about_them(f: Activation) -> None:
    sigma = f.sigma
    assert sp.simplify((sigma - sigma.subs(X, -X) - X).rewrite(sp.exp)) == 0
    for k in (2, 3, 4):
        reflected = f.polynomial(k).as_expr().subs({X: -X, T: -T}, simultaneous=True)
        assert sp.expand(reflected - (-1) ** k * f.polynomial(k).as_expr()) == 0


@pytest.mark.parametrize("f", ACTIVATIONS, ids=lambda f: f.name)
def test_the_table_of_suprema(f: Activation) -> None:
    for k, text in zip((1, 2, 3, 4), cells("first derivative | second")[f.name], strict=True):
        true = activations.supremum(f, k) if k > 1 else activations.slope(f)
        (low, high), stated = ends(true), Fraction(Decimal(text))
        if text == "0.5":  # exact: see below
            assert low <= stated <= high
        else:
            assert high <= stated
        assert stated - Fraction(1, 10**10) < low  # one unit less would be false


def test_the_row_of_the_tangent() -> None:
    """Its derivatives are polynomials in itself, on [-1, 1]: exact roots."""
    polynomial = T
    for text in cells("first derivative | second")["tanh"]:
        polynomial = sp.expand(sp.diff(polynomial, T) * (1 - T**2))
        inside = [r for r in sp.Poly(sp.diff(polynomial, T), T).real_roots() if abs(r) <= 1]
        largest = max(abs(polynomial.subs(T, r)).evalf(30) for r in (*inside, -1, 1))
        stated = sp.Rational(text)
        assert largest <= stated + sp.Rational(1, 10**25)
        assert stated - sp.Rational(1, 10**10) < largest


def test_the_error_function_at_one() -> None:
    with mp.workdps(40):
        value = activations._erf(iv.mpf(1))
        assert value.a <= mp.erf(1) <= value.b
        assert value.delta < 1e-30


def test_the_largest_at_zero_are_what_the_prose_says() -> None:
    c, x = sp.sqrt(2 / sp.pi), sp.Integer(0)
    at_zero = {
        (f.name, k): f.polynomial(k).as_expr().subs({T: 0, C: c, X: x}) / (sp.sqrt(2 * sp.pi) if f is GELU else 1)
        for f in ACTIVATIONS
        for k in (2, 4)
    }
    assert sp.simplify(at_zero["gelu", 2] - c) == 0
    assert sp.simplify(at_zero["gelu_tanh", 2] - c) == 0
    assert at_zero["silu", 2] == sp.Rational(1, 2)
    assert sp.simplify(at_zero["gelu", 4] + 2 * c) == 0
    assert sp.simplify(at_zero["gelu_tanh", 4] + 4 * c**3 - 12 * KAPPA * c) == 0
    assert at_zero["silu", 4] == -sp.Rational(1, 2)


@pytest.mark.parametrize("f", ACTIVATIONS, ids=lambda f: f.name)
def test_the_table_of_turning_points(f: Activation) -> None:
    for k, text in zip((2, 3), cells("second derivative turns")[f.name], strict=True):
        stated = re.findall(r"(\S+) \((\S+)\)", text)
        proved = [(x, v) for x, v in activations.extremes(f, k) if k == 2 or x.b > 0]
        assert len(stated) == len(proved)
        for (x, v), (at, value) in zip(stated, proved, strict=True):
            assert near(at, x)
            assert near(value, v)
            assert not near(value, str(Decimal(v) + Decimal("1e-11")))


@pytest.mark.parametrize("f", ACTIVATIONS, ids=lambda f: f.name)
@pytest.mark.parametrize("k", [2, 3])
def test_the_isolated_roots_are_all_that_a_grid_sees(f: Activation, k: int) -> None:
    """Sign changes of mpmath's own derivative, on a grid as fine as the roots are apart."""
    sigma = sp.lambdify(X, f.sigma.subs(C, sp.sqrt(2 / sp.pi)), "mpmath")
    with mp.workdps(40):
        grid = [mpf(i) / 16 + mpf(1) / 1000 for i in range(8 * 16)]
        signs = [mp.sign(mp.diff(sigma, x, k, h=mpf(10) ** -8)) for x in grid]
    assert sum(a != b for a, b in pairwise(signs)) == len(activations.roots(f, k))


def test_roots_beyond_the_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(activations.no_root_beyond_the_end(f, k) for f in ACTIVATIONS for k in (2, 3, 4, 5))
    monkeypatch.setattr(activations, "END", 1)
    assert not any(activations.no_root_beyond_the_end(f, 3) for f in ACTIVATIONS)


def test_a_root_that_cannot_be_decided_is_an_error() -> None:
    """(x - 1)^2 touches zero: neither it nor its derivative keeps away from it."""
    double = Activation("double", X, None)
    object.__setattr__(double, "polynomial", lambda k: sp.Poly({2: (X - 1) ** 2, 3: 2 * (X - 1)}[k], X, T, C))
    with pytest.raises(ArithmeticError, match="cannot be decided"):
        activations.roots(double, 2)


def test_enclosures_contain_the_values_of_mpmath() -> None:
    with mp.workdps(40):
        for f in (GELU, GELU_TANH, SILU):
            sigma = sp.lambdify(X, f.sigma.subs(C, sp.sqrt(2 / sp.pi)), "mpmath")
            for at in ("0.25", "1.5", "6"):
                x = mpf(at)
                value, wide = mp.diff(sigma, x, 3, h=mpf(10) ** -9), f.derivative(3, iv.mpf([x - 0.125, x + 0.125]))
                assert wide.a <= value <= wide.b
