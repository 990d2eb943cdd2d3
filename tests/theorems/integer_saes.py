"""SAEs whose arithmetic is exact in float64, so that "keeps its value" can be tested with ==.

Entries are small integers; columns may be zero or repeated; decoder rows have rational lengths; thresholds sit exactly
at activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from sae_verify.sae import SAE, GatedSAE, Identity, InputScale, JumpReLUSAE, ReLUSAE, TopKSAE

D, M = 3, 5
ENTRY = st.integers(-2, 2)
ROWS = ([1, 0, 0], [0, -2, 0], [0, 3, 4], [4, 0, 0], [2, -1, 2])
"""Decoder rows of lengths 1, 2, 5, 4 and 3."""
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")


@dataclass(frozen=True, eq=False)
class Point:
    """An SAE, a point and a perturbation, all exact."""

    sae: SAE
    y: torch.Tensor
    delta: torch.Tensor
    held: tuple[int, ...]

    @property
    def scale(self) -> Fraction:
        return Fraction(self.sae.normalization.linear_scale("a test"))

    @property
    def before(self) -> list[float]:
        return self.sae.encode(self.y).tolist()

    @property
    def after(self) -> list[float]:
        return self.sae.encode(self.y + self.delta).tolist()

    @property
    def move(self) -> list[Fraction]:
        """w_j . delta."""
        return [Fraction(v) for v in (self.delta @ self.sae.W_enc).tolist()]

    def scores(self, delta: torch.Tensor | None = None) -> list[Fraction]:
        """a_j n_j in rationals, from the stored tensors."""
        y = (self.y if delta is None else self.y + delta).tolist()
        sae = self.sae
        assert isinstance(sae, (ReLUSAE, JumpReLUSAE, TopKSAE))
        b_dec = sae.b_dec.tolist() if sae.subtract_b_dec else [0.0] * D
        inputs = [self.scale * Fraction(a) - Fraction(b) for a, b in zip(y, b_dec, strict=True)]
        columns = sae.W_enc.T.tolist()
        a = [
            sum((x * Fraction(v) for x, v in zip(inputs, column, strict=True)), Fraction(bias))
            for column, bias in zip(columns, sae.b_enc.tolist(), strict=True)
        ]
        return [v * n for v, n in zip(a, self.norms, strict=True)]

    @property
    def norms(self) -> list[Fraction]:
        rescale = isinstance(self.sae, TopKSAE) and self.sae.rescale_by_decoder_norm
        return [Fraction(math.isqrt(int(sum(v * v for v in r)))) if rescale else Fraction(1) for r in self.rows]

    @property
    def rows(self) -> list[list[float]]:
        return self.sae.W_dec.tolist()


@st.composite
def points(draw: st.DrawFn, architectures: tuple[str, ...] = ARCHITECTURES) -> Point:
    def vector(n: int, entry: st.SearchStrategy[int] = ENTRY) -> torch.Tensor:
        return torch.tensor(draw(st.lists(entry, min_size=n, max_size=n)), dtype=torch.float64)

    columns = draw(st.lists(st.lists(ENTRY, min_size=D, max_size=D), min_size=M, max_size=M))
    if draw(st.booleans()):
        columns[1] = columns[0]
    if draw(st.booleans()):
        columns[2] = [0] * D
    common: dict[str, Any] = {
        "W_enc": torch.tensor(columns, dtype=torch.float64).T,
        "W_dec": torch.tensor(draw(st.permutations(ROWS)), dtype=torch.float64),
        "b_dec": vector(D),
        "subtract_b_dec": draw(st.booleans()),
        "normalization": draw(st.sampled_from([Identity(), InputScale(0.5), InputScale(2.0)])),
    }
    architecture = draw(st.sampled_from(architectures))
    y, delta = vector(D), vector(D) * draw(st.sampled_from([1.0, 0.5, 0.25]))
    if architecture == "gated":
        r_mag = torch.tensor(draw(st.lists(st.sampled_from([0.0, math.log(2.0)]), min_size=M, max_size=M))).double()
        sae: SAE = GatedSAE(**common, b_gate=vector(M), b_mag=vector(M), r_mag=torch.where(r_mag > 0, LOG2, 0.0))
    elif architecture == "relu":
        sae = ReLUSAE(**common, b_enc=vector(M))
    elif architecture == "jumprelu":
        sae = JumpReLUSAE(**common, b_enc=vector(M), threshold=vector(M, st.integers(-3, 3)))
        if draw(st.booleans()):  # exactly at the activations
            sae = JumpReLUSAE(**common, b_enc=sae.b_enc, threshold=sae.pre_activations(y))
    else:
        k = draw(st.integers(1, M))
        sae = TopKSAE(**common, b_enc=vector(M), k=k, rescale_by_decoder_norm=architecture == "topk-rescaled")
    held = draw(st.lists(st.integers(0, M - 1), min_size=1, max_size=M, unique=True))
    return Point(sae, y, delta, tuple(sorted(held)))


LOG2 = torch.tensor(math.log(2.0), dtype=torch.float64)
assert float(LOG2.exp()) == 2.0
assert np.exp(math.log(2.0)) == 2.0
