"""Matrices made of an SAE's own weights, with dependencies that are exact by construction."""

from __future__ import annotations

import numpy as np

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE

WIDTH = 96
"""Dimensions of which a matrix is made, at most, so that ranks can be found without rounding in a fraction of a second:
of a wider SAE some coordinates are drawn."""


def block(sae: SAE, rng: np.random.Generator, count: int, first: np.ndarray | None = None) -> Array:
    """Some rows of W_dec or columns of W_enc in some coordinates, (<= count, <= WIDTH).

    Args:
        sae: in float64.
        rng: of the choice.
        count: rows asked for.
        first: encoder columns that come first.
    """
    stored = sae.W_dec.numpy() if first is None and rng.random() < 0.5 else sae.W_enc.numpy().T
    given = np.zeros(0, dtype=np.intp) if first is None else first[:count]
    rest = np.setdiff1d(np.arange(sae.d_sae), given)
    some = np.concatenate([given, rng.choice(rest, min(count - len(given), len(rest)), replace=False)])
    places = np.sort(rng.choice(sae.d_in, min(sae.d_in, WIDTH), replace=False))
    return np.ascontiguousarray(stored[np.ix_(some, places)])


DEPENDENCIES = ("none", "a coordinate is zero", "multiples", "few rows repeated", "half is zero")


def dependent(rows: Array, kind: str, rng: np.random.Generator) -> Array:
    """The rows with an exact dependency: every change is one that floats make without rounding."""
    rows = rows.copy()
    n, d = rows.shape
    if kind == "a coordinate is zero":
        rows[:, rng.integers(d)] = 0.0
    elif kind == "half is zero":
        rows[:, rng.permutation(d)[: max(1, d // 2)]] = 0.0
    elif kind == "multiples" and n > 1:
        some = rng.choice(n, max(1, n // 3), replace=False)
        rows[some] = np.ldexp(rows[rng.integers(n, size=len(some))], rng.integers(-8, 9, (len(some), 1)))
    elif kind == "few rows repeated":
        few = max(1, min(n, d) // 2)
        rows = np.concatenate([rows[:few], -2.0 * rows[:few], 0.5 * rows[:few]])[: max(n, few)]
    return rows
