"""One bare `.safetensors` file: SAELens tensor names, and the settings in the file's own `__metadata__`.

Every setting is a string there: `architecture` (standard, jumprelu, topk, gated), `apply_b_dec_to_input` (true,
false), `normalize_activations`, for topk `k` and `rescale_acts_by_decoder_norm`; and `hook_name` and `model_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_verify.errors import MetadataError, UnsupportedError
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.settings import VECTORS, build, normalization, required, tensor_names
from sae_verify.sae.formats.tensors import read_safetensors, take

SETTINGS = ("architecture", "apply_b_dec_to_input", "normalize_activations", "k", "rescale_acts_by_decoder_norm")
LABELS = ("hook_name", "model_name", "format")
"""Keys that do not change the algebra; other writers put `format: pt` into every file."""


def load_plain(path: Path, input_scale: float | None = None) -> SAE:
    """Read an SAE from one safetensors file.

    Args:
        path: the file.
        input_scale: constant s with N(x) = s x.

    Raises:
        FileFormatError, MetadataError, ShapeError, UnsupportedError, WeightsError, InputError.

    """
    tensors, metadata = read_safetensors(path)
    unknown = sorted(set(metadata) - {*SETTINGS, *LABELS})
    if unknown:
        raise UnsupportedError(
            f"__metadata__ of {path} has unknown keys {unknown}",
            rule=f"known are {', '.join((*SETTINGS, *LABELS))}, and another key might change the algebra",
            remedy="remove them",
        )
    architecture = required(metadata, "architecture", str, path)
    if architecture not in VECTORS:
        raise UnsupportedError(
            f"architecture in {path} is {architecture!r}", rule=f"supported are {', '.join(VECTORS)}"
        )
    settings: dict[str, Any] = {"apply_b_dec_to_input": _boolean(metadata, "apply_b_dec_to_input", path)}
    if architecture == "topk":
        settings["k"] = _integer(metadata, "k", path)
        settings["rescale_acts_by_decoder_norm"] = _boolean(metadata, "rescale_acts_by_decoder_norm", path)
    elif unused := [key for key in ("k", "rescale_acts_by_decoder_norm") if key in metadata]:
        raise UnsupportedError(f"{path} gives {unused} with architecture {architecture!r}", rule="only topk has them")
    norm = normalization(required(metadata, "normalize_activations", str, path), input_scale, path)
    weights = take(tensors, tensor_names(architecture), path, f"architecture {architecture!r}")
    source = Source("safetensors", path, metadata.get("hook_name"), metadata.get("model_name"))
    return build(architecture, weights, settings, norm, source)


def _boolean(metadata: Mapping[str, str], key: str, path: Path) -> bool:
    value = required(metadata, key, str, path)
    if value not in ("true", "false"):
        raise MetadataError(f"{key} in {path} is {value!r}", rule="it must be 'true' or 'false'")
    return value == "true"


def _integer(metadata: Mapping[str, str], key: str, path: Path) -> int:
    value = required(metadata, key, str, path)
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise MetadataError(f"{key} in {path} is {value!r}", rule="it must be a positive integer in decimal digits")
    return int(value)
