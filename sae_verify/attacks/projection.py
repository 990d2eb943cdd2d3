"""Projection of many points onto the held cells and balls of a batch: exact, and cheap where no half-space binds.

The nearest point of the equalities' null space and the ball is a matrix product. Where it also satisfies the
half-spaces, it is the projection onto everything; only the others go to the active-set solver.
"""

from __future__ import annotations

import numpy as np

from sae_verify.attacks.drift import drawn_in
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.inside import inside
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.worst_case import project


def project_batch(batch: Batch, points: Array, radii: Array) -> Array:
    """Feasible points nearest to `points`.

    Args:
        batch: B prompts, each with its own inner cell.
        points: (B, R, d).
        radii: (B,) l2 radii.

    Returns:
        (B, R, d): every half-space and ball holds in floats, equalities up to rounding. Where the code may drift,
        points in the ball that drift as far as they may, but not the nearest ones.
    """
    cells = [instance.inner for instance in batch.instances]
    basis = _padded([cell.basis for cell in cells])  # (B, d, rank)
    shrunk = points
    for _ in range(2 if basis.shape[2] else 0):  # twice, against cancellation
        shrunk = shrunk - (shrunk @ basis) @ basis.transpose(0, 2, 1)
    length = np.linalg.norm(shrunk, axis=2, keepdims=True)
    share = radii[:, None, None] / np.maximum(length, 1e-300)
    shrunk = shrunk * np.where(share < 1.0, share * (1.0 - 2.0**-50), 1.0)  # in the ball in floats too
    outside = np.zeros(shrunk.shape[:2], dtype=bool)
    for families in zip(*(cell.half_spaces for cell in cells), strict=True):
        first = families[0]
        if all(half.features is None for half in families):  # the encoder columns, the same for every prompt
            slack = np.stack([half.slack for half in families])[:, None]  # (B, 1, d_sae)
            outside |= (first.moved(shrunk) > slack).any(axis=2)
            continue
        for b, half in enumerate(families):
            outside[b] |= (half.moved(shrunk[b]) > half.slack).any(axis=1)
    for b, r in zip(*np.nonzero(outside), strict=True):
        shrunk[b, r] = inside(cells[b], project(cells[b], points[b, r], float(radii[b])), float(radii[b]))
    if batch.problem.threat.held != "drift":
        return shrunk
    length = np.linalg.norm(points, axis=2, keepdims=True)
    share = np.minimum(1.0, radii[:, None, None] / np.maximum(length, 1e-300) * (1.0 - 2.0**-50))
    return drawn_in(batch, points * share, shrunk)  # the inner cell is where nothing drifts


def _padded(bases: list[Array]) -> Array:
    """Bases of different ranks side by side, (B, d, largest rank), filled with zero columns."""
    result = np.zeros((len(bases), bases[0].shape[0], max(basis.shape[1] for basis in bases)))
    for row, basis in zip(result, bases, strict=True):
        row[:, : basis.shape[1]] = basis
    return result
