"""The search through blocks: what more effort or time may change, and what it may not."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sae_verify as sv
from sae_verify.bounds import ThroughBlocks, through_blocks
from sae_verify.bounds.through_blocks import Budget, prove
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.checker.setting import Setting
from sae_verify.checker.tail.proof import verify
from sae_verify.errors import InputError
from sae_verify.geometry.instance import Instance, prepare

CASES = Path(__file__).parents[2] / "examples" / "cases"


@pytest.fixture(scope="module")
def opened() -> tuple[Instance, Setting]:
    problem = sv.load_problem(CASES / "unlearning" / "problem_early.toml")
    problem = dataclasses.replace(problem, prompts=list(problem.prompts)[:1], readout=list(problem.readouts)[:1])
    (instance,) = prepare(problem).instances
    return instance, open_problem(problem, instance, locate_weights(problem))


@pytest.mark.slow
def test_radii_grow_with_time_and_each_is_proved(
    opened: tuple[Instance, Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks whenever it is looked at, so that the machine's speed plays no part."""
    instance, setting = opened
    told: list[float] = []
    once = ThroughBlocks(setting.relaxation, setting.functional, effort=1).certified(instance)
    monkeypatch.setattr(through_blocks, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    longer = ThroughBlocks(setting.relaxation, setting.functional, effort=1, seconds=12, tell=told.append)
    best = longer.certified(instance)
    assert once is not None
    assert once.radius is not None
    assert best is not None
    assert best.radius is not None
    assert best.radius >= once.radius
    assert told[-1] == best.radius
    assert all(a < b for a, b in itertools.pairwise(told))
    assert best.regions is not None
    readout = setting.functional(best.against)
    assert verify(setting.relaxation, readout, best.radius, instance.tau, best.regions) >= 1


def test_one_pass_is_used_as_far_as_it_reaches(opened: tuple[Instance, Setting]) -> None:
    """With effort 1 a pass proves the radius that is found, and none proves one that is a little larger."""
    instance, setting = opened
    found = ThroughBlocks(setting.relaxation, setting.functional, effort=1).certified(instance)
    assert found is not None
    assert found.radius is not None
    readout = setting.functional(found.against)

    def proved(radius: float) -> bool:
        return prove(setting.relaxation, readout, radius, instance.tau, Budget(1)) is not None

    assert proved(found.radius)
    assert not proved(1.06 * found.radius)
    near = dataclasses.replace(ThroughBlocks(setting.relaxation, setting.functional, effort=1), ceiling=found.radius)
    again = near.certified(instance)
    assert again is not None
    assert again.radius is not None
    assert 0.9 * found.radius <= again.radius < found.radius


def test_no_time_ends_at_once_and_no_radius_reaches_the_ceiling(opened: tuple[Instance, Setting]) -> None:
    instance, setting = opened
    method = ThroughBlocks(setting.relaxation, setting.functional, effort=1, seconds=1e-9)
    assert method.certified(instance) is None  # no pass may begin
    low = 1e-3 * float(np.linalg.norm(setting.relaxation.start.mid))
    found = dataclasses.replace(method, seconds=60.0, ceiling=low).certified(instance)
    assert found is not None
    assert found.radius is not None
    assert low / 1.04 < found.radius < low  # it ends when the bracket is narrow, long before the time


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.inf, np.nan])
def test_a_time_that_is_none(seconds: float) -> None:
    problem = sv.load_problem(CASES / "unlearning" / "problem_early.toml")
    with pytest.raises(InputError, match="seconds"):
        next(iter(sv.certify(problem, seconds=seconds)))
