"""The shortest admissible perturbation that raises a linear function to a level.

The largest value p(r) over the cell and the ball of radius r is concave and increasing in r, with slope
||g - W mu - W nu|| at its multipliers (theorem linear-dual), so Newton's method from below never overshoots.
"""

from __future__ import annotations

import numpy as np

from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.worst_case import worst_case

PRECISION = 1e-10
"""Relative: how near the level the search stops. A search tolerance, no part of a proof."""


def least_norm(cell: HeldCell, g: Array, level: float, largest: float) -> Array | None:
    """argmin ||delta|| with g . delta >= level in the cell.

    Args:
        cell: the held cell.
        g: (d,) direction.
        level: positive; at most zero gives zero.
        largest: radius beyond which the search gives up.

    Returns:
        (d,), or None when no such point is shorter than `largest`.
    """
    if level <= 0:
        return np.zeros_like(g)
    length = float(np.linalg.norm(cell.free_part(g)))
    radius = level / length if length > 0 else np.inf
    for _ in range(30):
        if not radius <= largest:
            return None
        found = worst_case(cell, g, radius)
        if found.value >= level * (1.0 - PRECISION):
            return found.delta
        cost = sum(float(w @ half.slack[f]) for (f, w), half in zip(found.upper, cell.half_spaces, strict=True))
        slope = (found.dual - cost) / radius
        if not slope > 0:
            return None
        radius += max((level - found.value) / slope, 1e-12 * radius)
    return None
