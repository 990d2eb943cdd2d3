"""Worst cases in batches, and over other balls: against the row-by-row solver, cvxpy, and their own certificates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.box import box_worst_case, box_worst_cases
from sae_verify.geometry.dictionary import Dictionary, dictionary
from sae_verify.geometry.ellipsoid import ellipsoid_worst_case, ellipsoid_worst_cases, error_ellipsoid, stretched
from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell
from sae_verify.geometry.reference import worst_case_reference
from sae_verify.geometry.worst_case import LinearOptimum, worst_case
from sae_verify.geometry.worst_cases import worst_cases
from sae_verify.sae import SAE
from tests.support.tiny import random_sae

from .cells import KINDS, Case, cases, cell_of, make_case, violation

NARROW = (torch.float32, torch.bfloat16)


def small_sae(architecture: str) -> SAE:
    return random_sae(
        architecture,
        d=8,
        m=24,
        k=4,
        hook="blocks.0.hook_resid_post",
        seed=0,
        normalization=None,
        subtract=True,
        bias=-0.6,
        dtype=torch.float32,
    )


def batch(problems: list[Case], narrow: torch.dtype) -> tuple[Dictionary, list[HeldCell], Array, Array]:
    """Problems of one width over one dictionary, which holds the rows of all of them."""
    d = problems[0].cell.width
    rows = [np.zeros((0, d)), *(half.normals for p in problems for half in p.cell.half_spaces)]
    stacked, start, cells = np.concatenate(rows), 0, []
    for problem in problems:
        families = []
        for half in problem.cell.half_spaces:
            slack = np.full(len(stacked), np.inf)
            slack[start : start + len(half.slack)] = half.slack
            start += len(half.slack)
            families.append(HalfSpaces("x", half.sign, stacked, slack))
        cells.append(dataclasses.replace(problem.cell, half_spaces=tuple(families)))
    return (
        dictionary(torch.from_numpy(stacked), narrow=narrow),
        cells,
        np.stack([p.g for p in problems]),
        np.array([p.radius for p in problems]),
    )


def dual(cell: HeldCell, g: Array, found: LinearOptimum) -> tuple[float, Array]:
    """Cost of the multipliers and what they leave of g."""
    rest, cost = g - found.equal @ cell.equal, 0.0
    for half, (features, values) in zip(cell.half_spaces, found.upper, strict=True):
        assert (values >= 0).all()
        rest = rest - half.sign * values @ half.normals[features]
        cost += float(values @ half.slack[features])
    return cost, rest


@st.composite
def batches(draw: st.DrawFn) -> list[Case]:
    width = draw(st.integers(1, 7))
    return [
        make_case(
            draw(st.sampled_from(KINDS)),
            draw(st.integers(0, 2**32 - 1)),
            width,
            draw(st.integers(0, width + 2)),
            draw(st.integers(0, 14)),
            draw(st.sampled_from([1.0, 1.0, 0.1, 1e-6, 10.0, 0.0])),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


@given(batches(), st.sampled_from(NARROW))
@settings(max_examples=120)
def test_a_batch_gives_what_each_token_alone_gives(problems: list[Case], narrow: torch.dtype) -> None:
    rows, cells, g, radii = batch(problems, narrow)
    for problem, cell, found in zip(problems, cells, worst_cases(rows, cells, g, radii), strict=True):
        unit = float(np.linalg.norm(problem.g)) * problem.radius
        if problem.radius > 0:
            assert violation(cell, found.delta, problem.radius) <= 1e-9
        assert found.value == pytest.approx(float(problem.g @ found.delta))
        assert -1e-12 * unit <= found.dual - found.value <= 1e-9 * unit
        cost, rest = dual(cell, problem.g, found)
        assert cost + problem.radius * float(np.linalg.norm(rest)) == pytest.approx(found.dual, abs=1e-12 * unit)
        assert found.value == pytest.approx(
            worst_case(problem.cell, problem.g, problem.radius).value, abs=1e-9 * unit + 1e-300
        )


@pytest.mark.parametrize("narrow", NARROW)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_many_features(narrow: torch.dtype, share: float) -> None:
    """A dictionary large enough that the screen leaves most rows out, with clustered columns."""
    rng = np.random.default_rng(7)
    d, m, count = 48, 1500, 6
    centres = rng.normal(size=(60, d))
    rows = (centres[rng.integers(0, 60, m)] + rng.normal(size=(m, d))).astype(np.float32).astype(np.float64)
    problems = []
    for _ in range(count):
        x = rng.normal(size=d)
        a = rows @ x
        threshold = float(np.sort(a)[-15])
        on = a >= threshold
        cell = cell_of(d, rows[on], (1.0, rows, np.where(on, np.inf, threshold - a)))
        problems.append(Case("clustered", cell, rng.normal(size=d), share * float(np.linalg.norm(x))))
    priced = dictionary(torch.from_numpy(rows), narrow=narrow)
    found = worst_cases(
        priced, [p.cell for p in problems], np.stack([p.g for p in problems]), np.array([p.radius for p in problems])
    )
    assert any(len(features) for answer in found for features, _ in answer.upper)
    for problem, answer in zip(problems, found, strict=True):
        assert violation(problem.cell, answer.delta, problem.radius) <= 1e-11
        alone = worst_case(problem.cell, problem.g, problem.radius)
        assert answer.value == pytest.approx(alone.value, rel=1e-11)
        assert answer.dual == pytest.approx(answer.value, rel=1e-11)


@pytest.mark.parametrize("narrow", NARROW)
def test_prices_are_within_their_error(narrow: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 40)) * 10.0 ** rng.uniform(-4, 4, size=(300, 1))
    points = rng.normal(size=(20, 40)) * 10.0 ** rng.uniform(-30, 6, size=(20, 1))
    priced = dictionary(torch.from_numpy(rows), narrow=narrow)
    values, error = priced.price(points)
    off = np.abs(values - points @ rows.T)
    assert (off <= np.outer(error, priced.length)).all()
    assert (
        np.outer(error, priced.length) <= 0.02 * np.outer(np.linalg.norm(points, axis=1), priced.length) + 1e-30
    ).all()


@given(cases(max_width=6, radii=(1.0, 0.1, 10.0)))
@settings(max_examples=60)
def test_box(case: Case) -> None:
    found = box_worst_case(case.cell, case.g, case.radius)
    unit = float(np.linalg.norm(case.g)) * case.radius
    assert np.abs(found.delta).max() <= case.radius
    assert violation(case.cell, found.delta, case.radius * case.cell.width) <= 1e-8
    cost, rest = dual(case.cell, case.g, found)
    assert cost + case.radius * float(np.abs(rest).sum()) == pytest.approx(found.dual, abs=1e-12 * unit)
    assert -1e-8 * unit <= found.dual - found.value <= 1e-6 * unit
    reference = worst_case_reference(case.cell, case.g, case.radius, ball="linf")
    assert found.value == pytest.approx(reference.value, abs=1e-6 * unit)
    rows, cells, g, radii = batch([case], torch.float32)
    (many,) = box_worst_cases(rows, cells, g, radii)
    assert many.value == pytest.approx(found.value, abs=1e-7 * unit)


@given(cases(max_width=6, radii=(1.0, 0.1, 10.0)), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_ellipsoid(case: Case, seed: int) -> None:
    rng, d = np.random.default_rng(seed), case.cell.width
    factor = np.tril(rng.normal(size=(d, d))) + 2 * np.eye(d)
    found = ellipsoid_worst_case(case.cell, case.g, case.radius, factor)
    unit = float(np.linalg.norm(case.g @ factor)) * case.radius
    inside = np.linalg.solve(factor, found.delta)
    assert np.linalg.norm(inside) <= case.radius * (1 + 1e-9)
    cost, rest = dual(case.cell, case.g, found)
    assert cost + case.radius * float(np.linalg.norm(rest @ factor)) == pytest.approx(found.dual, abs=1e-9 * unit)
    assert -1e-9 * unit <= found.dual - found.value <= 1e-8 * unit
    if case.kind != "scales":
        reference = worst_case_reference(case.cell, case.g, case.radius, ball="ellipsoid", factor=factor)
        assert found.value == pytest.approx(reference.value, abs=1e-6 * unit)
    rows, cells, g, radii = batch([case], torch.float32)
    (many,) = ellipsoid_worst_cases(stretched(rows, factor), cells, g, radii, factor)
    assert many.value == pytest.approx(found.value, abs=1e-8 * unit)


def test_the_round_ellipsoid_is_the_ball() -> None:
    case = make_case("random", 3, 6, 2, 10, 1.0)
    alone = worst_case(case.cell, case.g, 2.0)
    same = ellipsoid_worst_case(case.cell, case.g, 1.0, 2.0 * np.eye(6))
    assert same.value == pytest.approx(alone.value, rel=1e-9)


def test_error_ellipsoid_has_the_second_moment_of_the_error() -> None:
    sae = small_sae("jumprelu")
    x = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    shape = error_ellipsoid(sae, x, shrink=1e-9)
    error = sae.error(x).double().numpy()
    np.testing.assert_allclose(shape.factor @ shape.factor.T, error.T @ error / len(x), rtol=1e-5, atol=1e-8)
    assert shape.count == 4000
    assert 0.5 * np.sqrt(8) < shape.typical < 1.5 * np.sqrt(8)
    assert np.linalg.matrix_rank(error_ellipsoid(sae, x[:2]).factor) == 8  # two activations, and no flat direction


def test_bad_input() -> None:
    sae = small_sae("relu")
    rows = dictionary(torch.ones(3, 4))
    good = cell_of(4, None, (1.0, np.ones((3, 4)), np.ones(3)))
    with pytest.raises(ShapeError, match="one direction of 4"):
        worst_cases(rows, [good], np.ones((1, 5)), np.ones(1))
    with pytest.raises(ShapeError, match="dictionary of 3 rows"):
        worst_cases(rows, [cell_of(4, None, (1.0, np.ones((2, 4)), np.ones(2)))], np.ones((1, 4)), np.ones(1))
    with pytest.raises(ShapeError, match=r"must be \(n, 8\)"):
        error_ellipsoid(sae, torch.ones(3, 7))
    with pytest.raises(InputError, match="at least one activation"):
        error_ellipsoid(sae, torch.ones(0, 8))
    assert worst_cases(rows, [], np.ones((0, 4)), np.ones(0)) == []
