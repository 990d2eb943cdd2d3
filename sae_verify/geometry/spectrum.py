"""Singular values of decoder rows or encoder columns, from the Gram matrix, with the small end computed anew.

The Gram matrix of (n, d) rows costs n d^2 and no memory beside itself, but squares the singular values: those below
sqrt(2^-53) of the largest drown in its rounding. Its eigenvectors V of the small end are good all the same, and the
singular values of `rows @ V` are again those of the small end, without a square. Nothing here is certified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal, get_blas_funcs, get_lapack_funcs

from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import Features, Matrix, Rows, Source, blocks, largest, select

REFINED_BELOW = 1e-3
"""Share of the largest singular value below which values are computed anew. Above it the Gram's rounding, some 1e-15
of the largest eigenvalue, costs at most 1e-9 of a value; through the error of the eigenvectors at the cut it leaves
some 1e-12 of the largest singular value in the small ones. Costs accuracy only."""
RELATIVE = 1e-6
"""Default share of the largest singular value up to which a singular value counts as small. Stored in float32, exactly
dependent directions come back as some 1e-8 of it, so that this lies above what rounding leaves and below what was
trained."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of (count, d) rows, and the directions of the small ones.

    Attributes:
        count: number of rows.
        values: (d,) singular values, falling; rows missing for d of them count as zeros.
        vectors: (d, k) orthonormal right singular vectors of the k smallest, in the same order.
    """

    count: int
    values: Array
    vectors: Array

    def rank(self, threshold: float) -> int:
        """Numerical rank: singular values above an absolute threshold."""
        return int((self.values > threshold).sum())

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the singular values' shares, from 1 to d; 0 for a zero matrix.

        Source: O. Roy and M. Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
        """
        total = float(self.values.sum())
        if total == 0.0:
            return 0.0
        share = self.values[self.values > 0] / total
        return float(np.exp(-(share * np.log(share)).sum()))


def spectrum(
    source: Source, features: Features = None, *, matrix: Matrix = "decoder", small: float = RELATIVE
) -> Spectrum:
    """All singular values, and the directions of those up to `small` of the largest.

    Cost: n d^2 for n >= d rows, beside one tridiagonal reduction. Memory: four (d, d) matrices and `BLOCK` rows.

    Args:
        source: an SAE, or (n, d) rows.
        features: which rows; None for all, an empty list for none.
        matrix: decoder rows or encoder columns of an SAE.
        small: share of the largest singular value.

    Raises:
        InputError: `small` is not within [0, 1]; otherwise errors as `rows.select`.

    """
    if not 0.0 <= small <= 1.0:
        raise InputError(f"small is {small!r}", rule="it is a share of the largest singular value, from 0 to 1")
    return spectrum_of(select(source, features, matrix), small)


def spectrum_of(rows: Rows, small: float) -> Spectrum:
    """The same for rows that are already selected and checked, (n, d)."""
    count, d = rows.shape
    size = largest(rows)
    if size == 0.0 or count == 0:
        return Spectrum(count, np.zeros(d), np.eye(d))
    unit = 2.0 ** -max(-1000, min(1000, int(np.frexp(size)[1])))  # squares neither overflow nor vanish
    values, vectors = (_of_few if count < d else _of_many)(rows, unit, small)
    few = min(int((values <= small * values[0]).sum()), vectors.shape[1])
    return Spectrum(count, values / unit, vectors[:, vectors.shape[1] - few :])


def _of_few(rows: Rows, unit: float, small: float) -> tuple[Array, Array]:
    """Fewer rows than dimensions: rows^T = Q R, then the SVD of R, (n, n); directions without a row come last."""
    count, d = rows.shape
    wide = np.ascontiguousarray(rows, dtype=np.float64) * unit
    basis, triangle = np.linalg.qr(wide.T, mode="complete")  # (d, d), (d, n)
    left, values, _ = np.linalg.svd(triangle[:count])
    kept = int((values > small * values[0]).sum())
    vectors = np.concatenate([basis[:, :count] @ left[:, kept:], basis[:, count:]], axis=1)
    return np.concatenate([values, np.zeros(d - count)]), vectors


