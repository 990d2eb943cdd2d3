"""What a bound is, and the one interface that every method has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sae_verify.checker.tail.proof import Node
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.instance import Instance


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Weights of the outer cell's constraints: `equal` (n,) beside `cell.rows`, `upper` per half-space family."""

    equal: Array
    upper: tuple[tuple[Indices, Array], ...]


@dataclass(frozen=True, eq=False)
class Bound:
    """A claimed bound and the evidence from which the checker proves it. The search that found it is not trusted.

    Attributes:
        method: the method's name. theorem: the slug of the theorem that its check states.
        radius: absolute l2 radius, or None when it holds for every radius.
        value: readout <= value for every admissible perturbation.
        against: the member of the readout's family that is bounded; None for a logit difference.
        multipliers: of the held constraints, or None.
        tangent: (d,) or None. secant: positive or None. mean: or None. See theory/03-final-norm.md.
        regions: a tree that proves the bound, or None. See theory/24-through-blocks.md.
        weight: of the drift that confines the perturbation, or zero. See theory/23-drift.md.
    """

    method: str
    theorem: str
    radius: float | None
    value: float
    against: int | None = None
    multipliers: Multipliers | None = None
    tangent: Array | None = field(default=None)
    secant: float | None = None
    mean: float | None = None
    regions: Node | None = None
    weight: float = 0.0


class Method(Protocol):
    """A way to bound the readout from above. Sound: the checker decides; complete or not is the method's business."""

    @property
    def name(self) -> str:
        """As certificates have it."""
        ...

    def applies(self, instance: Instance) -> bool:
        """Whether the method can say anything about this instance."""
        ...

    def bound(self, instance: Instance, radius: float) -> Bound | None:
        """An upper bound of the readout over the held cell and the ball of this absolute radius, if there is one."""
        ...

    def certified(self, instance: Instance) -> Bound | None:
        """A bound that meets the claim, at the largest radius this method can; None when it cannot at any radius."""
        ...
