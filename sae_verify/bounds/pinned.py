"""The trivial certificate: when the held equalities span the residual stream, only delta = 0 is admissible.

Theorem: pinned. It is reported as trivial: it says that the monitor sees everything, nothing about the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.bounds.bound import Bound, Multipliers
from sae_verify.bounds.cap import ROUNDING
from sae_verify.geometry.instance import Instance


@dataclass(frozen=True)
class Pinned:
    """Exact where it applies. Cost: one rank."""

    name = "pinned"

    def applies(self, instance: Instance) -> bool:
        """When the held equalities have full rank and the value at zero is known in closed form."""
        return instance.outer.trivial and instance.blocks_after == 0

    def bound(self, instance: Instance, radius: float) -> Bound:
        """The readout at delta = 0."""
        del radius
        choices = []
        for against in instance.members(8):
            w, constant = instance.functional(against)
            z = instance.final_norm.centre(instance.h)
            rho = np.sqrt(z @ z + len(z) * instance.final_norm.epsilon)
            value = float(w @ z / rho) + constant
            choices.append((value + ROUNDING * (float(np.linalg.norm(w)) + abs(constant)), against))
        value, against = min(choices, key=lambda choice: choice[0])
        cell = instance.outer
        multipliers = Multipliers(
            np.ones(len(cell.rows)), tuple((np.zeros(0, int), np.zeros(0)) for _ in cell.half_spaces)
        )
        return Bound(self.name, "pinned", None, value, against, multipliers)

    def certified(self, instance: Instance) -> Bound | None:
        """The readout at delta = 0, when it meets the claim."""
        found = self.bound(instance, 0.0)
        return found if found.value <= instance.tau else None
