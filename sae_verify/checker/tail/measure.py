"""What of a vector is bounded: its length, or each of its entries. The bounds of both are made alike.

Every function is an upper bound: a float for `WHOLE`, (n,) for `ENTRIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..arithmetic import Array
from .domain import Domain
from .sizes import grow, lengths, spectral


class Measure(Protocol):
    """See the module; a vector is W x or J y, W (n, m) and J (n, k)."""

    def of(self, weights: Array) -> Any:
        """Of W x for ||x|| <= 1."""
        ...

    def over(self, domain: Domain, jacobian: Array) -> Any:
        """Of J y for y of the domain."""
        ...

    def columns(self, weights: Array) -> Array:
        """Rows (m,) or (n, m) whose product with |x| bounds W x."""
        ...

    def vector(self, x: Array) -> Any:
        """Of x itself, (n,)."""
        ...


class Whole:
    """||.||_2."""

    def of(self, weights: Array) -> float:
        """Of W x."""
        return spectral(weights)

    def over(self, domain: Domain, jacobian: Array) -> float:
        """Of J y."""
        return domain.matrix(jacobian)

    def columns(self, weights: Array) -> Array:
        """(m,)."""
        return lengths(weights.T)

    def vector(self, x: Array) -> float:
        """Of x."""
        return float(lengths(x[None])[0])


class Entries:
    """|.| of each entry."""

    def of(self, weights: Array) -> Array:
        """Of W x."""
        return lengths(weights)

    def over(self, domain: Domain, jacobian: Array) -> Array:
        """Of J y."""
        return domain.rows(jacobian)

    def columns(self, weights: Array) -> Array:
        """(n, m)."""
        return np.abs(weights)

    def vector(self, x: Array) -> Array:
        """Of x."""
        return grow(np.abs(x))


WHOLE = Whole()
ENTRIES = Entries()


@dataclass(frozen=True, eq=False)
class Measured:
    """Weights W (n, P) and what is bounded of their sums."""

    weights: Array
    by: Measure

    @cached_property
    def columns(self) -> Array:
        """(P,) or (n, P)."""
        return self.by.columns(self.weights)

    @cached_property
    def size(self) -> Any:
        """Of W x for ||x|| <= 1."""
        return self.by.of(self.weights)
