"""Interval, linear and quadratic bounds of one real prompt: each is accepted as what it is, and as nothing tighter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import sae_verify as sv
from sae_verify.bounds import Bound, Interval, LinearRelaxation, ThroughBlocks
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.certificates.write import certificate
from sae_verify.checker import Rejected
from sae_verify.checker.bounds import check_bound
from sae_verify.checker.format import BoundStep, parse_certificate
from sae_verify.checker.setting import Setting
from sae_verify.geometry.instance import Instance, prepare
from sae_verify.problem import Problem

CASES = Path(__file__).parents[2] / "examples" / "cases"
METHODS = {"interval": Interval, "linear-relaxation": LinearRelaxation, "through-blocks": ThroughBlocks}
LEVEL = 1e-3
"""Of ||h||: small enough for interval arithmetic to say something."""


@dataclasses.dataclass(frozen=True)
class Opened:
    problem: Problem
    instance: Instance
    setting: Setting
    bounds: dict[str, Bound]

    def step(self, bound: Bound) -> BoundStep:
        """As the checker reads it from a certificate."""
        written = certificate(self.problem, self.instance, locate_weights(self.problem), [bound], [], Path())
        return parse_certificate(written).bounds[0]


@pytest.fixture(scope="module")
def opened() -> Opened:
    problem = sv.load_problem(CASES / "indirect_object" / "problem_early.toml")
    problem = dataclasses.replace(problem, prompts=list(problem.prompts)[:1], readout=list(problem.readouts)[:1])
    (instance,) = prepare(problem).instances
    setting = open_problem(problem, instance, locate_weights(problem))
    radius = LEVEL * instance.norm_h
    bounds = {}
    for name, method in METHODS.items():
        found = method(setting.relaxation, setting.functional, ceiling=0.0).bound(instance, radius)
        assert found is not None
        bounds[name] = found
    return Opened(problem, instance, setting, bounds)


def test_each_is_accepted_and_tighter_than_the_one_before(opened: Opened) -> None:
    values = [opened.bounds[name].value for name in METHODS]
    assert values[0] > values[1] > values[2] > opened.instance.defended
    for name, bound in opened.bounds.items():
        step = opened.step(bound)
        assert step.method == bound.method == name
        check_bound(opened.setting, step)


def test_a_tighter_value_under_the_name_of_a_looser_method_is_rejected(opened: Opened) -> None:
    for looser, tighter in (("interval", "linear-relaxation"), ("linear-relaxation", "through-blocks")):
        claimed = dataclasses.replace(opened.bounds[looser], value=opened.bounds[tighter].value)
        with pytest.raises(Rejected, match="not below the claim"):
            check_bound(opened.setting, opened.step(claimed))


def test_names_theorems_and_radii_that_do_not_belong_together(opened: Opened) -> None:
    linear = opened.step(opened.bounds["linear-relaxation"])
    for change in (
        {"theorem": "through-blocks"},
        {"method": "through-blocks"},
        {"method": "quadratic"},
        {"radius": None},
        {"radius": 1.01 * (linear.radius or 0)},
        {"value": linear.value - 1e-4},
    ):
        with pytest.raises(Rejected):
            check_bound(opened.setting, dataclasses.replace(linear, **change))


def test_an_interval_bound_cannot_be_cut(opened: Opened) -> None:
    """It has no gradient, so no side of a plane is known to be safe."""
    interval = opened.step(opened.bounds["interval"])
    normal = np.eye(len(opened.instance.h))[0].tolist()
    cut = dataclasses.replace(interval, regions={"cut": normal, "then": "done"}, value=interval.value - 0.1)
    with pytest.raises(Rejected, match="wrong side"):
        check_bound(opened.setting, cut)


@pytest.mark.parametrize("method", [Interval, LinearRelaxation])
def test_the_largest_radius_is_proved_and_below_the_ceiling(opened: Opened, method: type) -> None:
    instance, setting = opened.instance, opened.setting
    ceiling = 0.02 * instance.norm_h
    found = method(setting.relaxation, setting.functional, ceiling=ceiling).certified(instance)
    assert found is not None
    assert found.value == instance.tau
    assert 0 < found.radius < ceiling
    check_bound(setting, opened.step(found))
