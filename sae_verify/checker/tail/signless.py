"""Sums of numbers that are known up to their signs: |x_j| <= |lines_j . y| + rest_j for some y of a domain.

Theorem: adjoint-identity (f).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..arithmetic import Array
from .domain import Domain
from .measure import WHOLE, Measured
from .sizes import grow, length, lengths

SMALL = 1e-200
"""Sizes up to it are not divided by; what they bound is added as it stands."""


@dataclass(frozen=True, eq=False)
class Signless:
    """All such x.

    Attributes:
        domain: of y. lines: (P, k). rest: (P,).
    """

    domain: Domain
    lines: Array
    rest: Array

    @cached_property
    def _each(self) -> Array:
        return self.domain.rows(self.lines)

    @cached_property
    def _together(self) -> float:
        return self.domain.matrix(self.lines)

    @cached_property
    def _length(self) -> float:
        return length(self.rest)

    def moved(self, sums: Measured) -> Any:
        """Of W x, were `rest` zero."""
        if sums.by is WHOLE:
            return signs_free(self.domain, sums.weights, self.lines)
        return grow(np.minimum(sums.columns @ self._each, sums.size * self._together))

    def least(self, sums: Measured) -> Any:
        """Of W x, were `lines` zero."""
        return grow(np.minimum(sums.columns @ self.rest, sums.size * self._length))

    def total(self, sums: Measured) -> Any:
        """Of W x."""
        return grow(self.moved(sums) + self.least(sums))


def signs_free(domain: Domain, weights: Array, rows: Array) -> float:
    """sup ||sum_j w_j x_j|| over |x_j| <= |rows_j . y|, w (n, P), rows (P, k).

    ||W x|| <= ||W D|| ||D^-1 rows y|| for every positive diagonal D: a few are tried.
    """
    a, b = lengths(weights.T), domain.rows(rows)
    apart = float(grow((a * b).sum()))
    keep = (a > SMALL) & (b > SMALL)
    if not keep.any():
        return apart
    left = float(grow((a * b)[~keep].sum()))
    weights, rows, a, b = weights[:, keep], rows[keep], a[keep], b[keep]
    best = apart
    for power in (0.0, 0.5):
        d = (b / a) ** power
        product = WHOLE.of(weights * d) * domain.matrix(rows / d[:, None])
        best = min(best, float(grow(product * (1 + 2.0**-40) + left)))
    return best
