"""Parts of a ball, {y : ||y|| <= radius, low <= axes^T y <= high}, and the boxes times balls that contain them.

Theorem: region-cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..arithmetic import Array, gamma
from ..errors import Rejected
from .sizes import grow, length, lengths

LEAST_ANGLE = 0.3
"""An older axis whose part across the newer ones is shorter than this is dropped: it would say next to nothing."""
WORTHWHILE = 1.6
"""An axis along which more than this part of the radius is left is dropped."""


@dataclass(frozen=True, eq=False)
class Frame:
    """y = centre + box t + ball p with t in [-1, 1]^m and ||p|| <= 1, up to `slip` in norm, covers the region.

    Attributes:
        centre: (k,). box: (k, m). ball: (k, k - m). slip: rounding, in the units of y.
    """

    centre: Array
    box: Array
    ball: Array
    slip: float

    @property
    def columns(self) -> Array:
        """(k, k): the box's, then the ball's."""
        return np.concatenate([self.box, self.ball], axis=1)


@dataclass(frozen=True, eq=False)
class Region:
    """See the module.

    Attributes:
        radius: of the ball. axes: (k, m) nearly orthonormal floats. low, high: (m,).
    """

    radius: float
    axes: Array
    low: Array
    high: Array

    @classmethod
    def whole(cls, width: int, radius: float) -> Region:
        """The ball."""
        return cls(radius, np.zeros((width, 0)), np.zeros(0), np.zeros(0))

    def frame(self) -> Frame | None:
        """A box times a ball that contains the region; None when the region is proven to be empty."""
        k, m = self.axes.shape
        if m > k:
            raise Rejected(f"{m} axes in {k} dimensions")
        rest = np.linalg.qr(np.concatenate([self.axes, np.eye(k)], axis=1))[0][:, m:k] if m else np.eye(k)
        basis = np.concatenate([self.axes, rest], axis=1)
        # y = O t with t = O^-1 y, and O^-1 is nearly O^T.
        skew = float(grow(length(basis.T @ basis - np.eye(k)) + gamma(k) * length(basis) ** 2)) if m else 0.0
        if not skew < 0.1:
            raise Rejected("the axes of a region are not orthonormal")
        reach = float(grow(self.radius * (1 + 2 * skew)))
        low = np.maximum(self.low - 4 * skew * self.radius, -reach)
        high = np.minimum(self.high + 4 * skew * self.radius, reach)
        if bool((low > high).any()):
            return None
        inner = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
        # In units of the reach, whose own square may overflow or vanish.
        left = 1 + 2.0**-40 - float(np.square(inner / reach).sum()) * (1 - 2.0**-40)
        if left < 0:
            return None
        slip = 16 * gamma(k) * reach * (m + 2)
        middle, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
        return Frame(self.axes @ middle, self.axes * grow(half), rest * float(grow(reach * np.sqrt(left))), float(slip))

    def cut(self, normal: Array, least: float) -> Region:
        """The part where normal.y >= least; `normal` (k,) of length near 1 becomes the first axis.

        The other axes are turned to be orthogonal to it, and what they said of y is carried over by interval
        arithmetic; those that would say little are dropped.
        """
        axes, low, high = [normal], [least], [self.radius * float(lengths(normal[None])[0])]
        for axis, floor, ceiling in zip(self.axes.T, self.low, self.high, strict=True):
            against = np.stack(axes, axis=1)
            shares = against.T @ axis
            across = axis - against @ shares
            size = float(np.linalg.norm(across))
            if size < LEAST_ANGLE:
                continue
            turned = across / size
            # axis.y = shares.(axes.y) + size turned.y + (a rounding).y
            lost = length(axis - against @ shares - size * turned) + 8 * gamma(len(axis)) * (1 + len(axes))
            ends = np.stack([shares * np.array(low), shares * np.array(high)])
            slack = float(grow(lost * self.radius)) + 2.0**-40 * float(np.abs(ends).sum() + abs(floor) + abs(ceiling))
            bottom = (floor - float(ends.max(axis=0).sum()) - slack) / size
            top = (ceiling - float(ends.min(axis=0).sum()) + slack) / size
            bottom, top = bottom - 2.0**-40 * abs(bottom), top + 2.0**-40 * abs(top)
            bottom, top = max(bottom, -self.radius * (1 + 2.0**-20)), min(top, self.radius * (1 + 2.0**-20))
            if top - bottom > WORTHWHILE * self.radius:
                continue
            axes.append(turned)
            low.append(bottom)
            high.append(top)
        return Region(self.radius, np.stack(axes, axis=1), np.array(low), np.array(high))

    def split(self, axis: int, at: tuple[float, ...]) -> tuple[Region, ...]:
        """The parts between consecutive points of an axis, the outermost reaching to its ends."""
        ends = (float(self.low[axis]), *at, float(self.high[axis]))
        parts = []
        for bottom, top in pairwise(ends):
            low, high = self.low.copy(), self.high.copy()
            low[axis], high[axis] = bottom, top
            parts.append(Region(self.radius, self.axes, low, high))
        return tuple(parts)

    def with_axis(self, normal: Array) -> Region:
        """The same region with one more axis, which says nothing yet; `normal` nearly orthonormal to the others."""
        ends = self.radius * float(lengths(normal[None])[0])
        return Region(
            self.radius,
            np.concatenate([self.axes, normal[:, None]], axis=1),
            np.append(self.low, -ends),
            np.append(self.high, ends),
        )
