"""Ellipsoids of the SAE's own error term, and the linear worst case over a held cell and an ellipsoid.

The set is {L y : ||y||_2 <= radius}. In y everything is an l2 ball: g becomes L^T g and a row w becomes L^T w, with the
same slack, so multipliers carry over unchanged (theorem: linear-dual; the residual's norm is ||L^T (g - ...)||).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.dictionary import BLOCK, Dictionary, dictionary
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.worst_case import LinearOptimum, worst_case
from sae_verify.geometry.worst_cases import worst_cases
from sae_verify.sae.base import SAE

SHRINK = 0.01
"""Share of the mean variance that is mixed into the covariance, lest few activations flatten the ellipsoid."""


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """The shape of an SAE's error term, in units of its own spread.

    Attributes:
        factor: L (d, d), lower triangular, L L^T the (shrunk) second moment of the error term.
        typical: median of ||L^-1 e|| over the activations it was estimated from; about sqrt(d).
        count: how many those were.
    """

    factor: Array
    typical: float
    count: int


def error_ellipsoid(sae: SAE, activations: torch.Tensor, shrink: float = SHRINK) -> Ellipsoid:
    """Estimate the ellipsoid of e = x - D(E(x)) from activations (n, d). Cost: one pass of the SAE, O(n d^2).

    Raises:
        InputError: there is no activation, the shrinkage is not in (0, 1], or the SAE has no error on them.
        ShapeError: the width is not the SAE's.
    """
    if activations.ndim != 2 or activations.shape[1] != sae.d_in:
        raise ShapeError(f"activations of shape {tuple(activations.shape)}", rule=f"they must be (n, {sae.d_in})")
    if not len(activations) or not 0 < shrink <= 1:
        raise InputError(
            f"{len(activations)} activations, shrinkage {shrink}", rule="at least one activation, and 0 < shrink <= 1"
        )
    error = torch.cat([sae.error(block).double() for block in activations.split(1024)]).numpy()  # (n, d)
    moment = error.T @ error / len(error)
    variance = float(np.trace(moment)) / sae.d_in
    if not np.isfinite(variance) or variance <= 0:
        raise InputError(f"the error term's mean variance is {variance}", rule="an ellipsoid needs an error term")
    factor: Array = np.linalg.cholesky((1.0 - shrink) * moment + shrink * variance * np.eye(sae.d_in)).astype(
        np.float64
    )
    lengths = np.linalg.norm(np.linalg.solve(factor, error.T), axis=0)
    return Ellipsoid(factor, float(np.median(lengths)), len(error))


def stretched(rows: Dictionary, factor: Array) -> Dictionary:
    """The dictionary of rows w_j L. Cost: m d^2 operations once, and one float64 copy of the weights."""
    result = np.empty((len(rows), rows.width))
    for start in range(0, len(rows), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(rows)))
        result[block] = rows.gather(block) @ factor
    return dictionary(torch.from_numpy(result))


def ellipsoid_worst_cases(
    rows: Dictionary, cells: Sequence[HeldCell], g: Array, radii: Array, factor: Array
) -> list[LinearOptimum]:
    """`worst_cases` over {L y : ||y|| <= radius}; `rows` are already stretched by L."""
    inner = [dataclasses.replace(cell, equal=cell.equal @ factor) for cell in cells]
    return [_outside(found, factor) for found in worst_cases(rows, inner, g @ factor, radii)]


def ellipsoid_worst_case(cell: HeldCell, g: Array, radius: float, factor: Array) -> LinearOptimum:
    """The same for one token, with every half-space."""
    families = tuple(dataclasses.replace(half, normals=half.normals @ factor) for half in cell.half_spaces)
    inner = HeldCell(cell.width, cell.equal @ factor, cell.rows, families)
    return _outside(worst_case(inner, g @ factor, radius), factor)


def _outside(found: LinearOptimum, factor: Array) -> LinearOptimum:
    return dataclasses.replace(found, delta=factor @ found.delta)
