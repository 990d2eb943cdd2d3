"""Theorem bypass-cost: in rationals with an exact projector, and against the package's solver."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from geometry.cells import cell_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.curve import free_until
from sae_verify.geometry.worst_case import worst_case

from .exact import Matrix, Vector, add, dot, matrices, refutation, vectors

D = 3


@dataclass(frozen=True)
class Bypass:
    """Held columns, a gradient, and any vector."""

    held: Matrix
    g: Vector
    v: Vector

    def basis(self) -> Matrix:
        """Orthogonal, exactly: Gram and Schmidt without roots."""
        found: Matrix = []
        for row in self.held:
            rest = row
            for b in found:
                rest = add(rest, b, -dot(rest, b) / dot(b, b))
            if any(rest):
                found.append(rest)
        return found

    def project(self, v: Vector) -> Vector:
        for b in self.basis():
            v = add(v, b, -dot(v, b) / dot(b, b))
        return v


@st.composite
def bypasses(draw: st.DrawFn) -> Bypass:
    held = draw(matrices(draw(st.integers(0, 3)), D))
    g = draw(vectors(D))
    if held and draw(st.booleans()):  # a gradient that the held columns explain
        g = add(held[0], held[-1], 2)
    return Bypass(held, g, draw(vectors(D)))


@given(bypasses())
@settings(max_examples=150)
def test_existence_readout_and_cost(b: Bypass) -> None:
    delta, free = b.project(b.v), b.project(b.g)
    assert all(dot(row, delta) == 0 for row in b.held)
    if len(b.basis()) == D:
        assert not any(delta)
    assert dot(b.g, delta) == dot(free, delta)
    # (c) squared: (g . delta)^2 <= ||P g||^2 ||delta||^2, with equality along P g.
    assert dot(b.g, delta) ** 2 <= dot(free, free) * dot(delta, delta)
    assert dot(b.g, free) == dot(free, free)
    assert any(free) == (not explained(b))


def explained(b: Bypass) -> bool:
    """Whether g is a combination of the held columns, by elimination."""
    return len(Bypass([*b.held, b.g], b.g, b.v).basis()) == len(b.basis())


def test_wrong_costs_are_refuted() -> None:
    """With ||g|| instead of ||P g||, the worst case is claimed to be larger than it is: no delta attains it."""
    assert refutation(bypasses(), lambda b: dot(b.project(b.g), b.project(b.g)) < dot(b.g, b.g))
    # An unprojected delta breaks what is held.
    assert refutation(bypasses(), lambda b: any(dot(row, b.v) != 0 for row in b.held))


@given(bypasses(), st.sampled_from([Fraction(1, 3), Fraction(5)]))
@settings(max_examples=60)
def test_the_solver_gives_the_formula(b: Bypass, radius: Fraction) -> None:
    held = np.array([[float(v) for v in row] for row in b.held]).reshape(-1, D)
    g, free = np.array([float(v) for v in b.g]), b.project(b.g)
    exact = float(radius) * float(dot(free, free)) ** 0.5
    cell = cell_of(D, held)
    assert worst_case(cell, g, float(radius)).value == pytest.approx(exact, abs=1e-9)
    assert free_until(cell, g) == np.inf
