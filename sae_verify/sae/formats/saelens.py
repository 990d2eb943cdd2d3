"""SAELens directories: `cfg.json` and `sae_weights.safetensors`, version 6 and the flat configs before it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_verify.errors import FileFormatError, InputError, MetadataError, ShapeError, UnsupportedError
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.settings import AVERAGE_NORM, NORMALIZATIONS, build, normalization, required, tensor_names
from sae_verify.sae.formats.tensors import read_json, read_safetensors, take
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.normalization import InputScale
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
THRESHOLD_TRAINING = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that exist only while training, and run as JumpReLU with one constant threshold."""

SCALE_KEY = "sae_verify_input_scale"
"""Metadata key under which `save_sae` records a constant input scale, which SAELens itself has no place for."""

WRITTEN_VERSION = "6.0.0"
ALGEBRA_KEYS = {"architecture", "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "k"}
ALGEBRA_KEYS |= {"rescale_acts_by_decoder_norm", "d_in", "d_sae"}
HARMLESS_KEYS = {
    "dtype",
    "device",
    "metadata",
    "sae_lens_version",
    "sae_lens_training_version",
    "decoder_init_norm",
    "l1_coefficient",
    "lp_norm",
    "l1_warm_up_steps",
    "l0_coefficient",
    "l0_warm_up_steps",
    "jumprelu_init_threshold",
    "jumprelu_bandwidth",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale",
    "jumprelu_ste_to_input",
    "target_l0",
    "pre_act_loss_coefficient",
    "aux_loss_coefficient",
    "use_sparse_activations",
    "topk_threshold_lr",
    "matryoshka_widths",
    "use_matryoshka_aux_loss",
}
"""Keys of SAELens 6 that change training only."""

REPLACEABLE = {CONFIG, WEIGHTS, "sparsity.safetensors", "runner_cfg.json"}
"""What a directory may hold for `save_sae` to replace it."""


def load_saelens(directory: Path, input_scale: float | None = None) -> SAE:
    """Read a SAELens directory; the weights are taken as stored, with nothing folded.

    Args:
        directory: holds `cfg.json` and `sae_weights.safetensors`.
        input_scale: constant s with N(x) = s x, where the config leaves it open.

    Raises:
        FileFormatError, MetadataError, ShapeError, UnsupportedError, WeightsError, InputError.

    """
    path = directory / CONFIG
    config = read_json(path)
    metadata = config.get("metadata", {})
    if not isinstance(metadata, dict):
        raise FileFormatError(f"metadata in {path} is {metadata!r}", rule="it must be a JSON object")
    if "metadata" in config:
        _architecture(config, path)  # first: another architecture brings keys of its own
        _check_keys(config, path)
    else:
        config, metadata = _from_flat(config, path), config
    stored = _architecture(config, path)
    architecture = "jumprelu" if stored in THRESHOLD_TRAINING else stored
    required(config, "apply_b_dec_to_input", bool, path)
    hook, written = metadata.get("hook_name"), metadata.get("hook_name_out")
    if metadata.get("hook_head_index") is not None or written not in (None, hook):
        raise UnsupportedError(
            f"{path} has hook_head_index {metadata.get('hook_head_index')!r} and hook_name_out {written!r}",
            rule="an SAE must read and write one whole hook point",
            remedy="use an SAE of the residual stream",
        )
    if config.get("reshape_activations", "none") != "none":
        raise UnsupportedError(
            f"reshape_activations in {path} is {config['reshape_activations']!r}",
            rule="only SAEs on the residual stream, with reshape_activations none, are supported",
        )
    config.setdefault("rescale_acts_by_decoder_norm", False)
    if type(config["rescale_acts_by_decoder_norm"]) is not bool:
        raise MetadataError(f"rescale_acts_by_decoder_norm in {path} is not true or false")
    if architecture == "topk":
        required(config, "k", int, path)
    elif config["rescale_acts_by_decoder_norm"]:
        raise UnsupportedError(
            f"rescale_acts_by_decoder_norm in {path} is true with architecture {stored!r}",
            rule="the threshold is then in units of the decoder norms, which must be folded into the weights first",
            remedy="export it with save_inference_model of SAELens, which folds them and writes a jumprelu SAE",
        )
    scale = _scale(metadata, input_scale, path)
    norm = normalization(required(config, "normalize_activations", str, path), scale, path)
    tensors = _tensors(directory / WEIGHTS, architecture, stored)
    _check_size(config, tensors, path)
    source = Source("saelens", directory, _text(metadata, "hook_name"), _text(metadata, "model_name"))
    return build(architecture, tensors, config, norm, source)


def _architecture(config: Mapping[str, Any], path: Path) -> str:
    stored = required(config, "architecture", str, path)
    if stored not in (*ARCHITECTURES, *THRESHOLD_TRAINING):
        raise UnsupportedError(
            f"architecture in {path} is {stored!r}",
            rule=f"supported are {', '.join((*ARCHITECTURES, *THRESHOLD_TRAINING))}",
            remedy="use an SAE that acts on each position alone and reconstructs its own input",
        )
    return stored


def _check_keys(config: Mapping[str, Any], path: Path) -> None:
    unknown = sorted(set(config) - ALGEBRA_KEYS - HARMLESS_KEYS)
    if unknown:
        raise UnsupportedError(
            f"{path} has unknown keys {unknown}",
            rule="a key that is not known might change the algebra",
            remedy="if they do not, move them under 'metadata'",
        )


def _from_flat(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check a config from before SAELens 6, where the algebra's keys lie among hundreds of training options."""
    remedy = "load it with SAELens 6 and save it again"
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    hook = str(config.get("hook_name", config.get("hook_point", "")))
    for what, bad in {
        f"activation function {activation!r}": activation != "relu",
        "finetuning_scaling_factor": bool(config.get("finetuning_scaling_factor", False)),
        f"hook point {hook!r}, whose activations are reshaped,": "hook_z" in hook,
        "hook_head_index": config.get("hook_head_index") is not None,
    }.items():
        if bad:
            raise UnsupportedError(f"{path} is from before SAELens 6 and has {what}", remedy=remedy)
    for key in ("architecture", "apply_b_dec_to_input", "normalize_activations"):
        if key not in config:
            raise MetadataError(
                f"{path} is from before SAELens 6 and does not give {key!r}",
                rule="the algebra depends on it and there is no default",
                remedy=remedy,
            )
    if config["architecture"] == "topk":
        raise UnsupportedError(f"{path} is from before SAELens 6 and has architecture 'topk'", remedy=remedy)
    return dict(config)


def _scale(metadata: Mapping[str, Any], given: float | None, path: Path) -> float | None:
    recorded = metadata.get(SCALE_KEY)
    if recorded is None or given is None:
        return given if recorded is None else InputScale(recorded).scale
    if recorded != given:
        raise InputError(
            f"input_scale is {given!r} and {path} records {recorded!r}",
            rule="the two must be equal",
            remedy="leave input_scale out to use the recorded one",
        )
    return given


def _tensors(path: Path, architecture: str, stored: str) -> dict[str, Tensor]:
    tensors, _ = read_safetensors(path)
    names = tensor_names(architecture)
    if stored not in THRESHOLD_TRAINING:
        return take(tensors, names, path, f"architecture {stored!r}")
    renamed = tuple("topk_threshold" if name == "threshold" else name for name in names)
    tensors = take(tensors, renamed, path, f"architecture {stored!r}")
    threshold = tensors.pop("topk_threshold")
    if threshold.ndim != 0:
        raise ShapeError(f"topk_threshold in {path} has shape {tuple(threshold.shape)}", rule="it is one number")
    return {**tensors, "threshold": threshold.expand(tensors["b_enc"].shape)}


def _check_size(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    claimed = (required(config, "d_in", int, path), required(config, "d_sae", int, path))
    if tuple(tensors["W_enc"].shape) != claimed:
        raise ShapeError(
            f"W_enc has shape {tuple(tensors['W_enc'].shape)}",
            rule=f"{path} says (d_in, d_sae) = {claimed}",
            remedy="check that config and weights belong together",
        )


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


# --- saving ---------------------------------------------------------------------------------------------------------


def save_sae(sae: SAE, directory: Path | str) -> Path:
    """Write an SAE in the SAELens 6 format; `load_sae` gives back the same weights and algebra, bit for bit.

    Written to a temporary directory beside the target and then renamed, so that nobody sees half of it. A constant
    input scale is recorded in the metadata; SAELens itself does not apply it.

    Args:
        sae: any SAE of this package.
        directory: created; replaced only if it is empty or holds nothing but an SAE.

    Returns:
        The directory.

    Raises:
        InputError: something else is there, or it cannot be written.

    """
    target = Path(directory)
    _check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            save_file(sae.tensors(), temporary / WEIGHTS)
            (temporary / CONFIG).write_text(json.dumps(_config(sae), indent=2) + "\n", encoding="utf-8")
            (temporary / WEIGHTS).chmod(0o644)  # save_file writes for the owner alone
            temporary.chmod(0o755)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error}", remedy="choose a directory that is writable"
        ) from error
    return target


def _swap(temporary: Path, target: Path) -> None:
    """Rename `temporary` to `target`, keeping what was there until the new directory is in place."""
    if not target.exists():
        temporary.rename(target)
        return
    backup = temporary.with_name(temporary.name + ".old")
    target.rename(backup)
    try:
        temporary.rename(target)
    except OSError:
        backup.rename(target)
        raise
    shutil.rmtree(backup)


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()} if target.is_dir() and not target.is_symlink() else {"."}
    if names and (names - REPLACEABLE or not {CONFIG, WEIGHTS} <= names):
        raise InputError(
            f"{target} exists and is not an SAE directory",
            rule="only an empty directory, or one that holds nothing but an SAE, is replaced",
            remedy="choose another directory",
        )


def _config(sae: SAE) -> dict[str, Any]:
    names = {ReLUSAE: "standard", JumpReLUSAE: "jumprelu", TopKSAE: "topk", GatedSAE: "gated"}
    norms = {kind: name for name, kind in NORMALIZATIONS.items()} | {InputScale: AVERAGE_NORM}
    if type(sae) not in names or type(sae.normalization) not in norms:
        raise UnsupportedError(
            f"an SAE of type {type(sae).__name__} with {type(sae.normalization).__name__}",
            rule="SAELens 6 has no place for it",
        )
    metadata: dict[str, Any] = {
        "sae_lens_version": WRITTEN_VERSION,
        "hook_name": sae.source.hook_name,
        "model_name": sae.source.model_name,
    }
    if isinstance(sae.normalization, InputScale):
        metadata[SCALE_KEY] = float(sae.normalization.scale)
    config: dict[str, Any] = {
        "architecture": names[type(sae)],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float64" if sae.dtype == torch.float64 else "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": norms[type(sae.normalization)],
        "reshape_activations": "none",
        "metadata": metadata,
    }
    if isinstance(sae, TopKSAE):
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": sae.rescale_by_decoder_norm}
    return config
