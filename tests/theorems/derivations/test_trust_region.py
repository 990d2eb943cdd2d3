"""Theorem trust-region: the dual by completing the square, with symbols for everything, in two dimensions."""

from __future__ import annotations

import sympy as sp

M11, M12, M22, M0, R = sp.symbols("m11 m12 m22 m r")
M = sp.Matrix([[M11, M12], [M12, M22]])
Y, V, A, G = (sp.Matrix(sp.symbols(f"{name}1:3")) for name in "yvag")


def half(x: sp.Matrix) -> sp.Expr:
    return sp.expand((x.T * M * x)[0] / 2)


def test_the_square_around_any_vector() -> None:
    """a . y - y^T M y/2 = v^T M v/2 + (a - M v) . y - (y - v)^T M (y - v)/2."""
    left = A.dot(Y) - half(Y)
    right = half(V) + (A - M * V).dot(Y) - half(Y - V)
    assert sp.expand(left - right) == 0


def test_the_shift_by_m() -> None:
    q = M0 * sp.eye(2) - M
    assert sp.expand((Y.T * q * Y)[0] / 2 - (M0 * Y.dot(Y) / 2 - half(Y))) == 0


def test_the_exact_form_is_the_best_vector() -> None:
    """At v = M^-1 a the bound is a^T M^-1 a/2, and a . y - y^T M y/2 is stationary and that large at y = v."""
    best = M.inv() * A
    concave = A.dot(Y) - half(Y)
    at = dict(zip(Y, best, strict=True))
    assert all(sp.simplify(sp.diff(concave, y).subs(at)) == 0 for y in Y)
    assert sp.simplify(concave.subs(at) - A.dot(best) / 2) == 0
    assert sp.simplify(half(V).subs(dict(zip(V, best, strict=True))) - A.dot(best) / 2) == 0


def test_another_vector_costs_its_distance() -> None:
    """v'^T M v'/2 + v . (a - M v') with a = M v exceeds v^T M v/2 by (v' - v)^T M (v' - v)/2."""
    excess = half(Y) + V.dot(M * V - M * Y) - half(V) - half(Y - V)
    assert sp.expand(excess) == 0


def test_the_weaker_form_exceeds_by_a_product_and_lengths() -> None:
    """a . v - v^T M v/2 = v^T M v/2 + (a - M v) . v."""
    assert sp.expand(A.dot(V) - half(V) - half(V) - (A - M * V).dot(V)) == 0


def test_the_multiplier_of_the_ball_at_its_best() -> None:
    """d/dm of m r^2/2 + a^T (m - Q)^-1 a/2 is (r^2 - ||v||^2)/2: at the best m the maximiser is on the sphere."""
    q = sp.diag(*sp.symbols("q1 q2"))
    v = (M0 * sp.eye(2) - q).inv() * A
    value = M0 * R**2 / 2 + A.dot(v) / 2
    assert sp.simplify(sp.diff(value, M0) - (R**2 - v.dot(v)) / 2) == 0
