"""Projection of many points onto the held cells and balls of a batch: exact, and cheap where no half-space binds.

The nearest point of the equalities' null space and the ball is a matrix product. Where it also satisfies the
half-spaces, it is the projection onto everything; only the others go to the active-set solver.
"""

from __future__ import annotations

import numpy as np

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.worst_case import inside, project


def project_batch(batch: Batch, points: Array, radii: Array) -> Array:
    """Feasible points nearest to `points`.

    Args:
        batch: B prompts, each with its own inner cell.
        points: (B, R, d).
        radii: (B,) l2 radii.

    Returns:
        (B, R, d): every half-space and ball holds in floats, equalities up to rounding.

    """
    result = np.empty_like(points)
    for b, instance in enumerate(batch.instances):
        cell, radius = instance.inner, float(radii[b])
        free = cell.free_part(points[b])  # (R, d)
        length = np.linalg.norm(free, axis=1, keepdims=True)
        shrunk = free * np.minimum(1.0, radius / np.maximum(length, 1e-300))
        outside = np.zeros(len(shrunk), dtype=bool)
        for half in cell.half_spaces:
            outside |= (half.sign * (shrunk @ half.normals.T) > half.slack).any(axis=1)
        for r in np.flatnonzero(outside):
            shrunk[r] = inside(cell, project(cell, points[b, r], radius), radius)
        result[b] = shrunk
    return result
