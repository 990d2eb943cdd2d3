"""Linear relaxation through blocks, its size over the l2 ball exact: the quadratic search with models of degree 1.

After every site a model keeps what is linear in the perturbation; curvature becomes a range around its middle. Where
no quadratic form is carried on, a pass is cheaper: by how much, benchmarks/recorded/ says. Theorem: lowered-degree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sae_verify.bounds.bound import Bound
from sae_verify.bounds.over_ball import of_degree
from sae_verify.bounds.through_blocks import ThroughBlocks
from sae_verify.checker.tail.readout import Functional
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.geometry.instance import Instance


@dataclass(frozen=True)
class LinearRelaxation:
    """Sound for every tail of known operations; exact in the limit of small radii. Attributes as `ThroughBlocks`."""

    relaxation: Relaxation
    functional: Callable[[int | None], Functional]
    effort: int = 4
    ceiling: float = np.inf

    name = "linear-relaxation"

    @property
    def _search(self) -> ThroughBlocks:
        return ThroughBlocks(of_degree(self.relaxation, 1), self.functional, self.effort, self.ceiling)

    def applies(self, instance: Instance) -> bool:
        """When there are blocks, and a direction to move in."""
        return self._search.applies(instance)

    def bound(self, instance: Instance, radius: float) -> Bound | None:
        """The least value that one pass proves, or the claim's if more passes prove that; None if nothing is proved."""
        return self._named(self._search.bound(instance, radius))

    def certified(self, instance: Instance) -> Bound | None:
        """The claim at the largest radius for which a proof was found."""
        return self._named(self._search.certified(instance))

    def _named(self, found: Bound | None) -> Bound | None:
        return None if found is None else replace(found, method=self.name, theorem="lowered-degree")
