"""Nearest points of polyhedra against a convex solver, and what has no such point."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest

from sae_verify.geometry.nearest_point import nearest_point


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_convex_solver_s(seed):
    rng = np.random.default_rng(seed)
    width, equalities, others = 10, int(rng.integers(0, 4)), int(rng.integers(0, 16))
    equal, upper = rng.normal(size=(equalities, width)), rng.normal(size=(others, width))
    inside, target = rng.normal(size=width), 3.0 * rng.normal(size=width)
    level, room = equal @ inside, upper @ inside + 0.3 * rng.exponential(size=others)
    found = nearest_point(target, equal, level, upper, room)
    assert found is not None
    assert equal @ found == pytest.approx(level, abs=1e-9)
    assert (upper @ found <= room + 1e-9).all()
    x = cvxpy.Variable(width)
    rules: list[Any] = ([equal @ x == level] if equalities else []) + ([upper @ x <= room] if others else [])
    least = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(x - target)), rules).solve(solver=cvxpy.CLARABEL)
    assert np.linalg.norm(found - target) == pytest.approx(least, rel=1e-6, abs=1e-7)


def test_rows_that_repeat_count_once_and_half_spaces_without_a_common_point_have_none():
    row = np.array([[1.0, 0.0]])
    found = nearest_point(np.array([5.0, 2.0]), np.repeat(row, 2, axis=0), np.array([1.0, 1.0]), row, np.array([3.0]))
    assert found == pytest.approx([1.0, 2.0])
    both = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert nearest_point(np.zeros(2), np.zeros((0, 2)), np.zeros(0), both, np.array([-1.0, -1.0])) is None
