"""Size and shape of held cells: against linear programs, by hand, and by what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.cell_barrier import analytic_centre, chebyshev_centre
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.cell_size import (
    free_basis,
    free_rows,
    inner_radius,
    inscribed_ball,
    nearest_thresholds,
    thresholds_along,
)
from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell
from sae_verify.geometry.least_norm import least_norm

from .cells import KINDS, Case, cases, cell_of, make_case, violation

LIMIT = 10.0
REFERENCE = 1e-6
"""What the linear programs leave."""


def rows_of(cell: HeldCell) -> tuple[Array, Array]:
    """Unit rows in coordinates of the null space, by plain projection, and their distances."""
    basis = free_basis(cell)
    rows, distance = [np.zeros((0, basis.shape[1]))], [np.zeros(0)]
    for half in cell.half_spaces:
        free = half.sign * cell.free_part(half.normals) @ basis
        length = np.linalg.norm(free, axis=1)
        binds = np.isfinite(half.slack) & (length > 1e-10 * np.linalg.norm(half.normals, axis=1))
        rows.append(free[binds] / length[binds, None])
        distance.append(half.slack[binds] / length[binds])
    return np.concatenate(rows), np.concatenate(distance)


def chebyshev_reference(rows: Array, distance: Array, limit: float) -> float:
    width = rows.shape[1]
    box = [(-limit, limit)] * width + [(None, None)]
    objective = np.append(np.zeros(width), -1.0)
    return -linprog(objective, np.c_[rows, np.ones(len(rows))], distance, bounds=box, method="highs").fun


def bounded_reference(rows: Array) -> bool:
    """Whether {W y <= 0} is {0}: full rank, and no y in the unit box lowers the sum of the rows."""
    width = rows.shape[1]
    if not width:
        return True
    if np.linalg.matrix_rank(rows, tol=1e-9) < width:
        return False
    lowest = linprog(rows.sum(axis=0), rows, np.zeros(len(rows)), bounds=[(-1, 1)] * width, method="highs").fun
    return lowest > -1e-9


@given(cases())
@settings(max_examples=100)
def test_the_inner_radius_is_the_least_distance(case: Case) -> None:
    _, distance = rows_of(case.cell)
    assert inner_radius(case.cell) == pytest.approx(distance.min(initial=np.inf), rel=1e-9)


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_up_to_the_inner_radius_the_equalities_are_the_cell(case: Case, seed: int) -> None:
    radius, cell = inner_radius(case.cell), case.cell
    raw = cell.free_part(np.random.default_rng(seed).normal(size=(40, cell.width)))
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    free = raw[length[:, 0] > 1e-9] / length[length[:, 0] > 1e-9]
    within = min(radius, 1.0)
    for unit in free:
        assert violation(cell, unit * within, 1.0) <= 1e-9
    nearest = nearest_thresholds(cell, 1)
    if np.isfinite(radius) and radius > 0:  # and past it, towards the nearest facet, they are not
        assert nearest.direction is not None
        beyond = nearest.direction[0] * radius * (1 + 1e-6)
        assert violation(cell, beyond, radius) > 1e-8


@given(cases(), st.integers(0, 30))
@settings(max_examples=60)
def test_thresholds_are_met_in_order(case: Case, count: int) -> None:
    cell, rows = case.cell, free_rows(case.cell)
    nearest = nearest_thresholds(cell, count)
    assert len(nearest) == min(count, len(rows.slack))
    assert (np.diff(nearest.distance) >= 0).all()
    assert nearest.direction is not None
    assert np.linalg.norm(nearest.direction, axis=1) == pytest.approx(np.ones(len(nearest)))
    along = thresholds_along(cell, case.g, count)
    free = cell.free_part(case.g)
    assert (np.diff(along.distance) >= 0).all()
    for family, feature, at in zip(along.family, along.feature, along.distance, strict=True):
        half = cell.half_spaces[family]
        moved = half.sign * (half.normals[feature] @ free) / np.linalg.norm(free) * at
        scale = np.linalg.norm(half.normals[feature]) * max(at, 1e-300)
        assert moved == pytest.approx(half.slack[feature], abs=1e-8 * scale)
    if len(along):  # before the first threshold the point is in the cell, and after it it is not
        unit, first = free / np.linalg.norm(free), float(along.distance[0])
        assert violation(cell, 0.999 * first * unit, max(first, 1e-300)) <= 1e-9
        assert first >= nearest_thresholds(cell, 1).distance[0] * (1 - 1e-12)


def test_the_first_threshold_along_a_direction_is_where_the_worst_case_stops_being_free() -> None:
    case = make_case("random", 3, 8, 2, 14, 1.0)
    first = float(thresholds_along(case.cell, case.g, 1).distance[0])
    unit = case.cell.free_part(case.g)
    unit /= np.linalg.norm(unit)
    found = least_norm(case.cell, unit, 0.99 * first, 1e3)
    assert found is not None
    assert np.linalg.norm(found) == pytest.approx(0.99 * first)
    further = least_norm(case.cell, unit, 1.01 * first, 1e3)
    assert further is None or np.linalg.norm(further) > 1.01 * first * (1 + 1e-9)


@given(cases())
@settings(max_examples=100)
def test_the_inscribed_ball_agrees_with_a_linear_program(case: Case) -> None:
    rows, distance = rows_of(case.cell)
    ball = inscribed_ball(case.cell, LIMIT)
    if not len(rows):
        assert ball.radius == np.inf
        return
    reference = chebyshev_reference(rows, distance, LIMIT)
    assert ball.radius == pytest.approx(reference, abs=REFERENCE * max(1.0, reference))
    assert ball.upper >= reference - REFERENCE * max(1.0, reference)
    assert ball.upper - ball.radius <= 1e-5 * max(1.0, reference)
    assert inner_radius(case.cell) <= ball.radius * (1 + 1e-12)
    assert (rows @ (free_basis(case.cell).T @ ball.centre) + ball.radius <= distance + 1e-9 * (1 + ball.radius)).all()
    assert np.abs(case.cell.equal @ ball.centre).max(initial=0) <= 1e-9 * np.abs(case.cell.equal).max(initial=1) * LIMIT


@given(cases())
@settings(max_examples=100)
def test_bounded_or_not_agrees_with_a_linear_program(case: Case) -> None:
    rows, distance = rows_of(case.cell)
    found = recession(case.cell)
    assert found.verdict == ("bounded" if bounded_reference(rows) else "unbounded")
    if found.verdict == "unbounded":
        assert found.direction is not None
        assert np.linalg.norm(found.direction) == pytest.approx(1.0)
        assert violation(case.cell, 1e9 * found.direction, 1e9) <= 1e-9
        return
    assert found.radius is not None
    rest = found.equal @ case.cell.equal  # the multipliers cancel, and reach no corner beyond the radius
    for half, (features, values) in zip(case.cell.half_spaces, found.upper, strict=True):
        assert (values > 0).all()
        rest = rest + half.sign * (values @ half.normals[features])
    size = sum(
        float(v @ np.linalg.norm(h.normals[f], axis=1))
        for h, (f, v) in zip(case.cell.half_spaces, found.upper, strict=True)
    )
    assert np.linalg.norm(rest) <= 1e-9 * size
    rng = np.random.default_rng(0)
    for direction in rng.normal(size=(8, rows.shape[1])):
        if rows.shape[1]:
            free = [(None, None)] * rows.shape[1]
            corner = linprog(-direction, rows, distance, bounds=free, method="highs")
            assert corner.status == 0
            assert np.linalg.norm(corner.x) <= found.radius * (1 + 1e-6) + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_agrees_with_linear_programs_at_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, equalities, count = int(rng.integers(1, 16)), int(rng.integers(0, 12)), int(rng.integers(0, 80))
    case = make_case(KINDS[seed % 8], seed, width, equalities, count, 1.0)
    rows, distance = rows_of(case.cell)
    assert recession(case.cell).verdict == ("bounded" if bounded_reference(rows) else "unbounded")
    if len(rows):
        reference = chebyshev_reference(rows, distance, LIMIT)
        assert inscribed_ball(case.cell, LIMIT).radius == pytest.approx(reference, abs=1e-6 * max(1.0, reference))


@pytest.mark.parametrize("bias", [0.0, 0.6])
def test_the_working_set_grows_where_it_has_to(bias: float) -> None:
    """More rows than the first working set, many of them leaning one way."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 20)) + bias * np.ones(20)
    slack = np.abs(rng.normal(size=3000)) + 0.1
    slack[rows.sum(axis=1) < 0] += 50.0  # those that bound the cell on one side are far away
    cell = cell_of(20, rng.normal(size=(4, 20)), (1.0, rows, slack))
    plain, distance = rows_of(cell)
    assert recession(cell).verdict == ("bounded" if bounded_reference(plain) else "unbounded")
    reference = chebyshev_reference(plain, distance, 100.0)
    assert inscribed_ball(cell, 100.0).radius == pytest.approx(reference, rel=1e-5)


