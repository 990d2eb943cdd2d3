"""Theorem norm-remainder: coefficients, lengths and remainders by computer algebra."""

from __future__ import annotations

import sympy as sp

E, R, A, U = sp.symbols("e r a u")
"""A scale for orders; ||w||; n . w; cos^2 of the angle."""
S = sp.Symbol("t", real=True)


def length(k: int) -> sp.Expr:
    """Squared length of the part of degree k over r^(2k), with t = -cos: W has product -t r with Z."""
    p, q = sp.legendre(k, S), sp.legendre(k - 1, S)
    return sp.expand(p**2 + q**2 - 2 * S * p * q)


def test_the_model_is_the_taylor_polynomial() -> None:
    """1/||Z + W|| = (1 + 2 a + r^2)^(-1/2), times Z + W: coefficients of Z and of W, order by order."""
    inverse = sp.series((1 + 2 * E * A + E**2 * R**2) ** sp.Rational(-1, 2), E, 0, 4).removeO()
    c = [sp.expand(inverse).coeff(E, k) for k in range(4)]
    assert (c[0], c[1]) == (1, -A)
    assert sp.expand(c[2] - (3 * A**2 - R**2) / 2) == 0
    # T_1 = w - a n; T_2 = (3 a^2 - r^2) n / 2 - a w: the Z part of order k is c[k], the W part c[k - 1].
    assert [sp.expand(x) for x in (c[1], c[0])] == [-A, 1]
    assert [sp.expand(x) for x in (c[2] * 2, c[1])] == [sp.expand(3 * A**2 - R**2), -A]
    # And they are Legendre's polynomials.
    for k in range(4):
        assert sp.expand(c[k].subs(A, -S * R) - sp.legendre(k, S) * R**k) == 0


def test_the_lengths_of_degree_one_to_three() -> None:
    assert sp.expand(length(1) - (1 - S**2)) == 0
    assert sp.expand(length(2) - (1 - S**2) * (1 + 3 * S**2) / 4) == 0
    assert sp.expand(length(3) - (1 - S**2) * (5 * S**4 - 2 * S**2 + 1) / 4) == 0


def test_their_largest_values() -> None:
    for k, largest in ((1, 1), (2, sp.Rational(1, 3)), (3, sp.Rational(1, 4))):
        inside = [x for x in sp.solve(sp.diff(length(k), S), S) if x.is_real and abs(x) <= 1]
        values = [sp.simplify(length(k).subs(S, x)) for x in (*inside, -1, 1)]
        assert max(values) == largest


def test_the_sums_of_coefficients() -> None:
    """sum_j |C(1/2, j)| |C(-1/2, k - j)| = 2 beta_k, which falls; beta_k = |C(-1/2, k)|."""
    half = sp.Rational(1, 2)
    beta = [abs(sp.binomial(-half, k)) for k in range(12)]
    for k in range(1, 12):
        assert beta[k] == sp.binomial(2 * k, k) / sp.Integer(4) ** k
        total = sum(abs(sp.binomial(half, j)) * abs(sp.binomial(-half, k - j)) for j in range(k + 1))
        assert total == 2 * beta[k]
        assert beta[k] < beta[k - 1]
    assert (2 * beta[3], 2 * beta[4], beta[3]) == (sp.Rational(5, 8), sp.Rational(35, 64), sp.Rational(5, 16))
    k = sp.Symbol("k", integer=True, positive=True)
    ratio = sp.simplify(sp.combsimp(sp.binomial(2 * k + 2, k + 1) / sp.binomial(2 * k, k) / 4))
    assert sp.simplify(ratio - (2 * k + 1) / (2 * k + 2)) == 0  # below 1 for every k


def test_the_generating_function() -> None:
    x = sp.Symbol("x")
    plus = 2 - sp.sqrt(1 - x)  # sum |C(1/2, j)| x^j: all signs of sqrt(1 - x) but the first are negative
    assert sp.simplify(plus / sp.sqrt(1 - x) - (2 / sp.sqrt(1 - x) - 1)) == 0
    series = sp.Poly(sp.series(plus, x, 0, 8).removeO(), x)
    assert all(series.coeff_monomial(x**j) == abs(sp.binomial(sp.Rational(1, 2), j)) for j in range(8))


def test_the_bilinear_part() -> None:
    """T_2(w) = H(w, w)/2, and H is symmetric."""
    n, a, b = (sp.Matrix(sp.symbols(f"{name}0:3")) for name in "nab")

    def h(x: sp.Matrix, y: sp.Matrix) -> sp.Matrix:
        return (3 * n.dot(x) * n.dot(y) - x.dot(y)) * n - n.dot(x) * y - n.dot(y) * x

    two = (3 * n.dot(a) ** 2 - a.dot(a)) * n / 2 - n.dot(a) * a
    assert (h(a, a) / 2 - two).expand() == sp.zeros(3, 1)
    assert (h(a, b) - h(b, a)).expand() == sp.zeros(3, 1)


def test_the_scalar_expansion_and_its_third_derivative() -> None:
    x = sp.Symbol("x")
    f = (1 + x) ** sp.Rational(-1, 2)
    assert sp.expand(sp.series(f, x, 0, 3).removeO() - (1 - x / 2 + 3 * x**2 / 8)) == 0
    third = sp.diff(f, x, 3)
    assert third.subs(x, 0) / 6 == -sp.Rational(5, 16)
    assert sp.simplify(third + sp.Rational(15, 8) * (1 + x) ** sp.Rational(-7, 2)) == 0  # negative, rising to 0


def test_the_split_form() -> None:
    """c + D with D = (u_r, u_p) along c and across: the square, the second order, and what remains along c."""
    nc, ur, up, s, a, p, g = sp.symbols("nc ur up s a p g", positive=True)
    h = (s - nc**2) / s
    at = {a: nc * ur / s, p: (up**2 + h * ur**2) / s}
    whole = s + 2 * nc * ur + ur**2 + up**2
    assert sp.simplify(whole - (s * ((1 + a) ** 2 + p)).subs(at)) == 0
    inverse = sp.series(((1 + E * a) ** 2 + E**2 * p) ** sp.Rational(-1, 2), E, 0, 3).removeO()
    assert sp.expand(inverse - (1 - E * a + E**2 * (a**2 - p / 2))) == 0
    along = nc * (g - 1 + a - a**2 + p / 2) + ur * (g - 1 + a)
    assert sp.simplify((along - nc * (g * (1 + a) - 1 + p / 2) - h * ur * (g - 1 + a)).subs(at)) == 0
    assert sp.simplify(1 / (1 + a) - 1 + a - a**2 / (1 + a)) == 0
    # |1 - (1 + a)^-2| on [-A, A] is largest at -A.
    assert sp.simplify((1 - a) ** -2 - 1 - a * (2 - a) / (1 - a) ** 2) == 0
    gap = sp.factor(((1 - a) ** -2 - 1 - (1 - (1 + a) ** -2)) * (1 - a**2) ** 2)
    assert sp.expand(gap - 2 * a**2 * (3 - a**2)) == 0  # so not negative up to 1


def test_the_distance_of_unit_vectors() -> None:
    a, b, c = sp.symbols("a b c")
    assert sp.expand(a**2 + b**2 - 2 * a * b * c - (2 - 2 * c) * (a + b) ** 2 / 4 - (1 + c) * (a - b) ** 2 / 2) == 0
