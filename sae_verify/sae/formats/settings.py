"""Settings that decide the algebra, read from untyped metadata: a missing one is an error, never a default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_verify.errors import InputError, MetadataError, UnsupportedError
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.normalization import ConstantNormRescale, Identity, InputScale, LayerNorm, Normalization
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE

VECTORS = {
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
"""Tensors of each architecture besides W_enc, W_dec and b_dec, under SAELens names."""

NORMALIZATIONS: dict[str, type[Normalization]] = {
    "none": Identity,
    "layer_norm": LayerNorm,
    "constant_norm_rescale": ConstantNormRescale,
}
AVERAGE_NORM = "expected_average_only_in"


def tensor_names(architecture: str) -> tuple[str, ...]:
    """Return the names of all tensors that an architecture stores."""
    return ("W_enc", "W_dec", "b_dec", *VECTORS[architecture])


def required(settings: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    """Return `settings[key]`, which must be exactly of this type.

    Raises:
        MetadataError: it is missing or of another type.

    """
    if key not in settings or settings[key] is None:
        raise MetadataError(
            f"{path} does not give {key!r}",
            rule="the algebra depends on it and there is no default",
            remedy=f"add {key} to the metadata, as the SAE was trained",
        )
    if type(settings[key]) is not kind:
        raise MetadataError(f"{key} in {path} is {settings[key]!r}", rule=f"it must be of type {kind.__name__}")
    return settings[key]


def normalization(name: str, input_scale: float | None, path: Path) -> Normalization:
    """Return the normalisation of this name, with the caller's constant scale where there is one.

    Raises:
        MetadataError: the format needs a scale that neither the file nor the caller gives.
        UnsupportedError: the name is unknown.
        InputError: a scale is given for a normalisation that computes its own.

    """
    if name == AVERAGE_NORM and input_scale is None:
        raise MetadataError(
            f"normalize_activations in {path} is {name!r} and the scale is not stored",
            rule="the SAE was trained on activations times sqrt(d_in) / (mean norm), and the weights do not tell "
            "whether that factor is folded into them",
            remedy="give input_scale=1.0 if it is folded in, else input_scale=sqrt(d_in) / (mean norm)",
        )
    if name in (AVERAGE_NORM, "none") and input_scale is not None:
        return InputScale(input_scale)
    if name not in NORMALIZATIONS:
        raise UnsupportedError(
            f"normalize_activations in {path} is {name!r}",
            rule=f"supported are {', '.join((*NORMALIZATIONS, AVERAGE_NORM))}",
            remedy="fold the normalisation into the weights and export the SAE again",
        )
    if input_scale is not None:
        raise InputError(
            f"input_scale is {input_scale!r} and {path} has normalize_activations {name!r}",
            rule=f"{name} computes its own scale",
            remedy="leave input_scale out",
        )
    return NORMALIZATIONS[name]()


def build(
    architecture: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], norm: Normalization, source: Source
) -> SAE:
    """Return the SAE from widened tensors under SAELens names.

    Args:
        architecture: a key of `VECTORS`.
        tensors: exactly `tensor_names(architecture)`.
        settings: `apply_b_dec_to_input`, and for topk `k` and `rescale_acts_by_decoder_norm`, already checked.
        norm: the normalisation.
        source: where it came from.

    """
    subtract = settings["apply_b_dec_to_input"]
    common = {**tensors, "subtract_b_dec": subtract, "normalization": norm, "source": source}
    if architecture == "standard":
        return ReLUSAE(**common)
    if architecture == "jumprelu":
        return JumpReLUSAE(**common)
    if architecture == "gated":
        return GatedSAE(**common)
    return TopKSAE(**common, k=settings["k"], rescale_by_decoder_norm=settings["rescale_acts_by_decoder_norm"])
