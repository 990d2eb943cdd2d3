"""One token's worst case in the span of few rows: every step of the active set works on small Gram matrices.

For equalities E, working rows R and direction g: with c = P g (P off the equalities), H = R P R^T and b = R c, the
point on face K is theta c - P R_K^T lambda with lambda = theta y - t, H_KK y = b_K, H_KK t = s_K, and the ball gives
theta^2 (c.c - b.y) = r^2 - s.t (theorem: linear-dual holds whatever the face). Faces change by block principal pivoting
(Judice and Pires, Computers & Operations Research 21, 1994; Kim and Park, SIAM J. Sci. Comput. 33, 2011); where it
cycles, meets dependent rows or leaves the ball, `None` sends the token to the solver that goes row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs  # pyright: ignore[reportAttributeAccessIssue]

from sae_verify.geometry.held_cell import Array, Indices

PIVOTS = 60
"""Face changes before a token is given up."""
PATIENCE = 3
"""Exchanges of whole blocks that may fail to shrink the number of wrong rows; then one row at a time."""
INDEPENDENT = 1e-7
"""Smallest squared pivot of rows of length 1: half of the digits are left. Below, the token is given up."""
BINDING = 1e-13
"""Relative: a row that exceeds its slack by less does not enter. A search tolerance, no part of a proof."""


@dataclass(eq=False)
class Equalities:
    """The held equalities of one token, with c = P g.

    Attributes:
        rows: (n, d) of length 1. factor: lower Cholesky factor of their Gram matrix.
        free: (d,) the part of g off the equalities.
        kept: which of the cell's equalities they are (zero rows are dropped). length: (n,) of those.
    """

    rows: Array
    factor: Array
    free: Array
    kept: Indices
    length: Array

    def off(self, v: Array) -> Array:
        """P v, (d,) or (k, d); twice, against cancellation."""
        for _ in range(2):
            v = v - self.coefficients(v) @ self.rows
        return v

    def coefficients(self, v: Array) -> Array:
        """mu with v - mu @ rows off the equalities, (n,) or (k, n)."""
        return dpotrs(self.factor, self.rows @ v.T, lower=1)[0].T if len(self.rows) else np.zeros((*v.shape[:-1], 0))


def equalities(equal: Array, g: Array) -> Equalities | None:
    """Factor the equalities; None when they are not clearly independent."""
    length = np.sqrt(np.einsum("nd,nd->n", equal, equal))
    kept = np.flatnonzero(length > 0)
    rows = equal[kept] / length[kept, None]
    factor = np.zeros((len(rows), len(rows)))
    if len(rows):
        if len(rows) >= len(g):
            return None
        factor, info = dpotrf(rows @ rows.T, lower=1, clean=1)
        if info or np.min(np.diag(factor)) ** 2 < INDEPENDENT:
            return None
    found = Equalities(rows, factor, g, kept, length[kept])
    found.free = found.off(g)
    return found


@dataclass(eq=False)
class Working:
    """Rows that may bind, of length 1, with what the active set needs of them."""

    rows: Array  # (k, d)
    slack: Array  # (k,)
    inner: Array  # (k, n) products with the equalities, solved against their factor
    gram: Array  # (k, k) of the rows off the equalities
    pull: Array  # (k,) rows . c

    @classmethod
    def empty(cls, d: int, n: int) -> Working:
        """No rows."""
        return cls(np.zeros((0, d)), np.zeros(0), np.zeros((0, n)), np.zeros((0, 0)), np.zeros(0))

    def add(self, rows: Array, slack: Array, held: Equalities) -> Working:
        """With more rows, (j, d) of length 1 (before the equalities are taken off)."""
        inner = np.zeros((len(rows), 0))
        if len(held.rows):
            inner = solve_triangular(held.factor, held.rows @ rows.T, lower=True, check_finite=False).T
        cross = self.rows @ rows.T - self.inner @ inner.T  # (k, j)
        own = rows @ rows.T - inner @ inner.T
        return Working(
            np.concatenate([self.rows, rows]),
            np.concatenate([self.slack, slack]),
            np.concatenate([self.inner, inner]),
            np.block([[self.gram, cross], [cross.T, own]]),
            np.concatenate([self.pull, rows @ held.free]),
        )


def face(work: Working, size: float, radius: float, start: NDArray[np.bool_]) -> tuple[float, Array] | None:
    """theta and the rows' multipliers lambda >= 0 at the optimum over the working rows and the ball.

    Args:
        work: the rows.
        size: ||c||^2.
        radius: of the ball, positive.
        start: (k,) bool, the face to start from.
    """
    on = start.copy()
    fewest, patience = len(on) + 1, PATIENCE
    for _ in range(PIVOTS):
        index = np.flatnonzero(on)
        weight = np.zeros(len(on))
        if index.size:
            factor, info = dpotrf(work.gram[np.ix_(index, index)], lower=1, overwrite_a=1)
            if info or np.min(np.diag(factor)) ** 2 < INDEPENDENT:
                return None
            right = np.stack([work.pull[index], work.slack[index]], axis=1)
            solved = dpotrs(factor, right, lower=1)[0]  # y, t
            growth, rest = size - work.pull[index] @ solved[:, 0], radius**2 - work.slack[index] @ solved[:, 1]
            if not (growth > INDEPENDENT * size and rest > 0):
                return None  # the cell, not the ball, ends the path
            theta = float(np.sqrt(rest / growth))
            weight[index] = theta * solved[:, 0] - solved[:, 1]
        else:
            theta = radius / float(np.sqrt(size))
        excess = theta * work.pull - work.gram[:, index] @ weight[index] - work.slack
        wrong = (on & (weight < 0)) | (~on & (excess > BINDING * radius))
        count = int(wrong.sum())
        if not count:
            return theta, weight
        if count < fewest:
            fewest, patience = count, PATIENCE
            on ^= wrong
        elif patience:
            patience -= 1
            on ^= wrong
        else:
            on[np.flatnonzero(wrong)[-1]] ^= True
    return None
