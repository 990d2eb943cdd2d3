"""Held cells of several positions as one cell: the perturbation is (delta_1, ..., delta_p), each in its own cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.linalg import block_diag

from sae_verify.geometry.held_cell import HeldCell


def product(cells: Sequence[HeldCell]) -> HeldCell:
    """The product of cells, in the concatenated coordinates; one cell is returned as it is.

    Normals are not copied: a family of half-spaces says where its coordinates start. Equalities, which are few, are
    padded with zeros; the orthonormal basis of their span is that of each cell, side by side.
    """
    if len(cells) == 1:
        return cells[0]
    starts = np.cumsum([0, *(cell.width for cell in cells)]).tolist()
    joint = HeldCell(
        width=starts[-1],
        equal=np.asarray(block_diag(*(cell.equal for cell in cells)), dtype=np.float64),
        rows=tuple(row for cell in cells for row in cell.rows),
        half_spaces=tuple(
            dataclasses.replace(half, start=half.start + start)
            for start, cell in zip(starts, cells, strict=False)
            for half in cell.half_spaces
        ),
    )
    joint.__dict__["basis"] = block_diag(*(cell.basis for cell in cells))  # what the property would find, for less
    return joint
