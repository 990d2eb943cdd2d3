"""Theorem decoder-blindness: in rationals, and on the package's own clamps."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.clamp_effect import clamp_effect, undo
from sae_verify.geometry.held_cell import HeldCell
from sae_verify.geometry.subspace import complement
from sae_verify.problem import Clamp
from sae_verify.sae import JumpReLUSAE

from .exact import Matrix, Vector, add, dot, matrices, refutation, times, vectors

D, M = 3, 4


@dataclass(frozen=True)
class Clamped:
    """Decoder rows (m, d), bias, residual, two codes, and a direction."""

    rows: Matrix
    bias: Vector
    x: Vector
    before: Vector
    after: Vector
    y: Vector

    def decode(self, code: Vector) -> Vector:
        result = self.bias
        for value, row in zip(code, self.rows, strict=True):
            result = add(result, row, value)
        return result

    @property
    def error(self) -> Vector:
        return add(self.x, self.decode(self.before), -1)

    @property
    def h(self) -> Vector:
        return add(self.decode(self.after), self.error)


@st.composite
def clamps(draw: st.DrawFn) -> Clamped:
    rows = draw(matrices(M, D))
    if draw(st.booleans()):  # a decoder that leaves the last direction out
        rows = [[*row[:-1], Fraction(0)] for row in rows]
    y = draw(st.sampled_from([draw(vectors(D)), [Fraction(0)] * (D - 1) + [Fraction(1)]]))
    return Clamped(rows, draw(vectors(D)), draw(vectors(D)), draw(vectors(M)), draw(vectors(M)), y)


@given(clamps())
@settings(max_examples=100)
def test_blindness_span_survival_and_undo(c: Clamped) -> None:
    change = add(c.h, c.x, -1)
    blind = all(v == 0 for v in times(c.rows, c.y))
    if blind:
        assert dot(c.y, change) == 0
    moved = add(c.after, c.before, -1)
    expected = [Fraction(0)] * D
    for value, row in zip(moved, c.rows, strict=True):
        expected = add(expected, row, value)
    assert change == expected  # rows of unchanged features have weight zero
    assert add(c.h, c.decode(c.after), -1) == c.error
    delta = [-v for v in expected]
    assert add(c.h, delta) == c.x


def test_a_direction_that_a_row_sees_is_moved() -> None:
    """The other half of (a): where D^T y != 0, some code moves y . h; and a clamp that drops the error is refuted."""
    assert refutation(clamps(), lambda c: any(times(c.rows, c.y)) and dot(c.y, add(c.h, c.x, -1)) != 0)
    assert refutation(clamps(), lambda c: add(c.decode(c.after), c.decode(c.after), -1) != c.error)


@given(clamps(), st.integers(0, M - 1), st.integers(-3, 3))
@settings(max_examples=60)
def test_the_package_clamps_as_the_theorem_says(c: Clamped, feature: int, value: int) -> None:
    rows = torch.tensor([[float(v) for v in row] for row in c.rows], dtype=torch.float64)
    sae = JumpReLUSAE(
        W_enc=rows.T.contiguous(),
        W_dec=rows,
        b_dec=torch.tensor([float(v) for v in c.bias], dtype=torch.float64),
        subtract_b_dec=False,
        b_enc=torch.zeros(M, dtype=torch.float64),
        threshold=torch.zeros(M, dtype=torch.float64),
    )
    x = np.array([float(v) for v in c.x])
    effect = clamp_effect(sae, Clamp.set({feature: float(value)}), x)
    unreachable = complement(sae)
    assert np.abs(unreachable.part(effect.effect)).max(initial=0.0) <= 1e-9
    np.testing.assert_allclose(
        effect.effect, (value - float(sae.encode(torch.from_numpy(x))[feature])) * rows[feature].numpy(), atol=1e-12
    )
    back = undo(HeldCell(D, np.zeros((0, D)), (), ()), effect.effect)
    assert back.admissible
    np.testing.assert_allclose(effect.h + back.delta, x, atol=1e-12)
