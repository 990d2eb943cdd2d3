"""The curve p*(r): its two sides enclose every worst case, and it has the shape that theory says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.errors import InputError
from sae_verify.geometry.curve import curve, free_until
from sae_verify.geometry.dictionary import dictionary, encoder
from sae_verify.geometry.held_cell import held_cell
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import ErrorBall
from sae_verify.testing import synthetic

from .cells import Case, cases
from .test_worst_cases import batch


@given(cases(radii=(1.0,)), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4))
@settings(max_examples=60)
def test_encloses_the_worst_case_at_every_radius(case: Case, shares: list[float]) -> None:
    rows, (cell,), _, _ = batch([case], torch.float32)
    largest = 3.0
    found = curve(rows, cell, case.g, largest, gap=1e-2)
    unit = 1e-8 * float(np.linalg.norm(case.g)) * largest
    for share in shares:
        exact = worst_case(case.cell, case.g, share * largest).value
        radius = np.array([share * largest])
        assert found.lower(radius)[0] - unit <= exact <= found.upper(radius)[0] + unit
    assert found.gap <= 1e-2 or found.values[-1] <= unit
    assert (np.diff(found.values) >= -unit).all()


@given(cases(radii=(1.0,)))
@settings(max_examples=40)
def test_exact_up_to_the_first_threshold(case: Case) -> None:
    free = free_until(case.cell, case.g)
    steep = float(np.linalg.norm(case.cell.free_part(case.g)))
    for radius in (0.5 * min(free, 4.0), min(free, 4.0)):
        if radius > 0 and steep > 1e-9:
            found = worst_case(case.cell, case.g, radius)
            assert found.value == pytest.approx(radius * steep, rel=1e-9)
    beyond = 2.0 * free + 1e-6
    if free < 1e3 and steep > 1e-9:
        assert worst_case(case.cell, case.g, beyond).value <= beyond * steep * (1 + 1e-12)


def test_a_synthetic_dictionary() -> None:
    made = synthetic(48, 600, 1, active=12, seed=1)
    wide = made.sae.to(torch.float64)
    threat = ErrorBall(0.1, "absolute", "code", "x")
    cell = held_cell(wide, threat, (), made.x[0], made.x[0], "outer")
    size = float(np.linalg.norm(made.x[0]))
    found = curve(encoder(made.sae), cell, made.g[0], size, gap=1e-3)
    assert found.gap <= 1e-3
    assert 0 < found.free_until < size
    for share in (0.05, 0.33, 0.9):
        exact = worst_case(cell, made.g[0], share * size).value
        assert found.lower(np.array([share * size]))[0] <= exact * (1 + 1e-9)
        assert found.upper(np.array([share * size]))[0] >= exact * (1 - 1e-9)
        assert (
            found.upper(np.array([share * size]))[0] - found.lower(np.array([share * size]))[0] <= 1e-3 * exact / share
        )


def test_bad_input() -> None:
    rows = dictionary(torch.ones(3, 4))
    made = synthetic(4, 3, 1, active=1)
    cell = held_cell(
        made.sae.to(torch.float64), ErrorBall(0.1, "absolute", "free", "x"), (), made.x[0], made.x[0], "outer"
    )
    for largest, gap in ((0.0, 0.1), (np.inf, 0.1), (1.0, 0.0), (float("nan"), 0.1)):
        with pytest.raises(InputError, match="positive"):
            curve(rows, cell, made.g[0], largest, gap)
