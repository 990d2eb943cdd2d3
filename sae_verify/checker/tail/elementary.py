"""Elementary functions of exact floats, rounded outward; no mathematical library is trusted.

Trusted: IEEE 754 double precision, round to nearest, for + - * /, and scaling by powers of two (`ldexp`: exact, or
correctly rounded where the result is subnormal). Every function takes an array of floats of any shape and returns a
`Ball` with the exact real values inside. An argument that is not finite is no real number: nothing is known of it.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import numpy as np

from ..arithmetic import TINY, Array, Ball, U, up

PI = Decimal("3.1415926535897932384626433832795028841971693993751058209749445923078164062862089")
"""Its first eighty digits; cut, not rounded."""

LN2_HIGH = float.fromhex("0x1.62e42fefa3800p-1")
LN2_LOW = float.fromhex("0x1.ef35793c76730p-45")
"""ln 2 = high + low + less than 2^-100; the high part has 42 bits: its multiples by integers below 2^11 are exact."""
PER_LN2 = float.fromhex("0x1.71547652b82fep+0")
"""1 / ln 2 to within an ulp."""

EXP_LARGEST = 700.0
"""Beyond it `exp` knows nothing; far enough from overflow for the products that follow."""
EXP_SMALLEST = -746.0
"""Below it exp(x) < 2^-1074 and x may be replaced by this value."""
EXP_ERROR = 6 * U
"""Relative to the result, besides TINY."""
EXP_TERMS = 14

ERF_STEP = 0.125
ERF_LARGEST = 6.0
"""erfc(6) < 2.2e-17 < U / 4: beyond it erf(x) may be replaced by erf(6)."""
ERF_TERMS = 12
ERF_ERROR = 4 * U
"""Absolute."""


def factorials(terms: int) -> list[float]:
    """1/n!, each rounded to the nearest float: a quotient of floats, as n! is one up to 18!."""
    result, product = [], 1.0
    for n in range(terms):
        product *= max(n, 1)
        result.append(1.0 / product)
    return result


_EXP = factorials(EXP_TERMS)


def nothing_known_unless(known: Any, mid: Array, rad: Array) -> Ball:
    """Ball(mid, rad) with the entries that are not `known` (booleans) made to stand for every real number."""
    if np.all(known):
        return Ball(np.asarray(mid), np.asarray(rad))
    return Ball(np.where(known, mid, np.inf), np.where(known, rad, np.inf))


def exp(x: Array) -> Ball:
    """The exponential with relative error EXP_ERROR, plus TINY; nothing known for x > 700.

    x = k ln 2 + r with k the rounded quotient, |k| <= 1077 and |r| <= 0.35; exp(x) = 2^k exp(r).

    Reduction: k * LN2_HIGH is exact; the difference d = x - k * LN2_HIGH is at most 0.3501 in absolute value, so it and
    d - k * LN2_LOW each round by at most 0.3501 U; k * LN2_LOW <= 7e-11 rounds by less than 1e-10 U and what is left of
    ln 2 adds 1077 * 2^-100. In all r is off by less than 0.71 U, exp(r) by a factor 1 + 0.72 U.

    Truncation: sum_(n >= 14) |r|^n / n! <= 1.03 * 0.35^14 / 14! < 5e-18, below 0.07 U of exp(r) >= 0.704.

    Rounding: Horner's s_n = c_n + r s_(n+1) has the error e_n <= U |s_n| + U |r s_(n+1)| + |r| e_(n+1) + U c_n, the
    last for n >= 3 only, as 1, 1 and 1/2 are exact. With |s_n| <= sum_j 0.35^j / (n + j)! this gives
    e_0 < 2.5 U, 3.6 U of exp(r). A product that underflows loses at most 2^-1075 and is added to c_n >= 1/13!.

    The sum, 5 U, holds relative to the exact value; relative to the computed one it is below 6 U. Scaling by 2^k is
    exact, or in the subnormal range loses at most 2^-1075 < TINY.
    """
    x = np.asarray(x, dtype=np.float64)
    known = np.isfinite(x) & (x <= EXP_LARGEST)
    reduced = np.clip(np.where(known, x, 0.0), EXP_SMALLEST, EXP_LARGEST)
    k = np.rint(reduced * PER_LN2)
    r = (reduced - k * LN2_HIGH) - k * LN2_LOW
    series = np.full(r.shape, _EXP[-1])
    for coefficient in reversed(_EXP[:-1]):
        series *= r
        series += coefficient
    mid = np.ldexp(series, k.astype(np.int32))
    return nothing_known_unless(known, mid, up(EXP_ERROR * mid))


def sigmoid(x: Array) -> Ball:
    """The logistic function 1 / (1 + exp(-x)) with relative error 12 U, plus TINY.

    With e = exp(-|x|): 1 / (1 + e) for x >= 0, else e / (1 + e). The numerator is off by a factor within 1 +- 6 U, the
    denominator by 6 U e / (1 + e) + U <= 4 U, the quotient rounds by U: in all less than 12 U.
    """
    x = np.asarray(x, dtype=np.float64)
    known = np.isfinite(x)
    e = exp(-np.abs(np.where(known, x, 0.0))).mid
    mid = np.where(x >= 0, 1.0, e) / (1.0 + e)
    return nothing_known_unless(known, mid, up(12 * U * mid + TINY))


def tanh(x: Array) -> Ball:
    """The hyperbolic tangent with absolute error 8 U, plus TINY.

    With e = exp(-2 |x|), at most 1: (1 - e) / (1 + e), whose derivative in e is -2 / (1 + e)^2. The error of e, 6 U e,
    changes it by 6 U * 2 e / (1 + e)^2 <= 3 U; the three operations round by a factor of 1 + U each, together less than
    4 U. From 350 on 1 - tanh(x) < 2e-304 < TINY, and x may be replaced by 350.
    """
    x = np.asarray(x, dtype=np.float64)
    known = np.isfinite(x)
    e = exp(-2.0 * np.minimum(np.abs(np.where(known, x, 0.0)), 350.0)).mid
    mid = np.copysign((1.0 - e) / (1.0 + e), x)
    return nothing_known_unless(known, mid, up(np.full(x.shape, 8 * U)))


@cache
def erf_table() -> Array:
    """Taylor coefficients of erf about j * ERF_STEP for j = 0 ... 48, one row a power; each rounded to nearest.

    erf(a) = 2/sqrt(pi) exp(-a^2) sum_n 2^n a^(2n+1) / (2n+1)!!, of positive terms, and erf' = g solves g' = -2 a g, so
    that (n + 1) g_(n+1) = -2 (a g_n + g_(n-1)). Sixty decimal digits leave the float nearest to each in no doubt.
    """
    columns: list[list[float]] = []
    with localcontext() as context:
        context.prec = 60
        for j in range(round(ERF_LARGEST / ERF_STEP) + 1):
            a = Decimal(j) * Decimal(ERF_STEP)
            g = [2 / PI.sqrt() * (-a * a).exp()]
            term, value, n = g[0] * a, Decimal(0), 0
            while value + term != value:
                value += term
                n += 1
                term *= 2 * a * a / (2 * n + 1)
            for n in range(ERF_TERMS - 2):
                g.append(-2 * (a * g[n] + (g[n - 1] if n else 0)) / (n + 1))
            columns.append([float(value), *(float(c / (n + 1)) for n, c in enumerate(g))])
    return np.array(columns).T.copy()


def erf(x: Array) -> Ball:
    """The error function with absolute error 4 U, plus TINY.

    |x| = a + h with a the nearest multiple of 1/8 and |h| <= 1/16, exactly: a / 2 <= |x| <= 2 a unless a = 0.

    Truncation: by Cramer's inequality |H_m(y)| exp(-y^2 / 2) <= 1.09 * 2^(m/2) sqrt(m!), the n-th derivative of erf,
    2/sqrt(pi) exp(-y^2) H_(n-1)(y) up to sign, is at most 1.23 * 2^((n-1)/2) sqrt((n-1)!) everywhere. At n = 12, times
    16^-12 / 12!, that is below 3e-18 < 0.03 U.

    Rounding: as in `exp`, e_n <= U |s_n| + U |h s_(n+1)| + |h| e_(n+1) + U |c_n| with |c_0| <= 1, |c_1| <= 1.13 and all
    others below 1; so e_1 < 2.6 U and e_0 < (1.08 + 0.08 + 0.17 + 1) U = 2.33 U, the table's own rounding included.

    Replacing |x| > 6 by 6 costs erfc(6) < 0.25 U. In all less than 3 U.
    """
    x = np.asarray(x, dtype=np.float64)
    known = np.isfinite(x)
    size = np.minimum(np.abs(np.where(known, x, 0.0)), ERF_LARGEST)
    cell = np.rint(size / ERF_STEP)
    h = size - cell * ERF_STEP
    index = cell.astype(np.intp)
    table = erf_table()
    mid = np.take(table[-1], index)
    for row in table[-2::-1]:
        mid = mid * h + np.take(row, index)
    return nothing_known_unless(known, np.copysign(mid, x), up(np.full(x.shape, ERF_ERROR)))
