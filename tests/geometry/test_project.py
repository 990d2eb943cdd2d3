"""Projection onto cell and ball, and `inside`, whose points must be admissible in floats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.inside import inside
from sae_verify.geometry.reference import project_reference, worst_case_reference
from sae_verify.geometry.worst_case import project, worst_case

from .cells import Case, admissible_samples, cases, cell_of, make_case, violation


@given(cases(), st.sampled_from([0.01, 0.5, 1.0, 3.0, 1e4]))
@settings(max_examples=100)
def test_projection_obeys_its_variational_inequality(case: Case, far: float) -> None:
    """(p - q) . (y - q) <= 0 for every admissible y: that characterises the nearest point."""
    p = case.g * case.radius * far
    q = project(case.cell, p, case.radius)
    unit = case.radius * (case.radius + float(np.linalg.norm(p)))
    assert violation(case.cell, q, case.radius) <= 1e-9
    for y in admissible_samples(case.cell, case.radius, 40, 0):
        assert (p - q) @ (y - q) <= 1e-9 * unit
    supported = worst_case(case.cell, p - q, case.radius).value  # over all y at once
    assert supported - (p - q) @ q <= 1e-8 * unit


@given(cases(max_width=6), st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=30)
def test_agrees_with_the_reference(case: Case, far: float) -> None:
    p = case.g * case.radius * far
    q, reference = project(case.cell, p, case.radius), project_reference(case.cell, p, case.radius)
    assert np.linalg.norm(p - q) == pytest.approx(reference.value, abs=1e-6 * case.radius * (1 + far))


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_idempotent_and_nonexpansive(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, case.cell.width)) * case.radius
    pa, pb = project(case.cell, a, case.radius), project(case.cell, b, case.radius)
    assert np.linalg.norm(pa - pb) <= np.linalg.norm(a - b) + 1e-9 * case.radius
    assert np.linalg.norm(project(case.cell, pa, case.radius) - pa) <= 1e-9 * case.radius


@given(cases(), st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=150)
def test_inside_is_admissible_in_floats(case: Case, far: float) -> None:
    cell, p = case.cell, case.g * case.radius * far
    for start in (project(cell, p, case.radius), worst_case(cell, p, case.radius).delta, p):
        delta = inside(cell, start, case.radius)
        assert np.linalg.norm(delta) <= case.radius
        assert violation(cell, delta, case.radius) <= 1e-9
        for half in cell.half_spaces:
            free = np.linalg.norm(cell.free_part(half.normals), axis=1)
            beside = free > 1e-10 * np.linalg.norm(half.normals, axis=1)  # the others hold as the equalities do
            assert (half.sign * (half.normals @ delta) <= half.slack)[beside].all()


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60)
def test_inside_moves_a_projection_by_rounding_only(seed: int, tight: bool) -> None:
    """Regression: a boundary through zero that rounding crossed used to pull the whole perturbation to zero."""
    kind = "no slack" if tight else "random"
    case = make_case(kind, seed, 8, 2, 5, 1.0)
    q = project(case.cell, case.g, 1.0)
    assume(np.linalg.norm(q) > 1e-3)
    assert np.linalg.norm(inside(case.cell, q, 1.0) - q) <= 1e-8


def test_inside_leaves_what_is_inside() -> None:
    cell = cell_of(3, None, (1.0, np.eye(3), np.ones(3)))
    delta = np.array([0.5, -0.5, 0.25])
    assert (inside(cell, delta, 1.0) == delta).all()
    assert np.linalg.norm(inside(cell, delta, 0.1)) == pytest.approx(0.1)


@pytest.mark.parametrize("radius", [0.0, 1.0])
def test_zero_and_full_rank(radius: float) -> None:
    p = np.array([1.0, 2.0])
    assert not project(cell_of(2, np.eye(2)), p, radius).any()
    assert np.linalg.norm(project(cell_of(2), p, radius)) == pytest.approx(radius)
    assert not project(cell_of(2), np.zeros(2), radius).any()


def test_the_reference_takes_further_convex_constraints() -> None:
    cell, g = cell_of(3, [[1.0, 1.0, 1.0]]), np.array([1.0, -2.0, 0.5])
    found = worst_case_reference(cell, g, 1.0, extra=lambda delta: [delta[1] >= 0.1, delta[0] <= 0.2])
    same = worst_case(cell_of(3, [[1.0, 1.0, 1.0]], (1.0, np.eye(3)[:1], np.array([0.2]))), g, 1.0)
    assert found.delta[1] >= 0.1 - 1e-7
    assert found.value < same.value
    nearest = project_reference(cell, g, 1.0, extra=lambda delta: [delta >= -0.1])
    assert nearest.delta.min() >= -0.1 - 1e-7
    with pytest.raises(UnsupportedError, match="status"):
        worst_case_reference(cell, g, 1.0, extra=lambda delta: [delta[0] >= 5])


def test_the_reference_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cvxpy", None)
    with pytest.raises(UnsupportedError, match=r"sae-verify\[reference\]"):
        worst_case_reference(cell_of(2), np.ones(2), 1.0)