EYE = np.eye(3)
CUBE = np.concatenate([EYE, -EYE])


@pytest.mark.parametrize(
    ("name", "cell", "inner", "ball", "size"),
    [
        ("a cube", cell_of(3, None, (1.0, CUBE, np.ones(6))), 1.0, 1.0, (3**0.5, 3.0)),
        ("a cube off centre", cell_of(3, None, (1.0, CUBE, np.array([1.0, 1, 1, 3, 3, 3]))), 1.0, 2.0, (27**0.5, 27.0)),
        ("every row twice", cell_of(3, None, (1.0, np.tile(CUBE, (2, 1)), np.ones(12))), 1.0, 1.0, (3**0.5, 3.0)),
        (
            "a simplex: the size is that of its farthest corner",
            cell_of(3, None, (1.0, np.concatenate([EYE, -np.ones((1, 3))]), np.ones(4))),
            3**-0.5,
            4 / (3 + 3**0.5),
            (11**0.5, 11**0.5),
        ),
        ("no slack", cell_of(3, None, (1.0, CUBE, np.zeros(6))), 0.0, 0.0, (0.0, 0.0)),
        ("a slab, cut by an equality", cell_of(3, EYE[:2], (1.0, CUBE, np.ones(6))), 1.0, 1.0, (1.0, 1.0)),
        ("everything held", cell_of(3, EYE), np.inf, np.inf, (0.0, 0.0)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bounded_by_hand(name: str, cell: HeldCell, inner: float, ball: float, size: tuple[float, float]) -> None:
    del name
    assert inner_radius(cell) == pytest.approx(inner)
    assert inscribed_ball(cell, 10.0).radius == pytest.approx(ball, rel=1e-6, abs=1e-9)
    found = recession(cell)
    assert found.verdict == "bounded"
    assert found.radius is not None
    assert size[0] * (1 - 1e-9) <= found.radius <= size[1] * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize(
    ("name", "cell", "still"),
    [
        ("nothing held", cell_of(3), []),
        ("one feature", cell_of(3, None, (1.0, EYE[:1], np.ones(1))), []),
        ("fewer features than dimensions", cell_of(3, None, (1.0, EYE[:2], np.ones(2))), []),
        ("an orthant", cell_of(3, None, (1.0, EYE, np.ones(3))), []),
        ("opposite rows", cell_of(3, None, (1.0, np.stack([EYE[0], -EYE[0], EYE[1]]), np.ones(3))), [0, 1]),
        ("a prism", cell_of(3, None, (1.0, CUBE[[0, 1, 3, 4]], np.ones(4))), [0, 1, 2, 3]),
        ("only rows without a bound", cell_of(3, None, (1.0, CUBE, np.full(6, np.inf))), []),
        ("only zero rows", cell_of(3, None, (1.0, np.zeros((4, 3)), np.zeros(4))), []),
        ("one row, in the equalities' span", cell_of(3, EYE[:1], (1.0, 2 * EYE[:1], np.zeros(1))), []),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_unbounded_by_hand(name: str, cell: HeldCell, still: list[int]) -> None:
    del name
    found = recession(cell)
    assert found.verdict == "unbounded"
    assert found.still.tolist() == still
    assert violation(cell, 1e6 * found.direction, 1e6) <= 1e-12  # type: ignore[operator]


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_order_units_and_rotation_do_not_matter(case: Case, seed: int) -> None:
    rng, cell = np.random.default_rng(seed), case.cell
    rotation = np.linalg.qr(rng.normal(size=(cell.width, cell.width)))[0]
    families = []
    for half in cell.half_spaces:
        order, factor = rng.permutation(len(half.slack)), 2.0 ** rng.integers(-3, 4, size=len(half.slack))
        families.append((half.sign, (half.normals * factor[:, None])[order] @ rotation, (half.slack * factor)[order]))
    signs = rng.choice([-2.0, 0.5, 8.0], size=(len(cell.equal), 1))
    other = cell_of(cell.width, (cell.equal * signs)[::-1] @ rotation, *families)
    assert inner_radius(other) == pytest.approx(inner_radius(cell), rel=1e-7, abs=1e-12)
    first, second = inscribed_ball(cell, LIMIT), inscribed_ball(other, LIMIT)
    if recession(cell).verdict == "bounded" and first.upper < 0.1 * LIMIT:  # the box that keeps others finite turns
        assert second.radius == pytest.approx(first.radius, rel=1e-5, abs=1e-9)
    assert recession(cell).verdict == recession(other).verdict


@given(cases(), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60)
def test_more_half_spaces_shrink_and_more_equalities_do_not(case: Case, seed: int, kept: float) -> None:
    rng, cell = np.random.default_rng(seed), case.cell
    fewer = HeldCell(
        cell.width,
        cell.equal,
        cell.rows,
        tuple(
            HalfSpaces(h.point, h.sign, h.normals, np.where(rng.random(len(h.slack)) < kept, h.slack, np.inf))
            for h in cell.half_spaces
        ),
    )
    assert inner_radius(fewer) >= inner_radius(cell)
    assert inscribed_ball(fewer, LIMIT).upper >= inscribed_ball(cell, LIMIT).radius * (1 - 1e-9)
    loose = cell_of(
        cell.width, cell.equal[: len(cell.equal) // 2], *((h.sign, h.normals, h.slack) for h in cell.half_spaces)
    )
    assert inner_radius(loose) <= inner_radius(cell) * (1 + 1e-9)


@given(cases(), st.sampled_from([1e-12, 1e-3, 1e6]))
@settings(max_examples=40)
def test_scales_with_the_slacks(case: Case, scale: float) -> None:
    cell = case.cell
    wider = cell_of(cell.width, cell.equal, *((h.sign, h.normals, h.slack * scale) for h in cell.half_spaces))
    assert inner_radius(wider) == pytest.approx(inner_radius(cell) * scale, rel=1e-9)
    found, other = recession(cell), recession(wider)
    assert found.verdict == other.verdict
    if found.radius is not None and other.radius is not None:
        assert other.radius == pytest.approx(found.radius * scale, rel=1e-4, abs=1e-12 * scale)
    ball = inscribed_ball(wider, LIMIT * scale)
    assert ball.radius == pytest.approx(inscribed_ball(cell, LIMIT).radius * scale, rel=1e-5, abs=1e-9 * scale)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.inf, np.nan])
def test_a_limit_is_positive_and_finite(limit: float) -> None:
    with pytest.raises(InputError, match="limit"):
        inscribed_ball(cell_of(2), limit)


def test_bad_input() -> None:
    cell = cell_of(2, None, (1.0, np.eye(2), np.array([1.0, -0.5])))
    with pytest.raises(InputError, match="contains zero"):
        inner_radius(cell)
    for g in (np.ones(3), np.array([1.0, np.nan])):
        with pytest.raises(ShapeError):
            thresholds_along(cell_of(2), g)


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_centres_stay_inside(width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    slack = np.abs(rng.normal(size=count)) + 1e-3
    centre = analytic_centre(rows, slack, LIMIT)
    assert (rows @ centre.point < slack).all()
    assert (np.abs(centre.point) < LIMIT).all()
    assert centre.weights == pytest.approx(1.0 / (slack - rows @ centre.point), rel=1e-6)
    inside = chebyshev_centre(rows, slack, LIMIT, 1e-6)
    assert (rows @ inside.point + inside.radius <= slack + 1e-9).all()
    assert inside.radius <= inside.upper
