"""Theorem attention-remainder: the polynomials and the identities, for three positions and any numbers."""

from __future__ import annotations

import sympy as sp

E = sp.Symbol("e")
P1, P2 = sp.symbols("p1 p2")
P = [P1, P2, 1 - P1 - P2]
C = sp.symbols("C1:4")
V = sp.symbols("v1:4")
A0 = sum(p * v for p, v in zip(P, V, strict=True))
MEAN = sum(p * c for p, c in zip(P, C, strict=True))
CENTRED = [c - MEAN for c in C]
W = [v - A0 for v in V]


def weighted(*factors: list[sp.Expr]) -> sp.Expr:
    return sum((sp.Mul(*terms) for terms in zip(P, *factors, strict=True)), sp.Integer(0))


def power(k: int) -> list[sp.Expr]:
    return [c**k for c in CENTRED]


def test_the_centred_sums_vanish() -> None:
    assert sp.expand(weighted(CENTRED)) == 0
    assert sp.expand(weighted(W)) == 0


def test_order_two_and_three_are_the_taylor_polynomials_of_the_softmax() -> None:
    """The softmax of the raw scores, by its own differential equation: da/de = sum p_j (C_j - mean C) v_j."""
    weights = [sp.Symbol(f"q{j}") for j in range(3)]
    flow = [q * (c - sum(w * x for w, x in zip(weights, C, strict=True))) for q, c in zip(weights, C, strict=True)]
    at_centre = dict(zip(weights, P, strict=True))
    average: sp.Expr = sum((q * v for q, v in zip(weights, V, strict=True)), sp.Integer(0))
    terms = []
    for k in range(1, 4):
        average = sp.expand(sum(sp.diff(average, q) * f for q, f in zip(weights, flow, strict=True)))
        terms.append(average.subs(at_centre) / sp.factorial(k))
    n1, n2 = weighted(W, CENTRED), weighted(W, power(2)) / 2
    n3, z2 = weighted(W, power(3)) / 6, weighted(power(2)) / 2
    assert sp.expand(terms[0] - n1) == 0
    assert sp.expand(terms[1] - n2) == 0
    assert sp.expand(terms[2] - (n3 - n1 * z2)) == 0


def test_the_remainders_are_identities() -> None:
    """With free numbers for e^c_j: nothing is expanded, nothing approximated."""
    grown = list(sp.symbols("g1:4"))
    n, z = weighted(W, grown), weighted(grown)
    n1, z2 = weighted(W, CENTRED), weighted(power(2)) / 2
    l2 = n1 + weighted(W, power(2)) / 2
    second = weighted(W, [g - 1 - c - c**2 / 2 for g, c in zip(grown, CENTRED, strict=True)]) - l2 * (z - 1)
    assert sp.expand(n - l2 * z - second) == 0
    l3 = l2 + weighted(W, power(3)) / 6 - n1 * z2
    rest = weighted(W, [g - 1 - c - c**2 / 2 - c**3 / 6 for g, c in zip(grown, CENTRED, strict=True)])
    third = rest - n1 * (z - 1 - z2) - (l3 - n1) * (z - 1)
    assert sp.expand(n - l3 * z - third) == 0
    without = sp.expand(n - (l3 + n1 * z2) * z - third)  # forgetting N_1 Z_2 is noticed
    assert without != 0


def test_theta_over_its_argument_below_zero() -> None:
    x = sp.Symbol("x", positive=True)
    share = (x**2 / 2 - x + 1 - sp.exp(-x)) / x
    assert sp.simplify(sp.diff(share, x) - (sp.Rational(1, 2) - (1 - (1 + x) * sp.exp(-x)) / x**2)) == 0
    # x^2/2 - 1 + (1 + x) e^-x is zero at 0 and its derivative is x (1 - e^-x) >= 0.
    assert sp.simplify(sp.diff(x**2 / 2 - 1 + (1 + x) * sp.exp(-x), x) - x * (1 - sp.exp(-x))) == 0
    t, c = sp.symbols("t c", positive=True)
    for k in (1, 2):
        integral = sp.integrate((1 - t) ** k / sp.factorial(k) * sp.exp(t * c), (t, 0, 1))
        rest = sp.exp(c) - sum(c**j / sp.factorial(j) for j in range(k + 1))
        assert sp.simplify(integral * c ** (k + 1) - rest) == 0


def test_the_weight_of_one_position() -> None:
    """(d): for the numbers [j = T], N_1 = p_T c_T."""
    indicator = dict(zip(V, (0, 0, 1), strict=True))
    assert sp.expand(weighted(W, CENTRED).subs(indicator) - P[2] * CENTRED[2]) == 0
