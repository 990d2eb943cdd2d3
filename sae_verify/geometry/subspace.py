"""The span of decoder rows or encoder columns, what lies outside it, and how two subspaces stand to each other.

Theorem: decoder-blindness. Outside the decoder's span lies what no setting of the features can produce or cancel;
outside the encoder's, what the features cannot see. Numerical, at an explicit threshold: certified statements are in
`rank` and `spectral_gap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import Features, Matrix, Rows, Source, largest, select
from sae_verify.geometry.spectrum import RELATIVE, spectrum

ORTHONORMAL = 1e-8
"""Largest entry of `basis.T @ basis - I` that is taken for a basis: above the rounding of any factorisation, and far
below what a forgotten normalisation leaves."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """A subspace of R^d.

    Attributes:
        basis: (d, k) orthonormal columns; k = 0 for the zero space, k = d for the whole.

    Raises:
        ShapeError: the basis is not (d, k) with d >= k.
        InputError: its columns are not orthonormal.
    """

    basis: Array

    def __post_init__(self) -> None:
        if self.basis.ndim != 2 or self.basis.shape[0] < max(1, self.basis.shape[1]):
            raise ShapeError(f"the basis has shape {self.basis.shape}", rule="it must be (d, k) with 0 <= k <= d")
        defect = np.abs(self.basis.T @ self.basis - np.eye(self.dimension)).max(initial=0.0)
        if not defect <= ORTHONORMAL:
            raise InputError(
                f"the columns are off orthonormal by {defect:.3g}",
                rule=f"at most {ORTHONORMAL:g}",
                remedy="use `span` for rows that are not orthonormal",
            )

    @property
    def width(self) -> int:
        """The space's dimension, d."""
        return self.basis.shape[0]

    @property
    def dimension(self) -> int:
        """The subspace's dimension, k."""
        return self.basis.shape[1]

    def part(self, v: ArrayLike) -> Array:
        """Orthogonal projection of (..., d) onto the subspace."""
        v = self._vectors(v)
        return (v @ self.basis) @ self.basis.T

    def rest(self, v: ArrayLike) -> Array:
        """What projection leaves of (..., d), I - Q Q^T; twice, against cancellation."""
        v = self._vectors(v)
        for _ in range(2):
            v = v - (v @ self.basis) @ self.basis.T
        return v

    def share(self, v: ArrayLike) -> Array:
        """Share of the length of (..., d) that lies inside, from 0 to 1; 0 for a zero vector. Shape (...)."""
        v = self._vectors(v)
        size = np.abs(v).max(axis=-1, initial=0.0, keepdims=True)
        v = v / np.where(size > 0, size, 1.0)  # lengths neither overflow nor vanish
        length = np.linalg.norm(v, axis=-1)
        inside = np.linalg.norm(v @ self.basis, axis=-1)
        return np.minimum(inside / np.where(length > 0, length, 1.0), 1.0)

    @cached_property
    def complement(self) -> Subspace:
        """The orthogonal complement, with an explicit basis (d, d - k); d^3 operations, once."""
        if self.dimension in (0, self.width):
            return Subspace(np.eye(self.width)[:, self.dimension :])
        return Subspace(np.ascontiguousarray(np.linalg.qr(self.basis, mode="complete")[0][:, self.dimension :]))

    def _vectors(self, v: ArrayLike) -> Array:
        values = np.asarray(v, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != self.width:
            raise ShapeError(f"the vectors have shape {values.shape}", rule=f"their last axis must be {self.width}")
        return values


def span(
    source: Source, features: Features = None, *, matrix: Matrix = "decoder", relative: float = RELATIVE
) -> Subspace:
    """The numerical span of rows: directions with a singular value above `relative` times the largest.

    Args:
        source: an SAE, or (n, d) rows.
        features: which rows; None for all, an empty list for none. See also `rows.active_features`.
        matrix: decoder rows or encoder columns of an SAE.
        relative: share of the largest singular value, from 0 to 1.

    Raises:
        Errors as `spectrum`.

    """
    rows = select(source, features, matrix)
    if len(rows) < rows.shape[1]:
        return Subspace(_thin(rows, relative))
    return complement(rows, relative=relative).complement


def complement(
    source: Source, features: Features = None, *, matrix: Matrix = "decoder", relative: float = RELATIVE
) -> Subspace:
    """What is orthogonal to the numerical span; arguments and errors as `span`.

    For the decoder: what no setting of these features produces or cancels. For the encoder: what they do not see.
    """
    return Subspace(np.ascontiguousarray(spectrum(source, features, matrix=matrix, small=relative).vectors))


def _thin(rows: Rows, relative: float) -> Array:
    """Orthonormal basis of the span of few rows, (d, r): rows^T = Q R, then the SVD of R. Cost n^2 d."""
    if not 0.0 <= relative <= 1.0:
        raise InputError(f"relative is {relative!r}", rule="it is a share of the largest singular value, from 0 to 1")
    size = largest(rows)
    if size == 0.0:
        return np.zeros((rows.shape[1], 0))
    basis, triangle = np.linalg.qr(rows.T.astype(np.float64) / size)  # (d, n), (n, n)
    left, values, _ = np.linalg.svd(triangle)
    return basis @ left[:, values > relative * values[0]]


def principal_angles(a: Subspace, b: Subspace) -> Array:
    """Principal angles between two subspaces, radians, rising; shape (min of the dimensions,), so (0,) for a zero one.

    Small angles come from sines and large ones from cosines, so that both are accurate.
    Source: Å. Björck and G. H. Golub, Numerical methods for computing angles between linear subspaces,
    Math. Comp. 27 (1973); A. V. Knyazev and M. E. Argentati, SIAM J. Sci. Comput. 23 (2002), algorithm 3.1.

    Raises:
        ShapeError: they lie in spaces of different width.

    """
    if a.width != b.width:
        raise ShapeError(f"widths {a.width} and {b.width}", rule="the subspaces must lie in one space")
    if a.dimension < b.dimension:
        a, b = b, a
    if b.dimension == 0:
        return np.zeros(0)
    inner = a.basis.T @ b.basis
    cosines = np.minimum(np.linalg.svd(inner, compute_uv=False), 1.0)  # falling
    sines = np.minimum(np.linalg.svd(b.basis - a.basis @ inner, compute_uv=False)[::-1], 1.0)  # rising
    return np.sort(np.where(cosines > np.sqrt(0.5), np.arcsin(sines), np.arccos(cosines)))
