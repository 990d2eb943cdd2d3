"""Which bounds are sought for one prompt, in which order, and which of them are worth a place in the evidence."""

from __future__ import annotations

from itertools import islice

import numpy as np

from sae_verify.bounds import Bound, Method
from sae_verify.geometry.instance import Instance

OUTWARD = 1e-9
"""Relative. Bounds are sought at a radius this much larger than the problem's, so that it covers the exact one, which
the checker encloses: ||e|| is a difference and known less sharply than ||h||."""


def sought(instance: Instance, methods: tuple[Method, ...], for_radius: tuple[Method, ...]) -> tuple[Bound, ...]:
    """Of each method that applies a bound at the problem's radius, and the claim at a radius by the first that can."""
    return useful(instance, largest(instance, at_radius(instance, methods), for_radius))


def at_radius(instance: Instance, methods: tuple[Method, ...]) -> tuple[Bound, ...]:
    """Of each method that applies a bound at the problem's radius, until one proves the claim for every radius."""
    radius = instance.radius * (1.0 + OUTWARD)
    found: list[Bound] = []
    for method in methods:
        here = method.bound(instance, radius) if method.applies(instance) else None
        found += [] if here is None else [here]
        if _everywhere(instance, here):
            break
    return tuple(found)


def largest(instance: Instance, found: tuple[Bound, ...], methods: tuple[Method, ...]) -> tuple[Bound, ...]:
    """The bounds, and with them the claim at the largest radius that the first method proves which proves one."""
    if any(_everywhere(instance, bound) for bound in found):
        return found
    certified = (method.certified(instance) for method in methods if method.applies(instance))
    return (*found, *islice((bound for bound in certified if bound is not None), 1))


def _everywhere(instance: Instance, bound: Bound | None) -> bool:
    """Whether a bound proves the claim for every radius."""
    return bound is not None and bound.radius is None and bound.value <= instance.tau


def useful(instance: Instance, found: tuple[Bound, ...]) -> tuple[Bound, ...]:
    """Those that meet the claim or are the least at the radius, and that no other covers; more only costs checking."""
    least = least_value(found, instance.radius * (1.0 + OUTWARD))
    good = [b for b in found if b.value <= max(least, instance.tau)]
    return tuple(b for b in good if not any(_better(other, b) for other in good))


def least_value(bounds: tuple[Bound, ...], radius: float) -> float:
    """The least bound at the radius; infinity where there is none."""
    return min((b.value for b in bounds if b.radius is None or b.radius >= radius), default=np.inf)


def certified_radius(bounds: tuple[Bound, ...], tau: float) -> float:
    """The largest radius for which the claim is proved; infinity for every one."""
    return max((np.inf if b.radius is None else b.radius for b in bounds if b.value <= tau), default=0.0)


def _better(a: Bound, b: Bound) -> bool:
    """Whether a says all that b does, and more."""
    a_reach, b_reach = (np.inf if bound.radius is None else bound.radius for bound in (a, b))
    return a_reach >= b_reach and a.value <= b.value and (a_reach, -a.value) != (b_reach, -b.value)
