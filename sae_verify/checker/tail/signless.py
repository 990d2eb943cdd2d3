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
from .sizes import grow, length

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
            return self._together_or_apart(sums)
        return grow(np.minimum(sums.columns @ self._each, sums.size * self._together))

    def least(self, sums: Measured) -> Any:
        """Of W x, were `lines` zero."""
        return grow(np.minimum(sums.columns @ self.rest, sums.size * self._length))

    def total(self, sums: Measured) -> Any:
        """Of W x."""
        return grow(self.moved(sums) + self.least(sums))

    def _together_or_apart(self, sums: Measured) -> float:
        """||W x|| <= ||W D|| ||D^-1 lines y|| for every positive diagonal D: two are tried."""
        a, b = sums.columns, self._each
        apart = a * b
        best = min(float(grow(apart.sum())), float(grow(sums.size * self._together)))
        keep = (a > SMALL) & (b > SMALL)
        if not keep.any():
            return best
        left = float(apart[~keep].sum())
        d = np.sqrt(b[keep] / a[keep])
        product = WHOLE.of(sums.weights[:, keep] * d) * self.domain.matrix(self.lines[keep] / d[:, None])
        return min(best, float(grow(product * (1 + 2.0**-40) + left)))


@dataclass(frozen=True, eq=False)
class Several:
    """Such numbers several times over, of sums with the same weights."""

    parts: tuple[Signless, ...]

    @cached_property
    def _sizes(self) -> tuple[Array, Array]:
        """By entry, (P, 2 parts), and together: of what moves, then of what does not."""
        apart = [part._each for part in self.parts] + [part.rest for part in self.parts]
        together = [part._together for part in self.parts] + [part._length for part in self.parts]
        return np.stack(apart, axis=1), np.array(together)

    def totals(self, sums: Measured) -> list[Any]:
        """`total` of each part."""
        if sums.by is WHOLE:
            return [part.total(sums) for part in self.parts]
        apart, together = self._sizes
        found = np.minimum(sums.columns @ apart, sums.size[:, None] * together)
        return list(grow(found[:, : len(self.parts)] + found[:, len(self.parts) :]).T)


def signs_free(domain: Domain, weights: Array, rows: Array) -> float:
    """sup ||sum_j w_j x_j|| over |x_j| <= |rows_j . y|, w (n, P), rows (P, k)."""
    return float(Signless(domain, rows, np.zeros(len(rows))).moved(Measured(weights, WHOLE)))
