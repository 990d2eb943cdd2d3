"""A bound through blocks for every radius: where the held cell is bounded, the bound at its size is one for all.

Theorem: every-radius, (a). The multipliers that bound the cell are found in floats; the checker proves the size from
them, and the claim by a tree of regions over the ball of that size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.bounds.bound import Bound, Multipliers
from sae_verify.bounds.through_blocks import LARGEST, Budget, linear_radius, prove
from sae_verify.checker import Rejected
from sae_verify.checker.multipliers import Multipliers as Evidence
from sae_verify.checker.setting import Setting
from sae_verify.checker.statements.cell_bounded import proven_size
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.held_cell import HeldCell
from sae_verify.geometry.instance import Instance


@dataclass(frozen=True)
class EveryRadius:
    """Sound for every bounded cell. Cost: whether the cell is bounded, and `effort` passes where it is small enough.

    Attributes:
        setting: the checker's view of the prompt.
        evidence: writes multipliers of the instance's outer cell in the checker's form.
        effort: passes through the blocks. ceiling: length of a known recovery, or infinity.
    """

    setting: Setting
    evidence: Callable[[Multipliers, HeldCell], Evidence]
    effort: int = 12
    ceiling: float = np.inf

    name = "through-blocks"

    def applies(self, instance: Instance) -> bool:
        """When features are held exactly, at one position and one point, and something is free."""
        cell = self.setting.cell
        held = cell.held in ("code", "defended") and len(cell.points) == 1 and len(self.setting.places) == 1
        return instance.blocks_after > 0 and held and self.setting.relaxation.width > 0

    def bound(self, instance: Instance, radius: float) -> Bound | None:
        """The claim for every radius; None where it is not proved."""
        del radius
        return self.certified(instance)

    def certified(self, instance: Instance) -> Bound | None:
        """The same."""
        found = recession(instance.outer)
        if found.verdict != "bounded":
            return None
        multipliers = Multipliers(found.equal, found.upper)
        try:
            with np.errstate(all="ignore"):
                size = proven_size(self.setting.cell, self.evidence(multipliers, instance.outer))
        except Rejected:
            return None
        if not size < self.ceiling:
            return None
        relaxation, tau = self.setting.relaxation, instance.tau
        for member in instance.members(2):
            functional = self.setting.functional(member)
            guess = linear_radius(relaxation, functional, tau)
            if guess is None or size > LARGEST * guess:
                continue
            proof = prove(relaxation, functional, size, tau, Budget(self.effort))
            if proof is not None:
                return Bound(self.name, "through-blocks", None, tau, member, multipliers, regions=proof)
        return None
