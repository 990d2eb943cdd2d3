"""Which bounds are sought for one prompt, in which order, and which of them are worth a place in the evidence."""

from __future__ import annotations

import numpy as np

from sae_verify.bounds import Bound, Method
from sae_verify.geometry.instance import Instance

OUTWARD = 1e-9
"""Relative. Bounds are sought at a radius this much larger than the problem's, so that it covers the exact one, which
the checker encloses: ||e|| is a difference and known less sharply than ||h||."""


def sought(instance: Instance, methods: tuple[Method, ...], for_radius: tuple[Method, ...]) -> tuple[Bound, ...]:
    """Of each method that applies a bound at the problem's radius, and the claim at a radius by the first that can."""
    radius = instance.radius * (1.0 + OUTWARD)
    found: list[Bound] = []
    for method in methods:
        here = method.bound(instance, radius) if method.applies(instance) else None
        found += [] if here is None else [here]
        if here is not None and here.radius is None and here.value <= instance.tau:
            break  # proven for every radius
    else:
        applicable = (method for method in for_radius if method.applies(instance))
        largest = next((bound for method in applicable if (bound := method.certified(instance)) is not None), None)
        found += [] if largest is None else [largest]
    least = least_value(found, radius)
    # A bound that neither meets the claim nor is the best at the radius would only cost the checker time; nor is one of
    # use that another covers.
    useful = [b for b in found if b.value <= max(least, instance.tau)]
    return tuple(b for b in useful if not any(_better(other, b) for other in useful))


def least_value(bounds: tuple[Bound, ...] | list[Bound], radius: float) -> float:
    """The least bound at the radius; infinity where there is none."""
    return min((b.value for b in bounds if b.radius is None or b.radius >= radius), default=np.inf)


def certified_radius(bounds: tuple[Bound, ...], tau: float) -> float:
    """The largest radius for which the claim is proved; infinity for every one."""
    return max((np.inf if b.radius is None else b.radius for b in bounds if b.value <= tau), default=0.0)


def _better(a: Bound, b: Bound) -> bool:
    """Whether a says all that b does, and more."""
    a_reach, b_reach = (np.inf if bound.radius is None else bound.radius for bound in (a, b))
    return a_reach >= b_reach and a.value <= b.value and (a_reach, -a.value) != (b_reach, -b.value)
