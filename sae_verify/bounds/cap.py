"""The cap that holds for every tail and every radius: a normalised residual is shorter than sqrt(d).

Theorem: all-radius-cap. readout <= sqrt(d) ||P(gamma * (U_a - U_b))|| + beta . (U_a - U_b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.bounds.bound import Bound
from sae_verify.geometry.instance import Instance

ROUNDING = 1e-12
"""Relative amount by which a searched value is raised, so that its check does not fail on rounding. Upward only."""


@dataclass(frozen=True)
class Cap:
    """Sound for every architecture that ends in a normalisation and a linear map. Cost: one norm."""

    name = "cap"

    def applies(self, instance: Instance) -> bool:
        """Always."""
        del instance
        return True

    def bound(self, instance: Instance, radius: float) -> Bound:
        """The cap; the radius plays no part."""
        del radius
        choices = []
        for against in instance.members(8):
            w, constant = instance.functional(against)
            length = float(np.linalg.norm(w))
            choices.append((length + constant + ROUNDING * (length + abs(constant)), against))
        value, against = min(choices, key=lambda choice: choice[0])
        return Bound(self.name, "all-radius-cap", None, value, against)

    def certified(self, instance: Instance) -> Bound | None:
        """The cap, when it meets the claim."""
        found = self.bound(instance, 0.0)
        return found if found.value <= instance.tau else None
