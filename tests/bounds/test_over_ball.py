"""Models over whole balls that a search keeps: made once while they are kept, and the same as a pass of their own."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from sae_verify.bounds.over_ball import KEPT, is_kept, kept_radii, of_degree, over_ball, over_region
from sae_verify.bounds.through_blocks import Budget, linear_radius, prove
from sae_verify.checker.tail.region import Frame, Region
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.checker.tail.taylor import Taylor
from tests.checker.tail.enclosure import FAMILIES
from tests.checker.tail.test_sandwich import make


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The radii of all passes that are made."""
    made: list[float] = []
    resid = Relaxation.resid

    def counted(self: Relaxation, region: Region, frame: Frame) -> Taylor:
        made.append(region.radius)
        return resid(self, region, frame)

    monkeypatch.setattr(Relaxation, "resid", counted)
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_what_is_kept_says_what_a_pass_says(family: str, degree: int) -> None:
    case = make(3, family, 1)
    relaxation = of_degree(case.relaxation, degree)
    for radius in (0.1, 0.2, 0.1):
        region = relaxation.ball(radius)
        frame = region.frame()
        assert frame is not None
        for tau in (0.0, 1.0):
            afresh, kept = relaxation.bound(region, frame, case.readout, tau), over_ball(relaxation, radius)
            assert kept.claim(case.readout, tau).top == afresh.top
            assert kept.region.radius == region.radius


def test_the_latest_are_kept_and_what_is_held(passes: list[float]) -> None:
    relaxation = make(0, "gpt2", 1).relaxation
    first, *others = [0.1 * (i + 1) for i in range(KEPT + 1)]
    held = over_ball(relaxation, first)
    for radius in (*others, *others):
        over_ball(relaxation, radius)
    assert len(passes) == KEPT + 1
    assert kept_radii(relaxation) == (*reversed(others), first)
    assert over_ball(relaxation, first) is held
    del held
    for radius in others:  # the latest are others now
        over_ball(relaxation, 10 * radius)
    assert not is_kept(relaxation, first)


def test_nothing_is_kept_of_what_is_gone() -> None:
    relaxation = make(0, "gpt2", 1).relaxation
    model, lowered = weakref.ref(over_ball(relaxation, 0.1)), weakref.ref(of_degree(relaxation, 1))
    assert of_degree(relaxation, 1) is lowered()
    del relaxation
    gc.collect()
    assert model() is None
    assert lowered() is None


def test_an_empty_region_has_no_model_and_needs_no_pass(passes: list[float]) -> None:
    relaxation = make(0, "gpt2", 1).relaxation
    half = relaxation.ball(1.0).cut(np.eye(relaxation.width)[0], 0.9)
    assert over_region(relaxation, replace(half, low=np.array([2.0]))) is None
    assert not passes


def test_a_proof_counts_only_the_passes_that_are_made(passes: list[float]) -> None:
    case = make(1, "llama", 1)
    tau = case.value() + 0.1
    radius = 0.3 * (linear_radius(case.relaxation, case.readout, tau) or 1.0)
    passes.clear()
    assert prove(case.relaxation, case.readout, radius, tau, Budget(0)) is None
    assert not passes
    assert prove(case.relaxation, case.readout, radius, tau, Budget(1)) is not None
    assert prove(case.relaxation, case.readout, radius, tau, Budget(0)) is not None  # kept
    assert len(passes) == 1
