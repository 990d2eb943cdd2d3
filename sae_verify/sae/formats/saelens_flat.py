"""SAELens configs from before version 6: flat, the algebra's keys among hundreds of training options, with defaults.

What a missing key stands for is SAELens's own rule for these files; a note of the SAE says which were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_verify.errors import MetadataError, UnsupportedError
from sae_verify.sae.formats.settings import AVERAGE_NORM

REMEDY = "load it with SAELens 6 and save it again"
DEFAULTS: dict[str, Any] = {"architecture": "standard", "apply_b_dec_to_input": True, "normalize_activations": "none"}


def from_flat(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Return the config of version 6, the tensors without a scaling factor of ones, and notes on defaults.

    Raises:
        UnsupportedError: an option that changes the algebra and is not modelled.
        MetadataError: an option of the wrong type.

    """
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    hook = str(config.get("hook_name", config.get("hook_point", "")))
    head = config.get("hook_head_index", config.get("hook_point_head_index"))
    for what, bad in {
        f"activation function {activation!r}": activation not in ("relu", "topk"),
        "finetuning_scaling_factor": bool(config.get("finetuning_scaling_factor", False)),
        f"hook point {hook!r}, whose activations are reshaped,": "hook_z" in hook,
        "hook_head_index": head is not None,
    }.items():
        if bad:
            raise UnsupportedError(f"{path} is from before SAELens 6 and has {what}", remedy=REMEDY)
    result = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    if isinstance(result["normalize_activations"], bool):
        result["normalize_activations"] = AVERAGE_NORM if result["normalize_activations"] else "none"
    if activation == "topk":
        result |= {"architecture": "topk", "k": _k(config, path), "rescale_acts_by_decoder_norm": False}
    elif result["architecture"] == "topk":
        raise UnsupportedError(
            f"{path} is from before SAELens 6 and has architecture 'topk' with activation {activation!r}", remedy=REMEDY
        )
    missing = [key for key in DEFAULTS if config.get(key) is None]
    notes = (f"from before SAELens 6, by whose rule missing settings are {_shown(result, missing)}",) if missing else ()
    return result, _without_ones(tensors, path), notes


def _k(config: Mapping[str, Any], path: Path) -> int:
    options = config.get("activation_fn_kwargs", {})
    if not isinstance(options, dict) or set(options) != {"k"} or type(options["k"]) is not int:
        raise MetadataError(
            f"activation_fn_kwargs in {path} is {options!r}", rule="for topk it is {'k': an integer}", remedy=REMEDY
        )
    return options["k"]


def _without_ones(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without `scaling_factor`, which some versions wrote for nothing."""
    factor = tensors.get("scaling_factor")
    if factor is not None and not bool((factor == 1).all()):
        raise UnsupportedError(f"{path} has a scaling_factor that is not 1", remedy=REMEDY)
    return {name: tensor for name, tensor in tensors.items() if name != "scaling_factor"}


def _shown(config: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(f"{key} = {config[key]}" for key in keys)
