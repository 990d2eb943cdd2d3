"""SAE files, decoded by the checker itself from the published formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import Rejected
from .files import Tensor, digest_tensors, json_file, npz, safetensors, strict_json
from .sae import Sae

_VECTORS = {
    "relu": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
_AVERAGE = "expected_average_only_in"
_KNOWN_WORDS = (
    "architecture apply_b_dec_to_input normalize_activations reshape_activations k rescale_acts_by_decoder_norm "
    "d_in d_sae dtype device metadata sae_lens_version sae_lens_training_version decoder_init_norm l1_coefficient "
    "lp_norm l1_warm_up_steps l0_coefficient l0_warm_up_steps jumprelu_init_threshold jumprelu_bandwidth "
    "jumprelu_sparsity_loss_mode jumprelu_tanh_scale jumprelu_ste_to_input target_l0 pre_act_loss_coefficient "
    "aux_loss_coefficient use_sparse_activations topk_threshold_lr matryoshka_widths use_matryoshka_aux_loss"
)
_KNOWN = frozenset(_KNOWN_WORDS.split())
"""Keys of a SAELens 6 configuration; those not read below change training only."""
_SAELENS = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk", "gated": "gated"}


def load_weights(path: Path, input_scale: float | None) -> Sae:
    """Read an SAE: a SAELens directory, Gemma Scope's params.npz (or its directory), or plain safetensors."""
    if (path / "cfg.json").is_file():
        return _saelens(path, input_scale)
    if path.suffix == ".npz" or (path / "params.npz").is_file():
        tensors = npz(path if path.suffix == ".npz" else path / "params.npz")
        names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
        stored = names if "W_enc" in tensors else tuple(name.lower() for name in names)
        if set(tensors) != set(stored):
            raise Rejected(f"{path.name}: a Gemma Scope file holds {sorted(names)}, found {sorted(tensors)}")
        renamed = {name: tensors[key] for name, key in zip(names, stored, strict=True)}
        return build(renamed, "jumprelu", {}, input_scale)
    if path.suffix == ".safetensors":
        return _plain(path, input_scale)
    raise Rejected(f"{path}: no SAE in a format that the checker reads")


def build(tensors: Mapping[str, Tensor], architecture: str, settings: dict[str, Any], input_scale: float | None) -> Sae:
    """The algebra from named tensors and settings; the digest covers both."""
    allowed = {"k", "rescale_acts_by_decoder_norm", "apply_b_dec_to_input", "normalize_activations"}
    assert set(settings) <= allowed
    names = ("W_enc", "W_dec", "b_dec", *_VECTORS[architecture])
    missing = sorted(set(names) - set(tensors))
    if missing:
        raise Rejected(f"SAE tensors {missing} are missing")
    if input_scale is not None and settings.get("normalize_activations", "none") not in ("none", _AVERAGE):
        raise Rejected(f"an input scale is given for {settings['normalize_activations']!r}")
    normalization = settings.get("normalize_activations", "none")
    if normalization == _AVERAGE:
        if input_scale is None:
            raise Rejected(f"normalize_activations={_AVERAGE!r} needs an explicit input scale")
        normalization = "none"
    if normalization not in ("none", "layer_norm", "constant_norm_rescale"):
        raise Rejected(f"normalisation {normalization!r} is not known")
    scale = 1.0 if input_scale is None else input_scale
    W_enc = np.asfortranarray(tensors["W_enc"].float64())  # columns are what is read one by one
    parameters: dict[str, Any] = {}
    for name in _VECTORS[architecture]:
        value = tensors[name].float64()
        parameters[name] = np.full(W_enc.shape[1:], float(value)) if name == "threshold" and value.ndim == 0 else value
    if architecture == "topk":
        k = settings.get("k")
        if isinstance(k, bool) or not isinstance(k, int) or W_enc.ndim != 2 or not 1 <= k <= W_enc.shape[1]:
            raise Rejected(f"k is {k!r}")
        parameters |= {"k": k, "rescale": settings.get("rescale_acts_by_decoder_norm") is True}
    identity = {"architecture": architecture, **settings, "input_scale": input_scale}
    return Sae(
        architecture=architecture,
        W_enc=W_enc,
        W_dec=tensors["W_dec"].float64(),
        b_dec=tensors["b_dec"].float64(),
        parameters=parameters,
        subtract_b_dec=settings.get("apply_b_dec_to_input") is True,
        normalization=normalization,
        input_scale=scale,
        digest=digest_tensors({name: tensors[name] for name in names}, identity),
    )


