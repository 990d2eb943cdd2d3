"""Derivatives of GELU (both forms) and SiLU, their zeros, and how large they get: proved by interval arithmetic.

All three are x (1 + odd function)/2, so sigma(x) - sigma(-x) = x and every derivative from the second on is even or
odd: x >= 0 is enough. From the second on, derivative k is `weight` times P_k(x, T):

    gelu       weight = exp(-x^2/2) / sqrt(2 pi)    P_k without T
    gelu_tanh  weight = 1 - T^2, T = tanh(p), p = sqrt(2/pi) (x + 0.044715 x^3)
    silu       weight = 1 - T^2, T = tanh(p), p = x/2

The weight is positive, so derivative k is zero where P_k is. The roots are isolated on [0, END] by bisection: P_k is
not zero on a cell, or P_(k+1) is not and the signs at both ends decide. Beyond END no root is left when P_k(END + u, T)
has, as a polynomial in u, coefficients of one sign for every T that occurs there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import sympy as sp
from mpmath import iv

iv.prec = 120
END = 12
X, T, C = sp.symbols("x T c")  # C stands for sqrt(2/pi)
KAPPA = sp.Rational(44715, 10**6)
TINY = 2.0**-20

Interval = Any
"""An iv.mpf."""


@dataclass(frozen=True)
class Activation:
    """One of the three: sigma as sympy has it, and p with T = tanh(p); p is None for the normal density."""

    name: str
    sigma: sp.Expr
    p: sp.Expr | None

    @cache  # noqa: B019
    def polynomial(self, k: int) -> sp.Poly:
        """P_k in x, T and c; k >= 2."""
        if k == 2:
            if self.p is None:
                return sp.Poly(2 - X**2, X, T, C)
            slope = sp.diff(self.p, X)
            # sigma = x (1 + T)/2: sigma'' = T' + x T''/2 with T' = (1 - T^2) p'.
            return sp.Poly(sp.expand(slope + X * (sp.diff(slope, X) - 2 * T * slope**2) / 2), X, T, C)
        before = self.polynomial(k - 1).as_expr()
        if self.p is None:
            return sp.Poly(sp.expand(sp.diff(before, X) - X * before), X, T, C)
        slope = sp.diff(self.p, X)
        chain = sp.diff(before, T) * (1 - T**2) * slope
        return sp.Poly(sp.expand(sp.diff(before, X) + chain - 2 * T * slope * before), X, T, C)

    def tangent(self, x: Interval) -> Interval:
        """T on an interval of x >= 0."""
        if self.p is None:
            return iv.mpf(0)
        p = x / 2 if self.name == "silu" else ROOT * (x + KAPPA_IV * x**3)
        return 1 - 2 / (iv.exp(2 * p) + 1)

    def weight(self, x: Interval) -> Interval:
        if self.p is None:
            return iv.exp(-(x**2) / 2) / iv.sqrt(2 * iv.pi)
        e = iv.exp(-2 * (x / 2 if self.name == "silu" else ROOT * (x + KAPPA_IV * x**3)))
        return 4 * e / (1 + e) ** 2  # 1 - tanh^2 without cancellation

    def enclose(self, k: int, x: Interval) -> Interval:
        """P_k on an interval of x >= 0, at least as wide as its range."""
        return _horner(self._terms(k), x, self.tangent(x))

    @cache  # noqa: B019
    def _terms(self, k: int) -> tuple[tuple[int, int, Interval], ...]:
        return tuple((i, j, _rational(q) * ROOT**m) for (i, j, m), q in self.polynomial(k).terms())

    def derivative(self, k: int, x: Interval) -> Interval:
        return self.weight(x) * self.enclose(k, x)


def _rational(q: sp.Rational) -> Interval:
    return iv.mpf(int(q.p)) / iv.mpf(int(q.q))


ROOT = iv.sqrt(2 / iv.pi)
KAPPA_IV = _rational(KAPPA)


def _horner(terms: tuple[tuple[int, int, Interval], ...], x: Interval, t: Interval) -> Interval:
    total = iv.mpf(0)
    for i, j, c in terms:
        total += c * x**i * t**j
    return total


def _sign(value: Interval) -> int:
    return 1 if value.a > 0 else -1 if value.b < 0 else 0


GELU = Activation("gelu", X / 2 * (1 + sp.erf(X / sp.sqrt(2))), None)
GELU_TANH = Activation("gelu_tanh", X / 2 * (1 + sp.tanh(C * (X + KAPPA * X**3))), C * (X + KAPPA * X**3))
SILU = Activation("silu", X / (1 + sp.exp(-X)), X / 2)
ACTIVATIONS = (GELU, GELU_TANH, SILU)


def no_root_beyond_the_end(f: Activation, k: int) -> bool:
    """Whether P_k has one sign for all x >= END."""
    t = f.tangent(iv.mpf(END))
    range_of_t = iv.mpf([t.a, 1]) if f.p is not None else iv.mpf(0)
    u = sp.Symbol("u")
    shifted = sp.Poly(sp.expand(f.polynomial(k).as_expr().subs(X, END + u)), u, T, C)
    coefficients: dict[int, Interval] = {}
    for (i, j, m), q in shifted.terms():
        coefficients[i] = coefficients.get(i, iv.mpf(0)) + _rational(q) * range_of_t**j * ROOT**m
    signs = {_sign(c) for c in coefficients.values()}
    return signs in ({1}, {-1})


@cache
def roots(f: Activation, k: int) -> tuple[Interval, ...]:
    """Every root of derivative k with x > 0, each in an interval of its own, narrower than 1e-15."""
    if not no_root_beyond_the_end(f, k):
        raise ArithmeticError(f"{f.name}: derivative {k} may have a root beyond {END}")
    found: list[Interval] = []
    cells = [(0.0, float(END))]
    while cells:
        a, b = cells.pop()
        x = iv.mpf([a, b])
        if _sign(f.enclose(k, x)):
            continue
        if _sign(f.enclose(k + 1, x)):  # monotone: at most one root
            left, right = _sign(f.enclose(k, iv.mpf(a))), _sign(f.enclose(k, iv.mpf(b)))
            if a == 0 and k % 2:
                continue  # an odd derivative is zero at 0, which is the one
            if left and right:
                if left != right:
                    found.append(_bisect(f, k, a, b, left))
                continue
        if b - a < TINY:
            raise ArithmeticError(f"{f.name}: derivative {k} cannot be decided near {a}")
        # Not the middle, which is often a root itself.
        m = a + (b - a) * 0.4999
        cells += [(a, m), (m, b)]
    return tuple(sorted(found, key=lambda x: float(x.a)))


def _bisect(f: Activation, k: int, a: float, b: float, left: int) -> Interval:
    while b - a > 1e-15 * max(1.0, a):
        m = (a + b) / 2
        if m in (a, b):
            break
        sign = _sign(f.enclose(k, iv.mpf(m)))
        if sign == left:
            a = m
        elif sign == -left:
            b = m
        else:
            break
    return iv.mpf([a, b])


@cache
def extremes(f: Activation, k: int) -> tuple[tuple[Interval, Interval], ...]:
    """(x, derivative k at x) for x = 0 and every x > 0 where it turns; it goes to 0 at infinity."""
    points = (iv.mpf(0), *roots(f, k + 1))
    return tuple((x, f.derivative(k, x)) for x in points)


def slope(f: Activation) -> Interval:
    """The largest |sigma'|: sigma'(x) + sigma'(-x) = 1, and it turns once for x > 0, above 1."""
    (x,) = roots(f, 2)
    if f.p is None:
        return (1 + _erf(x / iv.sqrt(2))) / 2 + x * f.weight(x)
    inner = iv.mpf(1) / 2 if f.name == "silu" else ROOT * (1 + 3 * KAPPA_IV * x**2)
    return (1 + f.tangent(x)) / 2 + x * f.weight(x) * inner / 2


def _erf(x: Interval) -> Interval:
    """By its alternating series, for 0 <= x <= 1.1: terms fall, and the rest is below the first one left out."""
    total, term, n = iv.mpf(0), x, 0
    while n < 40:
        total += (-1) ** n * term / (2 * n + 1)
        n += 1
        term = term * x**2 / n
    return 2 / iv.sqrt(iv.pi) * (total + iv.mpf([-1, 1]) * term.b)


def supremum(f: Activation, k: int) -> Interval:
    """The largest |derivative k| on the whole line, k >= 2."""
    values = [abs(value) for _, value in extremes(f, k)]
    return iv.mpf([max(v.a for v in values), max(v.b for v in values)])
