"""A synthetic SAE of any size whose columns come in clusters, with residuals and directions that make its cells bind.

Trained dictionaries split concepts into families of similar features, which is what makes their held cells hard: a
direction that raises one feature that is off raises its whole family. Nothing here is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.jumprelu import JumpReLUSAE


@dataclass(frozen=True, eq=False)
class Synthetic:
    """A JumpReLU SAE in float32 with tied, unit-length columns, and tokens for it.

    Attributes:
        sae: (d, m); one constant threshold, at which about `active` features are on.
        x: (n, d) float64 residuals, float32 values: sums of `active` columns and a rest of 0.3 of their length.
        g: (n, d) float64 directions: half random, half the sum of 100 columns of features that are nearly on.
    """

    sae: JumpReLUSAE
    x: Array
    g: Array


def synthetic(
    d: int, m: int, tokens: int, *, active: int = 50, family: int = 32, cosine: float = 0.5, seed: int = 0
) -> Synthetic:
    """Make one.

    Args:
        d: width.
        m: number of features.
        tokens: n.
        active: features that are on, about.
        family: mean number of columns of a cluster.
        cosine: between two columns of a cluster, about.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((max(1, m // family), d), dtype=np.float32))
    rows = _unit(rng.standard_normal((m, d), dtype=np.float32))
    rows *= np.float32(np.sqrt(1.0 - cosine))
    rows += np.float32(np.sqrt(cosine)) * centres[rng.integers(0, len(centres), m)]
    rows = _unit(rows)  # (m, d)
    on = min(active, m)
    x = np.stack([rng.uniform(1, 3, on).astype(np.float32) @ rows[rng.choice(m, on, False)] for _ in range(tokens)])
    rest = _unit(rng.standard_normal((tokens, d), dtype=np.float32))
    x += np.float32(0.3) * np.linalg.norm(x, axis=1, keepdims=True) * rest
    scores = x @ rows.T  # (n, m)
    threshold = np.float32(np.partition(scores, -on, axis=1)[:, -on].mean())
    g = _unit(rng.standard_normal((tokens, d)))
    for row, score in zip(g, scores, strict=True):
        off = np.flatnonzero(score <= threshold)
        near = off[np.argsort(-score[off])][:400]
        pull = rows[rng.choice(near, min(100, len(near)), False)].sum(axis=0)
        row += pull / np.linalg.norm(pull)
    columns = torch.from_numpy(rows)
    sae = JumpReLUSAE(
        W_enc=columns.T,
        W_dec=columns,
        b_dec=torch.zeros(d),
        subtract_b_dec=False,
        b_enc=torch.zeros(m),
        threshold=torch.full((m,), float(threshold)),
    )
    return Synthetic(sae, x.astype(np.float64), g)


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