def _saelens(directory: Path, input_scale: float | None) -> Sae:
    config = json_file(directory / "cfg.json")
    if not isinstance(config, dict):
        raise Rejected("cfg.json is no object")
    _refuse_unmodelled(config)
    metadata = config.get("metadata")
    recorded = metadata.get("sae_verify_input_scale") if isinstance(metadata, dict) else None
    if recorded is not None and recorded != input_scale:
        raise Rejected(
            f"cfg.json records an input scale of {recorded!r}, and the certificate speaks of {input_scale!r}"
        )
    tensors = safetensors(directory / "sae_weights.safetensors")
    name = config.get("architecture")
    architecture = _SAELENS.get(name) if isinstance(name, str) else None
    if name in ("batchtopk", "matryoshka_batchtopk") and "topk_threshold" in tensors:
        architecture = "jumprelu"
        tensors = {("threshold" if key == "topk_threshold" else key): value for key, value in tensors.items()}
    if architecture is None:
        raise Rejected(f"cfg.json: architecture {name!r} is not one that the checker reads")
    if set(tensors) != {"W_enc", "W_dec", "b_dec", *_VECTORS[architecture]}:
        raise Rejected(f"sae_weights.safetensors: tensors {sorted(tensors)} are not those of architecture {name!r}")
    settings = {key: config.get(key) for key in ("apply_b_dec_to_input", "normalize_activations")}
    rescale = config.get("rescale_acts_by_decoder_norm", False)
    if not isinstance(settings["apply_b_dec_to_input"], bool) or not isinstance(rescale, bool):
        raise Rejected("cfg.json: apply_b_dec_to_input and rescale_acts_by_decoder_norm must be true or false")
    if not isinstance(settings["normalize_activations"], str):
        raise Rejected("cfg.json: normalize_activations is missing")
    if architecture == "topk":
        settings |= {"k": config.get("k"), "rescale_acts_by_decoder_norm": rescale}
    elif rescale:
        raise Rejected(f"cfg.json: architecture {name!r} with rescale_acts_by_decoder_norm is not supported")
    return build(tensors, architecture, settings, input_scale)


def _refuse_unmodelled(config: dict[str, Any]) -> None:
    """Whatever in cfg.json might change the algebra and is not read is a rejection."""
    if config.get("reshape_activations", "none") != "none":
        raise Rejected("cfg.json: reshaped activations are not supported")
    if "metadata" in config:
        unknown = sorted(set(config) - _KNOWN)
        if unknown:
            raise Rejected(f"cfg.json: unknown keys {unknown[:8]} might change the algebra")
        return
    # From before SAELens 6: the algebra's keys lie among hundreds of training options.
    hook = str(config.get("hook_name", config.get("hook_point", "")))
    if (
        config.get("activation_fn_str", config.get("activation_fn", "relu")) != "relu"
        or config.get("finetuning_scaling_factor", False)
        or config.get("hook_head_index") is not None
        or config.get("architecture") == "topk"
        or "hook_z" in hook
    ):
        raise Rejected("cfg.json is from before SAELens 6 and has options that are not supported")


def _plain(path: Path, input_scale: float | None) -> Sae:
    """SAELens tensor names in one file; the settings are strings in the header's `__metadata__`, none has a default."""
    tensors = safetensors(path)  # validates the header that is read again below
    with path.open("rb") as file:
        header = strict_json(file.read(int.from_bytes(file.read(8), "little")), path.name)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Rejected(f"{path.name}: there are no settings in __metadata__")
    architecture = _SAELENS.get(metadata.get("architecture", ""))
    if architecture is None:
        raise Rejected(f"{path.name}: architecture {metadata.get('architecture')!r} is not one that the checker reads")
    flags = ("apply_b_dec_to_input", *(("rescale_acts_by_decoder_norm",) if architecture == "topk" else ()))
    needed = {"architecture", "normalize_activations", *flags, *(("k",) if architecture == "topk" else ())}
    labels = {"hook_name", "model_name", "format"}
    if set(metadata) - labels != needed or any(metadata[flag] not in ("true", "false") for flag in flags):
        raise Rejected(f"{path.name}: the settings must be exactly {sorted(needed)}, found {sorted(metadata)}")
    names = {"W_enc", "W_dec", "b_dec", *_VECTORS[architecture]}
    if set(tensors) != names:
        raise Rejected(f"{path.name}: the tensors must be exactly {sorted(names)}, found {sorted(tensors)}")
    settings: dict[str, Any] = {flag: metadata[flag] == "true" for flag in flags}
    settings["normalize_activations"] = metadata["normalize_activations"]
    if architecture == "topk":
        if not (metadata["k"].isascii() and metadata["k"].isdigit() and len(metadata["k"]) < 10):
            raise Rejected(f"{path.name}: k is {metadata['k']!r}")
        settings["k"] = int(metadata["k"])
    return build(tensors, architecture, settings, input_scale)
