"""Half-spaces of the held cell within a region: features that are off, and rise by no more than their room.

Theorem: through-blocks (h). Rows and rooms come from the checker's own cell; a proof only names features and gives
multipliers that are not negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..arithmetic import Array, gamma
from ..errors import Rejected
from ..multipliers import Sparse
from .domain import Domain
from .readout import Affine
from .region import Frame, Region
from .sizes import grow, length, lengths

ROUNDING = 2.0**-36
"""Relative: more than the sums of a few thousand products lose."""


@dataclass(frozen=True, eq=False)
class Halves:
    """rows_j . delta <= room_j for every admissible delta.

    Attributes:
        points: where each is held, by name, with its features (n,); rows are in their order, one point after another.
        rows: (n, d). room: (n,) not negative.
    """

    points: Mapping[str, np.ndarray]
    rows: Array
    room: Array

    @property
    def count(self) -> int:
        """n."""
        return len(self.room)

    def find(self, named: Mapping[str, Sparse]) -> tuple[np.ndarray, Array]:
        """Indices of the rows that multipliers belong to, and the multipliers.

        Raises:
            Rejected: a feature has no half-space here, or its multiplier is negative.
        """
        found, start = [np.zeros(0, dtype=np.intp)], 0
        for point, features in self.points.items():
            if point in named:
                wanted = named[point].features
                order = np.argsort(features)
                at = np.minimum(np.searchsorted(features, wanted, sorter=order), len(features) - 1)
                if not (len(features) and (features[order[at]] == wanted).all()):
                    raise Rejected(f"a feature has no half-space at {point}")
                found.append(order[at] + start)
            start += len(features)
        if not set(named) <= set(self.points):
            raise Rejected(f"no half-spaces are held at {sorted(set(named) - set(self.points))}")
        values = np.concatenate([np.zeros(0), *(named[point].values for point in self.points if point in named)])
        if not (values >= 0).all():
            raise Rejected("a half-space has a negative multiplier")
        return np.concatenate(found), values

    def name(self, indices: np.ndarray, values: Array) -> dict[str, Sparse]:
        """The other way round."""
        named, start = {}, 0
        for point, features in self.points.items():
            mine = (indices >= start) & (indices < start + len(features))
            if mine.any():
                named[point] = Sparse(features[indices[mine] - start], values[mine])
            start += len(features)
        return named


def within(rows: Array, room: Array, basis: Array, slip: float, region: Region, frame: Frame) -> tuple[Array, Array]:
    """(C, s) with C t <= s for the frame's coordinates t of every admissible delta of the region.

    delta = B y + x with ||x|| <= slip ||delta||, y = centre + columns t up to the frame's own slip. Rows are (n, d).
    """
    longest, read = 2 * region.radius, rows @ basis  # (n, k)
    size, spread = lengths(rows), length(basis)
    terms = longest + length(frame.centre) + length(frame.columns) * Domain(frame.box.shape[1]).reach
    lost = size * slip * longest + size * spread * frame.slip
    lost = lost + 16 * gamma(len(basis) + 2 * read.shape[1]) * size * spread * terms
    return read @ frame.columns, room - read @ frame.centre + grow(lost) + ROUNDING * np.abs(room)


def weighed(bound: Affine, columns: Array, room: Array, values: Array) -> Affine:
    """The bound, lowered by multipliers (n,) of half-spaces `columns @ t <= room`: valid where those hold.

    Theorem: through-blocks (h). U <= constant + g.t + sum nu_j (s_j - C_j.t).
    """
    gradient = bound.gradient - values @ columns
    size = abs(bound.constant) + float(values @ np.abs(room)) + float(np.abs(bound.gradient).sum())
    size += float(values @ np.abs(columns).sum(axis=1))
    constant = bound.constant + float(values @ room) + float(grow(ROUNDING * size))
    return replace(bound, constant=constant if np.isfinite(constant) else np.inf, gradient=gradient)
