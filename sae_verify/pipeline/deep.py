"""Bounds that cost passes through blocks, of one prompt, and why they are as loose as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sae_verify import checker
from sae_verify.bounds import Bound, EveryRadius, Interval, LinearRelaxation, Method, ThroughBlocks
from sae_verify.bounds.confined import confined
from sae_verify.bounds.diagnosis import Diagnosis, diagnose
from sae_verify.bounds.over_ball import over_ball
from sae_verify.certificates import Weights, open_problem
from sae_verify.certificates.multipliers import evidence
from sae_verify.geometry.instance import Instance
from sae_verify.pipeline.sought import OUTWARD, at_radius, largest, least_value, useful
from sae_verify.problem import Problem

EFFORT = 12
"""Passes through the blocks for each bound."""
LINEAR_EFFORT = 2
"""Most passes for each linear bound: quadratic models make better use of more."""


@dataclass(frozen=True)
class Deep:
    """What passes through the blocks found.

    Attributes:
        bounds: all that say something.
        missing: why there are none, where the checker cannot follow.
        diagnosis: what loses most, where neither a bound nor an attack decides.
    """

    bounds: tuple[Bound, ...] = ()
    missing: str = ""
    diagnosis: Diagnosis | None = None


DeepBounds = Callable[[Instance, float, Callable[[float], None]], Deep]
"""Of one prompt, from the length of its shortest known recovery; the last argument is told each radius proved."""


def nothing_deep(instance: Instance, shortest: float, tell: Callable[[float], None]) -> Deep:
    """No pass through any block."""
    del instance, shortest, tell
    return Deep()


def through_blocks(problem: Problem, weights: Weights, effort: int, seconds: float | None) -> DeepBounds:
    """Bounds that see what the checker will see; none where no block follows the hook."""

    def bounds(instance: Instance, shortest: float, tell: Callable[[float], None]) -> Deep:
        if instance.blocks_after == 0:
            return Deep()
        try:
            setting = open_problem(problem, instance, weights)
            ceiling = shortest * (1.0 - OUTWARD)
            relaxation = confined(setting, instance, ceiling)
            everywhere: Method = EveryRadius(setting, evidence, effort, ceiling)
            interval: Method = Interval(relaxation, setting.functional, ceiling)
            linear: Method = LinearRelaxation(relaxation, setting.functional, min(effort, LINEAR_EFFORT), ceiling)
            quadratic: Method = ThroughBlocks(relaxation, setting.functional, effort, ceiling, seconds, tell)
        except checker.Rejected as missing:
            return Deep(missing=str(missing))  # the attack and the cap stand without it
        here = at_radius(instance, (everywhere, interval, linear, quadratic))
        radius = instance.radius * (1.0 + OUTWARD)
        undecided = shortest > instance.radius and least_value(here, radius) > instance.tau
        held = over_ball(relaxation, radius) if undecided else None  # the diagnosis comes back to it
        # For the largest radius the strongest first: where it finds one, a cheaper method has nothing to add.
        found = useful(instance, largest(instance, here, (quadratic, linear, interval)))
        if held is None:
            return Deep(found)
        functional = setting.functional(instance.members(1)[0])
        return Deep(found, diagnosis=diagnose(relaxation, functional, radius, instance.tau))

    return bounds
