"""SAELens directories: `cfg.json` and `sae_weights.safetensors`; configs from before version 6 are in saelens_flat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.batch_topk import run_time_threshold
from sae_verify.sae.formats.files import read_json, renamed, take
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.saelens_flat import from_flat
from sae_verify.sae.formats.settings import (
    check_size,
    normalization,
    number,
    one_of,
    optional,
    refuse_unknown_keys,
    required,
    section,
    text,
)
from sae_verify.sae.formats.stored import ARCHITECTURES, TRANSCODERS, Stored, tensor_names
from sae_verify.sae.formats.tensors import has_safetensors, read_safetensors
from sae_verify.sae.normalization import Identity, InputScale

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
THRESHOLD_TRAINING = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that exist only while training, and run as JumpReLU with one constant threshold."""
TRANSCODER_NAMES = {"transcoder": "standard", "skip_transcoder": "standard"}
TRANSCODER_NAMES |= {"jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu"}
KNOWN = ("standard", "jumprelu", "topk", "abstopk", "gated", "matching_pursuit", *THRESHOLD_TRAINING, *TRANSCODER_NAMES)

SCALE_KEY = "sae_verify_input_scale"
"""Metadata key under which `save_sae` records a constant input scale, which SAELens itself has no place for."""

ALGEBRA_KEYS = {"architecture", "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "d_in", "d_sae"}
ALGEBRA_KEYS |= {"k", "rescale_acts_by_decoder_norm"}
OWN_KEYS = {"matching_pursuit": {"residual_threshold", "max_iterations", "stop_on_duplicate_support"}}
OWN_KEYS |= {name: {"d_out"} for name in TRANSCODER_NAMES}
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


def recognises(path: Path) -> bool:
    """A directory with both files."""
    return path.is_dir() and (path / CONFIG).is_file() and has_safetensors(path / WEIGHTS)


def read(directory: Path, input_scale: float | None = None) -> Stored:
    """Read a SAELens directory; the weights are taken as stored, with nothing folded.

    Args:
        directory: holds `cfg.json` and `sae_weights.safetensors`, or the latter's shards and their index.
        input_scale: constant s with N(x) = s x, where the config leaves it open.

    Raises:
        FileFormatError, MetadataError, ShapeError, UnsupportedError, InputError.

    """
    path = directory / CONFIG
    config = read_json(path)
    older = "metadata" not in config
    metadata = config if older else section(config, "metadata", path)
    tensors, _ = read_safetensors(directory / WEIGHTS)
    notes: tuple[str, ...] = ()
    if older:
        config, tensors, notes = from_flat(config, tensors, path)
    stored = one_of(config, "architecture", KNOWN, path)
    if not older:
        known = ALGEBRA_KEYS | HARMLESS_KEYS | OWN_KEYS.get(stored, set())
        refuse_unknown_keys(config, known, path, "if they do not, move them under 'metadata'")
    transcoder = stored in TRANSCODER_NAMES
    settings = _settings(config, stored, path)
    _check_hooks(config, metadata, path, transcoder=transcoder)
    subtract = required(config, "apply_b_dec_to_input", bool, path)
    scale = _scale(metadata, input_scale, path)
    norm = normalization(required(config, "normalize_activations", str, path), scale, path)
    if transcoder and (subtract or not isinstance(norm, Identity)):
        raise UnsupportedError(f"{path} is a transcoder that normalises or subtracts b_dec", rule="neither is modelled")
    result = Stored(
        architecture="jumprelu" if stored in THRESHOLD_TRAINING else TRANSCODER_NAMES.get(stored) or stored,
        tensors=_tensors(tensors, stored, directory / WEIGHTS),
        subtract_b_dec=subtract,
        settings=settings,
        normalization=norm,
        source=Source(
            "saelens",
            directory,
            text(metadata, "hook_name") or text(metadata, "hook_point"),
            text(metadata, "model_name"),
            stored if stored in THRESHOLD_TRAINING else None,
            (*notes, *_notes(metadata)),
        ),
        transcoder=transcoder,
    )
    claimed: dict[str, int | None] = {key: required(config, key, int, path) for key in ("d_in", "d_sae")}
    found = {"d_in": result.d_in, "d_sae": result.d_sae}
    if transcoder:
        claimed["d_out"], found["d_out"] = required(config, "d_out", int, path), result.tensors["W_dec"].shape[1]
    check_size(claimed, found, path)
    return result


def _check_hooks(config: Mapping[str, Any], metadata: Mapping[str, Any], path: Path, *, transcoder: bool) -> None:
    hook, written = metadata.get("hook_name"), metadata.get("hook_name_out")
    elsewhere = written not in (None, hook) and not transcoder
    if metadata.get("hook_head_index") is not None or elsewhere:
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


def _settings(config: Mapping[str, Any], stored: str, path: Path) -> dict[str, Any]:
    """What the constructor takes besides tensors."""
    rescale = optional(config, "rescale_acts_by_decoder_norm", bool, False, path)
    if stored in ("topk", "abstopk"):
        return {"k": required(config, "k", int, path), "rescale_by_decoder_norm": rescale}
    if rescale:
        raise UnsupportedError(
            f"rescale_acts_by_decoder_norm in {path} is true with architecture {stored!r}",
            rule="the threshold is then in units of the decoder norms, which must be folded into the weights first",
            remedy="export it with save_inference_model of SAELens, which folds them and writes a jumprelu SAE",
        )
    if stored == "matching_pursuit":
        return {
            "residual_threshold": number(config, "residual_threshold", path),
            "max_iterations": optional(config, "max_iterations", int, None, path),
            "stop_on_duplicate_support": required(config, "stop_on_duplicate_support", bool, path),
        }
    return {}


def _tensors(tensors: Mapping[str, Tensor], stored: str, path: Path) -> dict[str, Tensor]:
    what = f"architecture {stored!r}"
    if stored == "matching_pursuit":  # tied: the encoder is not stored
        return renamed(tensors, {"W_dec": "W_dec", "b_dec": "b_dec"}, path, what) | {"W_enc": tensors["W_dec"].T}
    if stored in TRANSCODER_NAMES:
        skip = ("W_skip",) if "skip" in stored else ()
        return take(tensors, ("W_enc", "W_dec", "b_dec", *TRANSCODERS[TRANSCODER_NAMES[stored]], *skip), path, what)
    if stored not in THRESHOLD_TRAINING:
        return take(tensors, tensor_names(stored), path, what)
    names = {name: "topk_threshold" if name == "threshold" else name for name in tensor_names("jumprelu")}
    found = renamed(tensors, names, path, what)
    return {**found, "threshold": run_time_threshold(found["threshold"], found["b_enc"].shape[0], path)}


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


def _notes(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    options = metadata.get("model_from_pretrained_kwargs")
    if isinstance(options, dict) and options.get("center_writing_weights") is True:
        return ("trained on a model with centred writing weights: its residuals have mean zero over d_in",)
    return ()


assert set(KNOWN) <= {*ARCHITECTURES, *THRESHOLD_TRAINING, *TRANSCODER_NAMES}

FORMAT = Format(
    name="saelens",
    title="SAELens 6, and before 6",
    layout=f"{CONFIG}, {WEIGHTS}",
    architectures=KNOWN,
    recognises=recognises,
    read=read,
    downloads=(CONFIG, WEIGHTS),
    checked=True,
)
