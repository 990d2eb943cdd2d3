"""The linear worst case: against an interior-point solver, by its own certificate, and by what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.held_cell import HalfSpaces, HeldCell
from sae_verify.geometry.least_norm import least_norm
from sae_verify.geometry.reference import worst_case_reference
from sae_verify.geometry.worst_case import LinearOptimum, worst_case

from .cells import Case, admissible_samples, cases, cell_of, make_case, violation

GAP = 1e-9
"""Of ||g|| r: between the value and the dual value."""
REFERENCE = 2e-7
"""Of ||g|| r: what the interior-point solver leaves, on degenerate instances too."""


def check(case: Case) -> LinearOptimum:
    """Primal feasibility, dual feasibility and no gap: together they prove the optimum, whatever found it."""
    found, unit = worst_case(case.cell, case.g, case.radius), float(np.linalg.norm(case.g)) * case.radius
    if case.radius > 0:
        assert violation(case.cell, found.delta, case.radius) <= 1e-9
    assert found.value == pytest.approx(float(case.g @ found.delta))
    assert -1e-12 * unit <= found.dual - found.value <= GAP * unit
    held, cost = found.equal @ case.cell.equal, 0.0
    for half, (features, values) in zip(case.cell.half_spaces, found.upper, strict=True):
        assert (values >= 0).all()
        held = held + half.sign * values @ half.normals[features]
        cost += float(values @ half.slack[features])
    again = cost + case.radius * float(np.linalg.norm(case.g - held))
    assert again == pytest.approx(found.dual, abs=1e-12 * unit)
    return found


@given(cases())
@settings(max_examples=120)
def test_optimum_is_proven_by_its_own_multipliers(case: Case) -> None:
    check(case)


@given(cases(max_width=6))
@settings(max_examples=40)
def test_agrees_with_the_reference(case: Case) -> None:
    unit = float(np.linalg.norm(case.g)) * case.radius
    reference = worst_case_reference(case.cell, case.g, case.radius)
    assert check(case).value == pytest.approx(reference.value, abs=REFERENCE * unit)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400))
def test_agrees_with_the_reference_at_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = ("random", "integers", "duplicate rows", "in the span", "no slack", "scales", "dependent", "opposite")[
        seed % 8
    ]
    radius = float(10.0 ** rng.choice([-6, -1, 0, 0, 0, 1, 3]))
    width, equalities, rows = int(rng.integers(1, 20)), int(rng.integers(0, 20)), int(rng.integers(0, 60))
    case = make_case(kind, seed, width, equalities, rows, radius)
    unit = float(np.linalg.norm(case.g)) * radius
    assert check(case).value == pytest.approx(worst_case_reference(case.cell, case.g, radius).value, abs=5e-7 * unit)


def case(cell: HeldCell, g: list[float], radius: float) -> Case:
    return Case("by hand", cell, np.array(g, dtype=float), radius)


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("name", "problem", "value"),
    [
        ("nothing held", case(cell_of(3), [3, 4, 0], 2.0), 10.0),
        ("radius zero", case(cell_of(3, None, (1.0, EYE, np.ones(3))), [1, 1, 1], 0.0), 0.0),
        ("no direction", case(cell_of(3), [0, 0, 0], 1.0), 0.0),
        ("full rank", case(cell_of(3, EYE), [1, 2, 3], 1.0), 0.0),
        ("direction held", case(cell_of(3, [[2.0, 2.0, 0.0]]), [1, 1, 0], 1.0), 0.0),
        ("one equality", case(cell_of(3, [[1.0, 0.0, 0.0]]), [5, 3, 4], 1.0), 5.0),
        (
            "the same equality three times",
            case(cell_of(3, [[1.0, 0, 0], [-2, 0, 0], [1e-9, 0, 0]]), [5, 3, 4], 1.0),
            5.0,
        ),
        ("zero equality", case(cell_of(3, [[0.0, 0, 0]]), [0, 3, 4], 1.0), 5.0),
        ("one feature", case(cell_of(1, None, (1.0, np.array([[2.0]]), np.array([1.0]))), [3], 9.0), 1.5),
        (
            "one feature, the other way",
            case(cell_of(1, None, (1.0, np.array([[2.0]]), np.array([1.0]))), [-3], 9.0),
            27.0,
        ),
        ("zero column", case(cell_of(3, None, (1.0, np.zeros((1, 3)), np.zeros(1))), [0, 3, 4], 1.0), 5.0),
        ("a corner, ball inactive", case(cell_of(3, None, (1.0, EYE, np.full(3, 0.5))), [1, 2, 3], 10.0), 3.0),
        ("a corner at a huge radius", case(cell_of(3, None, (1.0, EYE, np.full(3, 0.5))), [1, 2, 3], 1e9), 3.0),
        ("no slack anywhere", case(cell_of(3, None, (1.0, np.vstack([EYE, -EYE]), np.zeros(6))), [1, 2, 3], 1.0), 0.0),
        ("a cone", case(cell_of(3, None, (1.0, EYE, np.zeros(3))), [1, -3, -4], 1.0), 5.0),
        ("an edge and the ball", case(cell_of(2, None, (1.0, np.eye(2), np.array([0.6, 9.0]))), [1, 1e-9], 1.0), 0.6),
        ("more features than room", case(cell_of(1, None, (1.0, np.ones((5, 1)), np.arange(1.0, 6.0))), [1], 9.0), 1.0),
        ("negative sign", case(cell_of(1, None, (-1.0, np.array([[1.0]]), np.array([0.25]))), [-1], 9.0), 0.25),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_by_hand(name: str, problem: Case, value: float) -> None:
    del name
    found = check(problem)
    assert found.value == pytest.approx(value, abs=1e-8 * max(1.0, float(np.linalg.norm(problem.g))))


def test_a_held_feature_with_the_column_of_another_binds_nothing_more() -> None:
    """Regression: a row in the equalities' span has no direction left; its rounding noise was followed as a normal."""
    equal = np.random.default_rng(0).normal(size=(2, 5))
    for factor in (1.0, 3.0, -1.0, 1e-8):
        doubled = cell_of(5, equal, (1.0, factor * equal, np.zeros(2)))
        problem = case(doubled, [1, 2, 3, 4, 5], 1.0)
        assert check(problem).value == pytest.approx(worst_case(cell_of(5, equal), problem.g, 1.0).value, rel=1e-12)


