"""Theorem region-cut: convexity along the cap, the two choices of the prose, and the least volume."""

from __future__ import annotations

import sympy as sp

T, B, D = sp.symbols("t b d", real=True)
TC, SN, SP = sp.symbols("t_c s_n s_p", positive=True)


def left(tc: sp.Expr, sn: sp.Expr, across: sp.Expr, t: sp.Expr) -> sp.Expr:
    """F(t), with the square of s_p."""
    return ((t - tc) / sn) ** 2 + (1 - t**2) / across


def test_the_second_derivative() -> None:
    second = sp.diff(left(TC, SN, SP**2, T), T, 2)
    assert sp.simplify(second - 2 * (SP**2 - SN**2) / (SN**2 * SP**2)) == 0


def test_both_ends() -> None:
    f = left(TC, SN, SP**2, T)
    assert sp.simplify(f.subs(T, 1) - ((1 - TC) / SN) ** 2) == 0
    assert sp.simplify(f.subs(T, B) - ((B - TC) / SN) ** 2 - (1 - B**2) / SP**2) == 0


def test_the_choices_of_the_prose_meet_both_conditions_with_equality() -> None:
    least = ((1 + D * B) / (D + 1), D * (1 - B) / (D + 1), D**2 * (1 - B**2) / (D**2 - 1))
    inner = (B, 1 - B, 1 - B**2)
    for tc, sn, across in (least, inner):
        assert sp.simplify(left(tc, sn, across, B)) == 1
        assert sp.simplify(left(tc, sn, across, sp.Integer(1))) == 1


def test_the_first_choice_is_stationary_in_volume() -> None:
    """Both conditions with equality leave t_c free; log volume = log s_n + (d - 1) log s_p."""
    tc = sp.Symbol("x", real=True)
    sn = 1 - tc
    across = (1 - B**2) / (1 - ((B - tc) / sn) ** 2)
    volume = sp.log(sn) + (D - 1) * sp.log(across) / 2
    slope = sp.simplify(sp.diff(volume, tc).subs(tc, (1 + D * B) / (D + 1)))
    assert slope == 0
    assert sp.simplify(sp.diff(volume, tc).subs(tc, B)) != 0  # the other choice is not


def test_the_other_choice_is_round_enough() -> None:
    """s_p^2 - s_n^2 = 2 b (1 - b) >= 0 for b >= 0; both at most 1."""
    assert sp.expand((1 - B**2) - (1 - B) ** 2 - 2 * B * (1 - B)) == 0
