"""The encoder's columns (or the decoder's rows) laid out for pricing: w_j . delta for every feature and many deltas.

Pricing is a screen. It is done in the narrowest type that the processor multiplies well, with a bound on its own error,
and whoever uses it recomputes in float64 the few rows that the screen cannot place. Floor of one pass: the weights are
read once, 2 d m operations a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.sae.base import SAE

UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
"""Unit roundoff of a pricing type; for bfloat16 twice that, since processors differ in how they round it."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Rows w_j of length d, m of them.

    Attributes:
        rows: (m, d) float32, contiguous; exact when the weights are float32.
        narrow: the rows in the type that prices, (m, d); the same tensor when that is float32.
        length: (m,) l2 lengths of the rows, float64.
        rounding: largest ||w_j - narrow_j|| / ||w_j||.
        exact: the rows as given, (m, d), when they are not float32.
    """

    rows: Tensor
    narrow: Tensor
    length: Array
    rounding: float
    exact: Tensor | None

    @cached_property
    def screen(self) -> NDArray[np.float32]:
        """Lengths for screening, (m,), a little above the truth."""
        return (self.length * (1.0 + 2.0**-20)).astype(np.float32)

    @property
    def width(self) -> int:
        """d."""
        return self.rows.shape[1]

    def __len__(self) -> int:
        return self.rows.shape[0]

    def gather(self, features: Indices) -> Array:
        """Exact rows of some features, (n, d) float64."""
        source = self.rows if self.exact is None else self.exact
        return source[torch.from_numpy(np.asarray(features, dtype=np.int64))].double().numpy()

    def price(self, points: Array) -> tuple[NDArray[np.float32], Array]:
        """Products with every row, and how far they may be off.

        Args:
            points: (B, d) float64.

        Returns:
            values (B, m) float32 and e (B,) with |w_j . p_b - values[b, j]| <= length[j] * e[b].
        """
        wide = torch.from_numpy(points)  # (B, d)
        narrow = wide.to(self.narrow.dtype)
        size = np.linalg.norm(points, axis=1)
        lost = (wide - narrow.double()).norm(dim=1).numpy()
        if self.narrow.dtype == torch.float32:
            values = narrow.numpy() @ self.narrow.numpy().T  # numpy's BLAS is the faster one here
        else:
            values = (narrow @ self.narrow.T).float().numpy()
        sums = self.width * UNIT[torch.float32]  # products are accumulated in float32
        unit = 0.0 if self.narrow.dtype == torch.float32 else UNIT[self.narrow.dtype]
        error = lost + (self.rounding + 1.01 * sums + unit) * (size + lost) + np.finfo(np.float32).tiny
        return values, error


def dictionary(rows: Tensor, *, narrow: torch.dtype | None = None) -> Dictionary:
    """Lay rows out for pricing. Memory: one float32 copy, and half of one where bfloat16 prices.

    Args:
        rows: (m, d) float32 or float64.
        narrow: the type that prices; None takes bfloat16 where the processor multiplies it, and float32 elsewhere.
    """
    kind = (torch.bfloat16 if multiplies_bfloat16() else torch.float32) if narrow is None else narrow
    wide = rows.float().contiguous()  # (m, d)
    thin = wide.to(kind)
    length, worst = np.empty(len(rows)), 0.0
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        exact = rows[block].double()
        length[block] = exact.norm(dim=1).numpy()
        lost = (exact - thin[block].double()).norm(dim=1).numpy()
        worst = max(worst, float(np.max(lost / np.where(length[block] > 0, length[block], 1.0), initial=0.0)))
    return Dictionary(wide, thin, length, worst, None if rows.dtype == torch.float32 else rows)


BLOCK = 2048
"""Rows that are widened at a time."""


def encoder(sae: SAE) -> Dictionary:
    """The columns of W_enc as a dictionary."""
    return dictionary(sae.W_enc.T)


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
