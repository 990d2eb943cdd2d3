"""The set over which a Taylor model holds: m coordinates in [-1, 1] and a unit ball, and the sizes of maps over it.

y = (t, p), t in [-1, 1]^m, p in R^(k - m), ||p||_2 <= 1. With m = 0 it is the unit ball. Every function is an upper
bound of a supremum over y, by the triangle inequality over the m coordinates and a spectral norm on the ball.

Theorem: composition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arithmetic import Array
from .sizes import grow, largest_eigenvalue, length, lengths, spectral, spectral_each


@dataclass(frozen=True)
class Domain:
    """`box` coordinates in [-1, 1], then those of a unit ball."""

    box: int = 0

    @property
    def reach(self) -> float:
        """sup ||y||_2."""
        return float(grow(np.sqrt(self.box + 1.0)))

    def rows(self, jacobian: Array) -> Array:
        """sup |J_i . y|, for J (n, k): (n,)."""
        m = self.box
        return grow(np.abs(jacobian[:, :m]).sum(axis=1) + lengths(jacobian[:, m:]))

    def row(self, gradient: Array) -> float:
        """sup |g . y|, for g (k,)."""
        return float(self.rows(gradient[None])[0])

    def matrix(self, jacobian: Array) -> float:
        """sup ||J y||_2, for J (n, k)."""
        m = self.box
        along = float(lengths(jacobian[:, :m].T).sum()) if m else 0.0
        return float(grow(along + spectral(jacobian[:, m:])))

    def forms(self, hessians: Array) -> Array:
        """sup |y . H_i y| / 2, for symmetric H (n, k, k): (n,)."""
        m = self.box
        ball = spectral_each(hessians[:, m:, m:])
        if not m:
            return grow(0.5 * ball)
        mixed = sum((lengths(hessians[:, a, m:]) for a in range(m)), np.zeros(len(hessians)))
        return grow(0.5 * np.abs(hessians[:, :m, :m]).sum(axis=(1, 2)) + mixed + 0.5 * ball)

    def form(self, hessian: Array) -> float:
        """sup |y . H y| / 2, for a symmetric H (k, k)."""
        m = self.box
        inner = hessian[m:, m:]
        ball = max(largest_eigenvalue(inner), largest_eigenvalue(-inner))
        return float(grow(0.5 * np.abs(hessian[:m, :m]).sum() + lengths(hessian[:m, m:]).sum() + 0.5 * ball))

    def form_above(self, hessian: Array) -> float:
        """sup y . H y / 2, never negative, for a symmetric H (k, k)."""
        m = self.box
        ball = largest_eigenvalue(hessian[m:, m:])
        corner = np.abs(hessian[:m, :m])
        np.fill_diagonal(corner, np.maximum(np.diag(hessian)[:m], 0.0))
        return float(grow(0.5 * (corner.sum() + ball) + lengths(hessian[:m, m:]).sum()))

    def vector_form(self, hessians: Array) -> float:
        """sup ||(y . H_i y / 2)_i||_2, for symmetric H (n, k, k): two unfoldings of the tensor, the smaller one."""
        m, count = self.box, len(hessians)
        ball = hessians[:, m:, m:]
        order = ball.shape[1]
        sideways = ball.transpose(1, 0, 2).reshape(order, count * order)
        total = 0.5 * min(spectral(ball.reshape(count, order * order)), spectral(sideways))
        if m:
            total += 0.5 * sum(length(hessians[:, a, b]) for a in range(m) for b in range(m))
            total += sum(spectral(hessians[:, a, m:]) for a in range(m))
        return float(grow(total))
