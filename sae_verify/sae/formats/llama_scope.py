"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors` (arXiv 2410.20526).

`dataset-wise` normalisation multiplies the input by s = sqrt(d) / (mean norm) and divides the output by it. Its own
loader then folds s away by dividing the biases, and compares what comes out with `jump_relu_threshold`; so, in the
units of the stored weights, feature j is on where its pre-activation exceeds threshold s, or threshold s / |d_j| if
`sparsity_include_decoder_norm`. The weights are taken as stored, and codes are in their units, as SAELens has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import InputError, MetadataError, UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import read_json, renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import check_size, number, one_of, optional, required, section, text
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import has_safetensors, read_safetensors
from sae_verify.sae.normalization import ConstantNormRescale, Identity, InputScale, Normalization

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
NORMS = ("dataset-wise", "token-wise", "none", "inference")
UNITS = "codes are in units of the stored weights; Llama Scope's own loader gives them divided by the input scale"


def recognises(path: Path) -> bool:
    """A directory with both files."""
    return path.is_dir() and (path / CONFIG).is_file() and has_safetensors(path / WEIGHTS)


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a Llama Scope SAE; errors as every format."""
    file = path / CONFIG
    config = read_json(file)
    if optional(config, "use_glu_encoder", bool, False, file):
        raise UnsupportedError(f"use_glu_encoder in {file} is true", rule="a gate that multiplies is not modelled")
    reads, writes = text(config, "hook_point_in"), text(config, "hook_point_out")
    if writes not in (None, reads):
        raise UnsupportedError(f"{file} reads {reads!r} and writes {writes!r}", rule="transcoders are not read from it")
    activation = one_of(config, "act_fn", ("jumprelu", "relu", "topk"), file)
    norm_weighted = required(config, "sparsity_include_decoder_norm", bool, file)
    if activation == "topk" and norm_weighted:
        raise UnsupportedError(
            f"{file} has act_fn 'topk' and sparsity_include_decoder_norm",
            rule="its code is in other units than its ranking, which is not modelled",
        )
    with_bias = optional(config, "use_decoder_bias", bool, True, file)
    names = {"W_enc": "encoder.weight.T", "W_dec": "decoder.weight.T", "b_enc": "encoder.bias"}
    names |= {"b_dec": "decoder.bias"} if with_bias else {}
    loaded, _ = read_safetensors(path / WEIGHTS, path)
    tensors = renamed(loaded, names, path / WEIGHTS, "Llama Scope")
    if not with_bias:
        tensors["b_dec"] = torch.zeros(tensors["W_dec"].shape[-1], dtype=tensors["W_dec"].dtype)
    norm, scale = _normalization(config, tensors["W_enc"].shape[0], input_scale, file)
    settings: dict[str, Any] = {}
    if activation == "jumprelu":
        tensors["threshold"] = _threshold(number(config, "jump_relu_threshold", file), tensors, scale, norm_weighted)
    elif activation == "topk":
        settings = {"k": required(config, "top_k", int, file), "rescale_by_decoder_norm": False}
    stored = Stored(
        architecture="standard" if activation == "relu" else activation,
        tensors=tensors,
        subtract_b_dec=with_bias and required(config, "apply_decoder_bias_to_pre_encoder", bool, file),
        settings=settings,
        normalization=norm,
        source=Source("llama-scope", path, reads, None, None, (UNITS,) if scale != 1.0 else ()),
    )
    sizes = {key: optional(config, key, int, None, file) for key in ("d_model", "d_sae")}
    check_size(sizes, {"d_model": stored.d_in, "d_sae": stored.d_sae}, file)
    return stored


def _normalization(
    config: Mapping[str, Any], d_in: int, input_scale: float | None, file: Path
) -> tuple[Normalization, float]:
    """The normalisation, and the constant scale s that thresholds are multiplied by."""
    if input_scale is not None:
        raise InputError(f"input_scale is {input_scale!r}", rule=f"{file} says how the input is scaled")
    kind = one_of(config, "norm_activation", NORMS, file)
    if kind == "token-wise":
        return ConstantNormRescale(), 1.0
    if kind != "dataset-wise":
        return Identity(), 1.0
    norms = section(config, "dataset_average_activation_norm", file)
    mean = number(norms, "in", file)
    if number(norms, "out", file) != mean:
        raise UnsupportedError(
            f"dataset_average_activation_norm in {file} is {norms}", rule="an SAE writes what it reads, in one scale"
        )
    if not (math.isfinite(mean) and mean > 0):
        raise MetadataError(f"dataset_average_activation_norm in {file} is {mean}", rule="a norm is positive")
    scale = math.sqrt(d_in) / mean
    return InputScale(scale), scale


def _threshold(level: float, tensors: Mapping[str, Tensor], scale: float, norm_weighted: bool) -> Tensor:
    """Thresholds in the units of the stored weights, (d_sae,), to the nearest float32."""
    if not (math.isfinite(level) and level >= 0):
        raise MetadataError(f"jump_relu_threshold is {level}", rule="it is at least 0: below, codes would be negative")
    decoder = tensors["W_dec"]
    size = torch.full(tensors["b_enc"].shape[:1], level * scale, dtype=torch.float64)
    if norm_weighted and decoder.shape[:1] == size.shape:  # otherwise the shapes are refused where they are checked
        size = size / torch.linalg.vector_norm(decoder, dim=1, dtype=torch.float64)
    return size.float()


FORMAT = Format(
    name="llama-scope",
    title="Llama Scope",
    layout=f"{CONFIG}, {WEIGHTS}",
    architectures=("jumprelu", "relu", "topk"),
    recognises=recognises,
    read=read,
    downloads=(CONFIG, WEIGHTS),
)
