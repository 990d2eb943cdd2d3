"""Random SAEs of every architecture and normalisation."""

from __future__ import annotations

from typing import Any

import torch

from sae_verify.sae import (
    SAE,
    ConstantNormRescale,
    GatedSAE,
    Identity,
    InputScale,
    JumpReLUSAE,
    LayerNorm,
    Normalization,
    ReLUSAE,
    TopKSAE,
)

ARCHITECTURES = ("standard", "jumprelu", "topk", "topk-rescaled", "gated")
NORMALIZATIONS: tuple[Normalization, ...] = (Identity(), InputScale(0.37), LayerNorm(), ConstantNormRescale())


def make(
    architecture: str,
    normalization: Normalization | None = None,
    *,
    subtract: bool = True,
    d: int = 8,
    m: int = 24,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SAE:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    common: dict[str, Any] = {
        "W_enc": rand(d, m),
        "W_dec": rand(m, d),
        "b_dec": rand(d),
        "subtract_b_dec": subtract,
        "normalization": normalization or Identity(),
    }
    if architecture == "gated":
        return GatedSAE(**common, b_gate=rand(m), b_mag=rand(m), r_mag=0.3 * rand(m))
    common["b_enc"] = rand(m)
    if architecture == "standard":
        return ReLUSAE(**common)
    if architecture == "jumprelu":
        return JumpReLUSAE(**common, threshold=rand(m))  # some are negative
    return TopKSAE(**common, k=5, rescale_by_decoder_norm=architecture == "topk-rescaled")


def inputs(n: int = 40, d: int = 8, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (2 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 0.3).to(dtype)


def same(a: SAE, b: SAE) -> bool:
    tensors = a.tensors().keys() == b.tensors().keys() and all(
        torch.equal(s, t) and s.dtype == t.dtype
        for s, t in zip(a.tensors().values(), b.tensors().values(), strict=True)
    )
    settings = ("subtract_b_dec", "normalization", "k", "rescale_by_decoder_norm")
    return tensors and type(a) is type(b) and all(getattr(a, s, None) == getattr(b, s, None) for s in settings)