def test_columns_of_very_different_length_leave_no_gap() -> None:
    """Regression: least squares dropped the multipliers of short columns."""
    equal = np.diag([1e-20, 1.0, 1e20, 1e-5])[:3]
    assert check(case(cell_of(4, equal), [1, 1, 1, 1], 1.0)).dual == pytest.approx(1.0, rel=1e-12)


@given(cases(), st.floats(0.0, 1.0))
@settings(max_examples=60)
def test_monotone_and_concave_in_the_radius(case: Case, share: float) -> None:
    unit = 1e-8 * float(np.linalg.norm(case.g)) * case.radius
    low, middle, high = (worst_case(case.cell, case.g, r * case.radius).value for r in (0.5 * share, share, 1.0))
    assert low + unit >= 0
    assert low <= middle + unit
    assert middle <= high + unit
    assert middle >= share * high - unit


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_holding_more_never_helps(case: Case, seed: int) -> None:
    rng, cell = np.random.default_rng(seed), case.cell
    unit = 1e-8 * float(np.linalg.norm(case.g)) * case.radius
    fewer = cell_of(
        cell.width,
        cell.equal[: len(cell.equal) // 2],
        *((h.sign, h.normals, h.slack + rng.random(len(h.slack)) * case.radius) for h in cell.half_spaces),
    )
    assert worst_case(cell, case.g, case.radius).value <= worst_case(fewer, case.g, case.radius).value + unit


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_order_units_and_basis_do_not_matter(case: Case, seed: int) -> None:
    """Features permuted, columns rescaled with their slack, equalities mixed, the whole space rotated."""
    rng, cell = np.random.default_rng(seed), case.cell
    rotation = np.linalg.qr(rng.normal(size=(cell.width, cell.width)))[0]
    signs = rng.choice([-2.0, 0.5, 8.0], size=(len(cell.equal), 1))
    families = []
    for half in cell.half_spaces:
        order, factor = rng.permutation(len(half.slack)), 2.0 ** rng.integers(-3, 4, size=len(half.slack))
        rows = (half.normals * factor[:, None])[order] @ rotation
        families.append((half.sign, rows, (half.slack * factor)[order]))
    other = cell_of(cell.width, (cell.equal * signs)[::-1] @ rotation, *families)
    same = worst_case(cell, case.g, case.radius).value
    unit = 1e-8 * float(np.linalg.norm(case.g)) * case.radius
    assert worst_case(other, case.g @ rotation, case.radius).value == pytest.approx(same, abs=unit)


@given(cases(), st.sampled_from([1e-12, 1e-3, 1e6]))
@settings(max_examples=40)
def test_scales_with_direction_and_units(case: Case, scale: float) -> None:
    found = worst_case(case.cell, case.g, case.radius)
    unit = float(np.linalg.norm(case.g)) * case.radius
    assert worst_case(case.cell, scale * case.g, case.radius).value == pytest.approx(
        scale * found.value, abs=1e-8 * scale * unit
    )
    wider = HeldCell(
        case.cell.width,
        case.cell.equal,
        case.cell.rows,
        tuple(HalfSpaces(h.point, h.sign, h.normals, h.slack * scale) for h in case.cell.half_spaces),
    )
    assert worst_case(wider, case.g, scale * case.radius).value == pytest.approx(
        scale * found.value, abs=1e-8 * scale * unit
    )


@given(cases(radii=(1.0, 10.0)), st.floats(0.05, 0.95))
@settings(max_examples=60)
def test_least_norm_is_the_inverse_of_the_worst_case(case: Case, share: float) -> None:
    top = worst_case(case.cell, case.g, case.radius).value
    unit = float(np.linalg.norm(case.g)) * case.radius
    if top <= 1e-6 * unit:
        return
    level = share * top
    found = least_norm(case.cell, case.g, level, case.radius)
    assert found is not None
    assert case.g @ found == pytest.approx(level, rel=1e-6)
    length = float(np.linalg.norm(found))
    assert violation(case.cell, found, case.radius) <= 1e-9
    assert worst_case(case.cell, case.g, 0.999 * length).value < level
    assert least_norm(case.cell, case.g, level, 0.99 * length) is None
    assert (admissible_samples(case.cell, 0.999 * length, 50, 1) @ case.g).max() < level


def test_least_norm_at_the_edges() -> None:
    cell = cell_of(2, None, (1.0, np.eye(2), np.ones(2)))
    g = np.array([1.0, 0.0])
    assert not least_norm(cell, g, 0.0, 1.0).any()  # type: ignore[union-attr]
    assert least_norm(cell, g, 1.5, 1e9) is None  # the cell ends at 1
    assert least_norm(cell_of(2, np.eye(2)), g, 0.1, 1e9) is None
