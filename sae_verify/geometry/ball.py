"""What bounds a perturbation's size: an l2 ball, an l-infinity ball, or the ellipsoid of the SAE's own error term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sae_verify.errors import InputError
from sae_verify.geometry.box import box_worst_cases
from sae_verify.geometry.dictionary import Dictionary
from sae_verify.geometry.ellipsoid import ellipsoid_worst_cases, stretched
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.worst_case import LinearOptimum
from sae_verify.geometry.worst_cases import worst_cases

Norm = Literal["l2", "linf", "ellipsoid"]


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of radius 1; the ellipsoid is {L y : ||y||_2 <= 1}.

    Attributes:
        norm: which one.
        factor: L (d, d) of an ellipsoid, else None.
    """

    norm: Norm = "l2"
    factor: Array | None = None

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"ball {self.norm!r}", rule=f"it is one of {', '.join(get_args(Norm))}")
        if (self.norm == "ellipsoid") != (self.factor is not None):
            raise InputError(f"ball {self.norm!r} with factor {self.factor is not None}", rule="an ellipsoid has one")

    def worst_cases(self, rows: Dictionary, cells: Sequence[HeldCell], g: Array, radii: Array) -> list[LinearOptimum]:
        """max g . delta over each token's cell and this shape times its radius; arguments as `worst_cases`."""
        if self.norm == "linf":
            return box_worst_cases(rows, cells, g, radii)
        if self.factor is not None:
            return ellipsoid_worst_cases(stretched(rows, self.factor), cells, g, radii, self.factor)
        return worst_cases(rows, cells, g, radii)

    def free(self, g: Array) -> float:
        """max g . delta over the shape alone: its dual norm."""
        if self.norm == "linf":
            return float(np.abs(g).sum())
        return float(np.linalg.norm(g if self.factor is None else g @ self.factor))