def _of_many(rows: Rows, unit: float, small: float) -> tuple[Array, Array]:
    """At least as many rows as dimensions: Gram matrix, then the small end anew."""
    squares, vectors = _small_end(gram(rows, unit), max(REFINED_BELOW, small * (1.0 + REFINED_BELOW)))
    values = np.sqrt(np.maximum(squares, 0.0))  # rising
    few = vectors.shape[1]
    if few == 0:
        return values[::-1], vectors
    refined, right = _refined(rows, unit, vectors)
    values[:few], vectors = refined[::-1], vectors @ right
    # At the cut, an old value and a new one may be out of order by rounding; only values are sorted then.
    return np.sort(values)[::-1], vectors


def gram(rows: Rows, unit: float = 1.0) -> Array:
    """rows^T rows in float64 of (n, d) rows times `unit`: (d, d), column-major, the lower triangle alone."""
    d = rows.shape[1]
    result = np.zeros((d, d), order="F")
    (syrk,) = get_blas_funcs(("syrk",), dtype=np.float64)
    for block in blocks(rows, unit):
        result = syrk(1.0, block.T, beta=1.0, c=result, lower=1, overwrite_c=1)
    return np.asarray(result)


def _small_end(matrix: Array, cut: float) -> tuple[Array, Array]:
    """All eigenvalues of a Gram matrix, (d,) rising, and orthonormal vectors (d, k) of those up to cut^2 of the last.

    The matrix is overwritten. LAPACK's steps one by one: the reduction to a tridiagonal matrix is shared, and only k
    vectors are taken back, which a ready-made driver does not offer together.
    """
    d = len(matrix)
    sytrd, sytrd_lwork, ormqr = get_lapack_funcs(("sytrd", "sytrd_lwork", "ormqr"), dtype=np.float64)
    lwork = int(sytrd_lwork(d, lower=1)[0])
    reflectors, diagonal, off, tau, _ = sytrd(matrix, lower=1, lwork=lwork, overwrite_a=1)
    if d == 1:
        return diagonal, np.ones((1, 1)) if cut >= 1.0 else np.zeros((1, 0))
    values = np.sort(eigh_tridiagonal(diagonal, off, eigvals_only=True, check_finite=False, lapack_driver="sterf"))
    few = int((values <= cut**2 * values[-1]).sum())
    if few == 0:
        return values, np.zeros((d, 0))
    vectors = _tridiagonal_vectors(diagonal, off, few)
    # Q = diag(1, H_1 H_2 ...), the reflectors being stored below the diagonal as a QR factorisation stores them.
    inner = np.asfortranarray(reflectors[1:, :-1])
    vectors[1:], _, info = ormqr("L", "N", inner, tau, np.asfortranarray(vectors[1:]), lwork=64 * d)
    assert info == 0
    return values, np.linalg.qr(vectors)[0]


def _tridiagonal_vectors(diagonal: Array, off: Array, few: int) -> Array:
    """Eigenvectors of the `few` smallest eigenvalues, (d, few)."""
    try:
        return eigh_tridiagonal(
            diagonal, off, select="i", select_range=(0, few - 1), check_finite=False, lapack_driver="stemr"
        )[1]
    except np.linalg.LinAlgError:  # the fast method gives up on rare clusters; QR iteration does not
        return eigh_tridiagonal(diagonal, off, check_finite=False, lapack_driver="stev")[1][:, :few]


def _refined(rows: Rows, unit: float, vectors: Array) -> tuple[Array, Array]:
    """Singular values of `rows @ vectors`, (k,) falling, and their right singular vectors, (k, k), in columns.

    The product is never held as a whole: its triangular factor is updated block by block.
    """
    k = vectors.shape[1]
    triangle = np.zeros((0, k))
    for block in blocks(rows, unit, max(1024, 2 * k)):
        triangle = np.linalg.qr(np.concatenate([triangle, block @ vectors]), mode="r")
    _, values, right = np.linalg.svd(triangle)
    return values, right.T
