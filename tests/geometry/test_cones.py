"""Codes and separations against the textbook statements, on random and degenerate dictionaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.errors import FeatureError, InputError, ShapeError, UnsupportedError
from sae_verify.geometry.cone import Reach, reach
from sae_verify.geometry.cone_reference import reach_reference, sparse_code_reference, whole_cone_reference
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.sparse_code import opposite, sparse_code
from sae_verify.geometry.whole_cone import whole_cone

KINDS = ("random", "one side", "integers", "repeated", "opposite", "plane", "scales", "tiny", "huge", "zero rows")
TOLERANCE = 1e-5
"""Of the interior-point reference, relative to x; it is worst at degenerate optima."""


@dataclass(frozen=True, eq=False)
class Case:
    rows: Array
    x: Array

    @property
    def size(self) -> float:
        return float(np.linalg.norm(self.x)) or 1.0


def make(kind: str, seed: int, m: int, d: int) -> Case:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(m, d))
    x = rng.normal(size=d)
    if kind == "one side":
        rows[:, 0] += 2.0
    elif kind == "integers":
        rows, x = rng.integers(-2, 3, (m, d)).astype(float), rng.integers(-3, 4, d).astype(float)
    elif kind == "repeated":
        rows[m // 2 :] = rows[: m - m // 2] * rng.choice([1.0, 3.0], (m - m // 2, 1))
    elif kind == "opposite":
        rows[m // 2 :] = -rows[: m - m // 2]
    elif kind == "plane":
        rows[:, 0] = 0.0
    elif kind == "scales":
        rows *= 10.0 ** rng.integers(-2, 3, (m, 1))
    elif kind == "tiny":
        rows, x = rows * 1e-100, x * 1e-90
    elif kind == "huge":
        rows, x = rows * 1e100, x * 1e90
    elif kind == "zero rows":
        rows[::2] = 0.0
    return Case(rows, x)


def cases(most: int = 12) -> st.SearchStrategy[Case]:
    return st.builds(make, st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(1, most), st.integers(1, 5))


def encloses(found: Reach, case: Case, value: float) -> None:
    """Primal and dual values on the right sides of the reference, and together where a proof for all codes exists."""
    assert found.residual >= value - TOLERANCE * case.size
    assert found.residual <= value + TOLERANCE * case.size
    assert found.distance <= value + TOLERANCE * case.size
    if found.separation is None:
        assert found.residual <= TOLERANCE * case.size or not case.x.any()
    elif found.separation.total == found.question.total:
        assert found.gap <= TOLERANCE * case.size


@given(cases())
@settings(max_examples=60)
def test_the_cone(case: Case) -> None:
    found = reach(case.rows, case.x)
    encloses(found, case, reach_reference(case.rows, case.x).value)
    f = np.zeros(len(case.rows))
    f[found.member.features] = found.member.values
    assert (found.member.values > 0).all()
    assert np.linalg.norm(case.x - f @ case.rows) <= found.residual


@given(cases(), st.data())
@settings(max_examples=60)
def test_the_box(case: Case, data: st.DataObject) -> None:
    unit = case.size / max(float(np.linalg.norm(case.rows, axis=1).max()), 1e-300)
    limits = st.sampled_from([0.0, 0.1, 0.5, 2.0, np.inf])
    upper = unit * np.array(data.draw(st.lists(limits, min_size=len(case.rows), max_size=len(case.rows))))
    found = reach(case.rows, case.x, upper=upper)
    assert (found.member.values <= upper[found.member.features]).all()
    encloses(found, case, reach_reference(case.rows, case.x, upper=upper).value)


@given(cases(), st.sampled_from([0.0, 0.3, 1.0, 3.0]), st.sampled_from([None, 0.4]))
@settings(max_examples=60)
def test_a_bounded_sum(case: Case, total: float, upper: float | None) -> None:
    unit = case.size / max(float(np.linalg.norm(case.rows, axis=1).max()), 1e-300)
    bounds: dict[str, Any] = {"upper": None if upper is None else upper * unit, "total": total * unit}
    found = reach(case.rows, case.x, **bounds)
    assert found.member.values.sum() <= total * unit
    encloses(found, case, reach_reference(case.rows, case.x, **bounds).value)


@given(cases(), st.data())
@settings(max_examples=40)
def test_a_support(case: Case, data: st.DataObject) -> None:
    features = data.draw(st.lists(st.integers(0, len(case.rows) - 1), unique=True))
    found = reach(case.rows, case.x, features)
    assert set(found.member.features) <= set(features)
    value = reach_reference(case.rows[features], case.x).value if features else float(np.linalg.norm(case.x))
    encloses(found, case, value)


@given(cases(7), st.integers(0, 3), st.sampled_from([None, 0.5]))
@settings(max_examples=30)
def test_few_features(case: Case, k: int, upper: float | None) -> None:
    bound = None if upper is None else upper * case.size / max(float(np.linalg.norm(case.rows, axis=1).max()), 1e-300)
    found = sparse_code(case.rows, case.x, k, upper=bound, cosine=opposite(case.rows))
    best = sparse_code_reference(case.rows, case.x, k, upper=bound).value
    assert len(found.member.features) <= k
    assert found.residual >= best - TOLERANCE * case.size
    assert found.distance <= best + TOLERANCE * case.size
    if k <= 1:
        assert found.gap <= TOLERANCE * case.size


def test_bounds_on_features_make_the_lower_bound_of_few_features_useful() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 40))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    x = rng.normal(size=40)
    free, boxed = sparse_code(rows, x, 3), sparse_code(rows, x, 3, upper=1.0)
    assert free.distance == 0.0
    assert boxed.distance > 0.4 * boxed.residual


def test_pursuit_finds_a_planted_code() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 50))
    planted = rng.choice(300, 6, replace=False)
    found = sparse_code(rows, rng.uniform(1, 2, 6) @ rows[planted], 6)
    assert set(found.member.features) == set(planted)
    assert found.residual < 1e-12


def test_cosines_give_a_bound_where_the_cone_gives_none() -> None:
    rows = np.concatenate([np.eye(8), -0.5 * np.ones((1, 8))])
    x = np.arange(1.0, 9.0)
    without = sparse_code(rows, x, 2)
    found = sparse_code(np.eye(8), x, 2, cosine=opposite(np.eye(8)))
    assert without.distance == 0.0
    assert found.gap < 1e-12 * found.residual  # orthogonal rows: exact


@given(cases(16))
@settings(max_examples=30)
def test_whole_cones(case: Case) -> None:
    rows = case.rows[np.abs(case.rows).max(axis=1) > 0]
    unit = rows / np.linalg.norm(rows, axis=1)[:, None] if len(rows) else rows
    found, missed = whole_cone(case.rows), whole_cone_reference(unit)
    if found.whole:
        assert missed < 1e-4
        assert (found.weights > 0).all()
    elif missed < 1e-9:
        pytest.fail("the reference reaches every axis")


def test_the_sum_that_reaches_every_vector() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, 6))
    found = whole_cone(rows)
    assert found.total is not None
    for x in rng.normal(size=(20, 6)):
        x /= np.linalg.norm(x)
        assert reach(rows, x, total=found.total).residual < 1e-9


def test_a_line_gives_a_statement_about_a_bounded_sum() -> None:
    rng = np.random.default_rng(4)
    line = rng.normal(size=5)
    rows = np.concatenate([[line, -line], rng.normal(size=(3, 5))])
    x = rng.normal(size=5)
    found = reach(rows, x)
    assert found.separation is not None
    assert found.separation.total is not None
    assert found.separation.total > 1e6
    assert found.separation.distance > 0.99 * found.residual > 0.1
    assert found.distance == 0.0  # nothing is proven for every f


def test_a_line_along_an_axis_needs_no_bounded_sum() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.3, 0.2, 0.0]])
    found = reach(rows, np.array([0.7, -1.0, 2.0]))
    assert found.separation is not None
    assert found.separation.total is None
    assert found.gap < 1e-12


def test_larger_dictionaries() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(3000, 96)).astype(np.float32)
    inside = reach(rows, rng.normal(size=96))
    assert inside.residual < 1e-10
    assert len(inside.member.features) <= 96
    rows[:, 0] += 5.0
    x = rng.random(20) @ rows[:20].astype(np.float64) + rng.normal(size=96)
    assert reach(rows, x).gap < 1e-10
    assert reach(rows, x, upper=0.1).gap < 1e-10
    assert whole_cone(rows).whole is False
    rows[0] = -rows.sum(axis=0)
    assert whole_cone(rows).whole is True


@pytest.mark.parametrize("d", [1, 3])
def test_corners(d: int) -> None:
    x = np.arange(1.0, d + 1)
    for rows in (np.zeros((4, d)), np.zeros((0, d))):
        assert reach(rows, x).gap <= 1e-12
        assert sparse_code(rows, x, 2).gap <= 1e-12
        assert whole_cone(rows).whole is False
    assert reach(np.eye(d), np.zeros(d)).residual <= 1e-200
    assert reach(np.eye(d), x, total=0.0).gap <= 1e-12
    assert reach(np.eye(d), x, upper=0.0).gap <= 1e-12
    assert sparse_code(np.eye(d), x, 0).gap <= 1e-12
    assert sparse_code(np.eye(d), x, d + 5).residual <= 1e-12
    assert whole_cone(np.concatenate([np.eye(d), -np.eye(d)])).whole is True


BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"x": np.ones(4)}, ShapeError),
    ({"x": np.array([1.0, np.nan, 0.0])}, InputError),
    ({"x": np.full(3, 1e200)}, InputError),
    ({"upper": -1.0}, InputError),
    ({"upper": np.nan}, InputError),
    ({"total": -1.0}, InputError),
    ({"total": np.nan}, InputError),
    ({"features": [0, 0]}, FeatureError),
    ({"features": [9]}, FeatureError),
    ({"upper": np.ones(4)}, ShapeError),
]


@pytest.mark.parametrize(("change", "error"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        reach(**{"source": np.eye(3), "x": np.ones(3), **change})


@pytest.mark.parametrize("k", [-1, True, 1.5])
def test_a_bad_number_of_features(k: Any) -> None:
    with pytest.raises(InputError):
        sparse_code(np.eye(3), np.ones(3), k)


def test_users_add_constraints_to_the_reference() -> None:
    rows, x = np.eye(3), np.array([1.0, 2.0, 3.0])
    free = reach_reference(rows, x)
    held = reach_reference(rows, x, extra=lambda f: [f[0] + f[1] == f[2]])
    assert free.value < 1e-7
    assert held.value < 1e-7
    held = reach_reference(rows, x, extra=lambda f: [f[2] <= f[0]])
    assert held.value == pytest.approx(2**0.5, abs=1e-6)
    few = sparse_code_reference(rows, x, 2, extra=lambda f: [f[2] <= 1.0])
    assert few.value == pytest.approx(5**0.5, abs=1e-6)
    with pytest.raises(UnsupportedError):
        reach_reference(rows, x, extra=lambda f: [f[0] <= -1.0])
    with pytest.raises(UnsupportedError):
        sparse_code_reference(np.ones((60, 2)), np.ones(2), 8)
