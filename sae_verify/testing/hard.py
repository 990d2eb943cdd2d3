"""Small SAEs with the shapes that break code: tied, repeated, dependent, zero, huge and tiny columns, exact ties."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.sae import SAE, GatedSAE, Identity, InputScale, JumpReLUSAE, Normalization, ReLUSAE, TopKSAE

ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
TRAITS = {
    "integers": "small integers throughout, so that ties are exact",
    "tied": "decoder rows are the encoder's columns",
    "duplicate": "every third feature repeats the first one's column and bias",
    "parallel": "a column three times, and one minus, the first",
    "dependent": "columns that are sums of others, up to rounding",
    "zero column": "an encoder column without a direction",
    "zero row": "a decoder row without a direction (left out where the format divides by its length)",
    "huge": "columns and rows about 1e12 times as long",
    "tiny": "columns and rows about 1e-12 times as long",
    "at thresholds": "half of the features switch exactly at the residual",
    "negative thresholds": "JumpReLU thresholds below zero, which act as zero",
    "few on": "biases so low that hardly a feature is on",
    "all on": "biases so high that every feature is on",
}
"""What can be asked for, in any combination."""


@dataclass(frozen=True, eq=False)
class HardCase:
    """An SAE and the residual that its ties are at.

    Attributes:
        sae: in memory.
        x: (d,) float64.
        traits: what was asked for.
    """

    sae: SAE
    x: Array
    traits: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"HardCase({self.sae!r}, traits={self.traits}, x={self.x.tolist()})"


def hard_case(
    architecture: str,
    d: int,
    m: int,
    traits: Collection[str] = (),
    seed: int = 0,
    *,
    k: int = 2,
    scale: float = 1.0,
    subtract: bool = True,
    dtype: torch.dtype = torch.float64,
) -> HardCase:
    """Make one.

    Args:
        architecture: one of ARCHITECTURES.
        d: width.
        m: features; fewer than d is legal.
        traits: keys of TRAITS.
        seed: of everything.
        k: for TopK, at most m is used.
        scale: constant factor on the input.
        subtract: whether b_dec is subtracted from the input.
        dtype: of the weights.

    Raises:
        InputError: an unknown architecture or trait.
    """
    if architecture not in ARCHITECTURES or not set(traits) <= set(TRAITS):
        raise InputError(
            f"architecture {architecture!r}, traits {sorted(traits)}",
            rule=f"architectures are {', '.join(ARCHITECTURES)}; traits are {', '.join(TRAITS)}",
        )
    rng, whole = np.random.default_rng(seed), "integers" in traits

    def draw(*shape: int) -> Array:
        return rng.integers(-2, 3, shape).astype(np.float64) if whole else rng.standard_normal(shape)

    columns, bias = draw(m, d), 0.5 * draw(m) + (0.0 if whole else -0.5)
    bias += 20.0 * ("all on" in traits) - 5.0 * ("few on" in traits)
    if "duplicate" in traits:
        columns[::3], bias[::3] = columns[0], bias[0]
    if "parallel" in traits:
        columns[1 % m], columns[m // 2] = 3.0 * columns[0], -columns[0]
    if "dependent" in traits and m > 2:
        columns[-1] = columns[0] + columns[1]
        columns[m // 3] = columns[0] - 0.5 * columns[-2]
    rows = columns.copy() if "tied" in traits else draw(m, d)
    for trait, exponent in (("huge", 40), ("tiny", -40)):
        if trait in traits:
            some = rng.choice(m, max(1, m // 4), replace=False)
            columns[some], bias[some] = np.ldexp(columns[some], exponent), np.ldexp(bias[some], exponent)
            rows[rng.choice(m, max(1, m // 4), replace=False)] *= 2.0**exponent
    if "zero column" in traits:
        columns[rng.integers(m)] = 0.0
    if "zero row" in traits and architecture != "topk-rescaled":
        rows[rng.integers(m)] = 0.0
    if architecture == "topk-rescaled":
        rows[~rows.any(axis=1), 0] = 1.0
    b_dec, x = 0.5 * draw(d), draw(d)
    tensors = {name: torch.from_numpy(v).to(dtype) for name, v in (("W_enc", columns.T), ("W_dec", rows))}
    common: dict[str, Any] = {
        **tensors,
        "b_dec": torch.from_numpy(b_dec).to(dtype),
        "subtract_b_dec": subtract,
        "normalization": _normalization(scale),
    }
    built = _build(architecture, common, torch.from_numpy(bias).to(dtype), traits, rng, min(k, m))
    return HardCase(_tie(built, x, rng) if "at thresholds" in traits else built, x, tuple(traits))


def _normalization(scale: float) -> Normalization:
    return Identity() if scale == 1.0 else InputScale(scale)


def _build(
    architecture: str, common: dict[str, Any], bias: torch.Tensor, traits: Collection[str], rng: Any, k: int
) -> SAE:
    m, dtype = len(bias), bias.dtype
    if architecture == "relu":
        return ReLUSAE(**common, b_enc=bias)
    if architecture == "jumprelu":
        threshold = torch.from_numpy(rng.integers(0, 3, m) / 2.0).to(dtype)
        return JumpReLUSAE(**common, b_enc=bias, threshold=-threshold if "negative thresholds" in traits else threshold)
    if architecture == "gated":
        r_mag = torch.from_numpy(0.5 * rng.standard_normal(m)).to(dtype)
        magnitude = bias + torch.from_numpy(0.5 * rng.standard_normal(m)).to(dtype)
        return GatedSAE(**common, b_gate=bias, b_mag=magnitude, r_mag=r_mag)
    return TopKSAE(**common, b_enc=bias, k=k, rescale_by_decoder_norm=architecture == "topk-rescaled")


def _tie(sae: SAE, x: Array, rng: np.random.Generator) -> SAE:
    """The same with half of the features exactly where they switch at x, in float64; features tie for TopK."""
    point, m = torch.from_numpy(x), sae.d_sae
    half = torch.from_numpy(rng.random(m) < 0.5)
    exact = sae.to(torch.float64)
    a = exact.pre_activations(point)
    fits = (a.to(sae.dtype).double() == a) & half  # what the weights' dtype can hold
    if isinstance(sae, JumpReLUSAE):
        return replace(sae, threshold=torch.where(fits, a.to(sae.dtype), sae.threshold))
    if isinstance(sae, TopKSAE):
        columns, bias = sae.W_enc.clone(), sae.b_enc.clone()
        columns[:, half], bias[half] = (
            columns[:, :1].clone(),
            bias[0].clone(),
        )  # equal scores, unless rows differ in length
        return replace(sae, W_enc=columns, b_enc=bias)
    name = "b_gate" if isinstance(sae, GatedSAE) else "b_enc"
    bias = getattr(sae, name)
    moved = bias - a.to(sae.dtype)
    return replace(sae, **{name: torch.where(half, moved, bias)})
