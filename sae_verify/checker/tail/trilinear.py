"""Norms of trilinear forms sum_j a_j (K_j . e)(M_j . d) over unit vectors, from the unfoldings into a matrix.

The square of an unfolding's norm is the largest eigenvalue of a product of two Gram matrices over j, which are small
where there are few j: then many forms are bounded at once. Elsewhere the unfolding's own Gram matrix is used.

Theorem: adjoint-identity (e).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arithmetic import TINY, Array, U, gamma
from .sizes import grow, length, lengths, spectral

SQUARINGS = 6
"""Of a product of Gram matrices of order P: its largest eigenvalue is exceeded by a factor P^(1/64) at most."""
KNOWN = 0.01
"""Relative to a matrix: it is squared only where it is known better than that."""
VANISHING = 2.0**-990
"""What a length may be too large by."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Matrices E K, K (P, q), as the lengths of their rows, (..., P), and the cosines between these, (..., P, P).

    Attributes:
        lost: how far the cosines are from the exact ones, at most. Of a row the length is off by rounding, and may be
            too large by VANISHING.
        single: whether K has one column.
    """

    sizes: Array
    cosines: Array
    lost: float
    single: bool = False

    @classmethod
    def of(cls, parts: tuple[tuple[Array, float], ...], count: int) -> Rows:
        """Of pairs of K, with `count` rows each, and E: (pairs, P)."""
        sizes, cosines = np.zeros((len(parts), count)), np.zeros((len(parts), count, count))
        for i, (rows, factor) in enumerate(parts):
            size = lengths(rows)
            units = rows / np.where(size < np.inf, size, 1.0)[:, None]
            sizes[i], cosines[i] = factor * size + TINY, units @ units.T
        widest = max((rows.shape[1] for rows, _ in parts), default=0)
        return cls(sizes, cosines, gamma(4 + widest), widest <= 1)

    def stacked(self, weights: Array) -> Rows:
        """Of one matrix, all of them side by side, each divided by its weight, which is positive: (P,)."""
        sizes = self.sizes / weights[:, None]
        whole = lengths(sizes.T)
        parts = sizes / np.where(whole < np.inf, whole, 1.0)
        cosines = np.einsum("ij,ik,ijk->jk", parts, parts, self.cosines, optimize=True)
        return Rows(whole, cosines, self.lost + gamma(len(weights) + 8), self.single and len(weights) == 1)


def together(one: Rows, two: Rows, three: Rows) -> float:
    """sup ||sum_j a_j (K_j . e)(M_j . d)|| over unit vectors, of matrices A^T, K and M.

    The least of the norms of the three unfoldings and the sum of all sizes. With w_j what j contributes to that, as a
    share, and the cosines F, G and H in any order, an unfolding's square is the largest eigenvalue of
    (F o G o w w^T) H. Of rows whose length is too large by VANISHING, the sum changes by as much of them.
    """
    apart, weights = _weighted(one, two, three)
    lost = 4 * (one.lost + two.lost + three.lost + gamma(len(weights) + 8))
    f, g, h = (rows.cosines for rows in (one, two, three))
    turns = ((f * g, h),) if one.single else ((f * g, h), (f * h, g), (g * h, f))  # a matrix has one norm
    best = min(_largest(pair * weights, last, lost) for pair, last in turns)
    return float(grow(apart * min(float(np.sqrt(grow(best + lost))), 1.0)))


def nearly(one: Rows, two: Rows, three: Rows) -> Array:
    """Frobenius norms of such tensors, of matrices that are broadcast: about how large they are, not a bound."""
    apart, weights = _weighted(one, two, three)
    return apart * np.sqrt(np.maximum((one.cosines * two.cosines * three.cosines * weights).sum(axis=(-1, -2)), 0.0))


def _weighted(one: Rows, two: Rows, three: Rows) -> tuple[Array, Array]:
    """The sum of all sizes, and w w^T."""
    sizes = _product(one.sizes, two.sizes, three.sizes)
    apart = grow(sizes.sum(axis=-1))
    weight = sizes / np.where((apart > 0) & (apart < np.inf), apart, 1.0)[..., None]
    return apart, weight[..., :, None] * weight[..., None, :]


def _product(*factors: Array) -> Array:
    """Of three sizes, each TINY at least or 0: least times largest first, so that no more than TINY vanishes."""
    low, middle, high = np.sort(np.stack(np.broadcast_arrays(*factors)), axis=0)
    return low * high * middle


def _largest(left: Array, right: Array, lost: float) -> float:
    """The largest eigenvalue of the product of two positive semidefinite matrices (P, P), from above.

    The entries of `left` add up to 1 at most, those of `right` are 1 at most; both are known up to `lost` of that. The
    exact product has real eigenvalues, none of them negative, so none of its powers' exceeds the trace. `off` is how
    far what is computed is from the exact power, in Frobenius norm; the computed one is scaled to norm 1.
    """
    order = len(left)
    power = left @ right
    off = 2 * order * lost
    rounding = gamma(order) + 8 * U + 4 * TINY
    scales = []
    for _ in range(SQUARINGS):
        scale = float(np.sqrt(np.vdot(power, power)))
        if not off < KNOWN * scale < np.inf:
            break
        scales.append(scale)
        power = power / scale
        off = grow(off / scale) + rounding
        power = power @ power
        off = grow(off * (2 + off)) + rounding
    trace = max(float(np.trace(power)), 0.0) + order * (off + rounding)
    size = min(grow(trace), length(power) + off)
    for scale in reversed(scales):
        size = scale * float(np.sqrt(grow(size)))
    return float(grow(size))


LARGEST = 1024
"""Of the matrices whose norms are found. Where the forms have none so small, the sum of sizes must do."""


def trilinear(a: Array, rows: Array, others: Array) -> float:
    """sup ||sum_j a_j (rows_j . y) (others_j . e)|| over ||y||, ||e|| <= 1; a (n, P), rows (P, k), others (P, q).

    Entries of `rows` and `others` may be off by three roundings. For many j: by the shorter side of each unfolding.
    """
    scales = [lengths(a.T), lengths(rows), lengths(others)]
    sizes = _product(*scales)
    apart = float(grow(sizes.sum()))
    if not 0.0 < apart < np.inf:
        return apart
    count = len(sizes)
    weight = sizes / apart
    units = [m / np.where(s > 0, s, 1.0)[:, None] for m, s in zip((a.T, rows, others), scales, strict=True)]
    if len(a) == 1 and min(rows.shape[1], others.shape[1]) <= min(count, LARGEST):
        form = (units[0] * weight[:, None] * units[1]).T @ units[2]
        return float(grow(apart * min(spectral(form) + 2 * gamma(count + 8), 1.0)))
    if min(count, max(u.shape[1] for u in units)) > LARGEST:
        return apart
    grams = [u @ u.T for u in units]
    lost = 8 * gamma(sum(u.shape[1] for u in units) + 4 * count)
    best = 1.0
    for i in (1,) if len(a) == 1 else (0, 1, 2):
        pair = grams[i - 1] * grams[i - 2] * np.outer(weight, weight)
        if units[i].shape[1] <= count:
            square = spectral(units[i].T @ (pair @ units[i]))
        else:
            square = _largest(pair, grams[i], lost)
        best = min(best, float(np.sqrt(square + lost)))
    return float(grow(apart * best))
