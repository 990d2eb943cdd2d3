"""From a float vector that is nearly in a held cell and a ball to one that is, as far as floats can say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.worst_case import SPAN

STEP_BACK = 2.0**-40
"""Relative: how far to step back across a boundary that rounding has crossed. Inward only."""


def inside(cell: HeldCell, delta: Array, radius: float, room: float = 0.0) -> Array:
    """`delta` moved until every half-space and the ball hold in floats; the equalities as near as floats go.

    What rounding left outside steps back across its boundary; what is further out is pulled towards zero. A half-space
    whose normal is a combination of the equalities' holds as they do, up to rounding.

    Args:
        cell: the held cell.
        delta: (d,), at most a little outside.
        radius: of the ball; inf for none.
        room: relative to the lengths of normal and delta: how far inside the half-spaces it should end up, at most
            STEP_BACK, so that a proof with rounding finds it inside.
    """
    delta = cell.free_part(delta)
    for _ in range(3):
        columns, excess = _outside(cell, delta, room)
        size = float(np.linalg.norm(delta))
        if not excess.size or excess.max() > 1e-9 * size:
            break
        step = np.linalg.lstsq(columns.T, -excess - 2 * STEP_BACK * size, rcond=1e-12)[0]
        delta = cell.free_part(delta + step)
    for _ in range(4):
        factor = 1.0
        length = float(np.linalg.norm(delta))
        if length > radius:
            factor = radius / length
        for half in cell.half_spaces:
            moved = half.moved(delta)
            tight = np.flatnonzero(moved > half.slack)
            tight = tight[~_in_span(cell, half.wide(tight, cell.width))]
            if tight.size:
                factor = min(factor, float(np.min(half.slack[tight] / moved[tight])))
        if factor == 1.0:
            return delta
        delta = delta * (factor * (1.0 - STEP_BACK))
    return np.zeros_like(delta)


def _outside(cell: HeldCell, delta: Array, room: float) -> tuple[Array, Array]:
    """Projected normals (d, n), of length 1, of the half-spaces that delta is outside of, and by how much, (n,).

    With those that it is just inside of, so that stepping back from some does not cross others; none if it is inside
    all.
    """
    columns, excess = [np.zeros((cell.width, 0))], [np.zeros(0)]
    size = float(np.linalg.norm(delta))
    for half in cell.half_spaces:
        over = half.moved(delta) - half.slack
        rows = np.flatnonzero(over > -STEP_BACK * size * np.linalg.norm(half.normals, axis=1))
        rows = rows[~_in_span(cell, half.wide(rows, cell.width))]
        free = half.sign * cell.free_part(half.wide(rows, cell.width))
        length = np.linalg.norm(free, axis=1)
        columns.append((free / length[:, None]).T)
        excess.append(over[rows] / length)
    gathered = np.concatenate(excess)
    if (gathered <= -room * size).all():
        return columns[0], excess[0]
    return np.concatenate(columns, axis=1), gathered


def _in_span(cell: HeldCell, normals: Array) -> NDArray[np.bool_]:
    """Which normals (n, d) are combinations of the equalities', up to rounding."""
    return np.linalg.norm(cell.free_part(normals), axis=1) <= SPAN * np.linalg.norm(normals, axis=1)
