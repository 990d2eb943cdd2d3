"""Interval arithmetic through blocks, with an l2 length beside every box: the baseline, and the cheapest pass.

After every site a vector is its centre and how far each entry and the whole may be from it; how entries move together
is forgotten. It has no gradient, so nothing can be cut, and a proof is one pass over a ball. Theorem: lowered-degree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sae_verify.bounds.bound import Bound
from sae_verify.bounds.over_ball import of_degree, over_ball
from sae_verify.bounds.through_blocks import LARGEST, MARGIN, ThroughBlocks, linear_radius
from sae_verify.checker.tail.proof import Done
from sae_verify.checker.tail.readout import Functional
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.geometry.instance import Instance

HALVINGS = 5
"""Of the radius, until one pass proves the claim; smaller radii are left to the other methods."""
REFINED = 1
"""Radii between the one that is proved and its double."""


@dataclass(frozen=True)
class Interval:
    """Sound for every tail of known operations; loose from the first block on. Attributes as `ThroughBlocks`."""

    relaxation: Relaxation
    functional: Callable[[int | None], Functional]
    ceiling: float = np.inf

    name = "interval"

    @property
    def _lowest(self) -> Relaxation:
        return of_degree(self.relaxation, 0)

    def applies(self, instance: Instance) -> bool:
        """When there are blocks, and a direction to move in."""
        return instance.blocks_after > 0 and self.relaxation.width > 0

    def bound(self, instance: Instance, radius: float) -> Bound | None:
        """The least value that one pass proves; None if that is none."""
        found = ThroughBlocks(self._lowest, self.functional, ceiling=0.0).bound(instance, radius)
        return None if found is None else replace(found, method=self.name, theorem="lowered-degree")

    def certified(self, instance: Instance) -> Bound | None:
        """The claim at the largest radius, of a few, at which one pass proves it."""
        (member,) = instance.members(1)
        guess = linear_radius(self.relaxation, self.functional(member), instance.tau)
        if guess is None:
            return None
        high = min(LARGEST * guess, self.ceiling)
        tried = (high * 0.5**halving for halving in range(1, HALVINGS + 1))
        low = next((radius for radius in tried if self._proves(instance, member, radius)), None)
        if low is None:
            return None
        step = low
        for _ in range(REFINED):
            step /= 2
            low += step if self._proves(instance, member, low + step) else 0.0
        weight = self.relaxation.weight
        return Bound(self.name, "lowered-degree", low, instance.tau, member, regions=Done(), weight=weight)

    def _proves(self, instance: Instance, member: int | None, radius: float) -> bool:
        bound = over_ball(self._lowest, radius).claim(self.functional(member), instance.tau)
        return bound.top <= -MARGIN * abs(bound.value)
