"""What rounding may explain: bounds on float64 errors, so that a true theorem never fails and a false one does.

Every bound is a priori, outward, and relative to the lengths that occur (N. J. Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.1): a sum of n products is off by at most gamma(n) times the sum of their
absolute values, in any order. Nothing here is tuned to what a library function happens to return.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE

U = 2.0**-53
"""Unit roundoff of float64."""
TINY = 2.0**-1000
"""Absolute, outward: more than underflow loses in one product of vectors."""
SPARE = 24
"""Roundings beside those of a sum of products: scale, bias, exponential, subtraction, and this module's own."""
RANK = 1e-12
"""Relative to rows of length 1: singular values below it are rounding of dependent rows. The package draws the line at
the same place; what it costs is in `Span.rounding`."""


def gamma(n: int) -> float:
    """A bound of the relative error of a sum of n products and `SPARE` further roundings."""
    return (n + SPARE) * U * (1.0 + 2.0**-20)


def wide(sae: SAE) -> SAE:
    """The SAE in float64, exactly; the same object on every call, so that what is known of it is computed once."""
    if sae.dtype == torch.float64:
        return sae
    if sae not in _WIDE:
        _WIDE[sae] = sae.to(torch.float64)
    return _WIDE[sae]


_WIDE: WeakKeyDictionary[SAE, SAE] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Lengths:
    """Lengths of the stored weights.

    Attributes:
        encoder: (m,) of the encoder's columns. decoder: (m,) of the decoder's rows.
        bias: of b_dec as the encoder subtracts it, 0 where it does not.
    """

    encoder: Array
    decoder: Array
    bias: float


def lengths(sae: SAE) -> Lengths:
    """Lengths of the weights of an SAE in float64, computed once an SAE."""
    if sae not in _LENGTHS:
        b_dec = float(sae.b_dec.norm()) if sae.subtract_b_dec else 0.0
        _LENGTHS[sae] = Lengths(sae.W_enc.norm(dim=0).numpy(), sae.W_dec.norm(dim=1).numpy(), b_dec)
    return _LENGTHS[sae]


_LENGTHS: WeakKeyDictionary[SAE, Lengths] = WeakKeyDictionary()


def norms(v: Array) -> Array:
    """Lengths of (..., d), without overflow or underflow of squares."""
    size = np.abs(v).max(axis=-1, initial=0.0, keepdims=True)
    scale = np.where((size > 0) & np.isfinite(size), size, 1.0)
    return np.linalg.norm(v / scale, axis=-1) * scale[..., 0]


def norm(v: Array) -> float:
    """Length of one vector."""
    return float(norms(v))


@dataclass(frozen=True, eq=False)
class Span:
    """The span of some rows, computed here and not by the package.

    Attributes:
        basis: (d, k) orthonormal.
        rounding: how far, relative to a vector's length, `rest` may be from the exact orthogonal complement. With E the
            rounding of unit rows and s the least singular value kept, a subspace turns by at most ||E|| / s (Wedin).
    """

    basis: Array
    rounding: float

    def rest(self, v: Array) -> Array:
        """The part of (..., d) orthogonal to the rows; twice, against cancellation."""
        for _ in range(2):
            v = v - (v @ self.basis) @ self.basis.T
        return v


def span(rows: Array) -> Span:
    """The span of (n, d) rows; zero rows have none."""
    size = norms(rows)
    unit = rows[size > 0] / size[size > 0, None]
    if not unit.size:
        return Span(np.zeros((rows.shape[1], 0)), gamma(rows.shape[1]))
    _, sigma, right = np.linalg.svd(unit, full_matrices=False)
    kept = sigma > RANK * sigma[0]
    lost = gamma(sum(unit.shape)) * float(sigma[0]) * np.sqrt(len(unit))
    return Span(np.ascontiguousarray(right[kept].T), float(min(1.0, lost / sigma[kept][-1])))
