"""SAELens directories: `cfg.json` and `sae_weights.safetensors`, version 6 (nested metadata) and below 6 (flat).

The stored weights are taken as they are. `dtype` in the config, which upstream rounds to when it loads, is not used.
Source: SAELens 6.54, `SAE.load_from_disk`, `handle_pre_6_0_config`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_verify.errors import FileFormatError, InputError, MetadataError, ShapeError, UnsupportedError
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.tensors import read_json, read_safetensors, take
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.normalization import (
    ConstantNormRescale,
    Identity,
    InputScale,
    LayerNorm,
    Normalization,
)
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE

CONFIG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"

SHARED = ("W_enc", "W_dec", "b_dec")
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")
POSITION_MIXING = ("temporal", "clt", "crosscoder")

ALGEBRA_KEYS = frozenset(
    "architecture d_in d_sae apply_b_dec_to_input normalize_activations reshape_activations k "
    "rescale_acts_by_decoder_norm metadata".split()
)
"""Keys of a version 6 config that decide the algebra; all are read below."""

TRAINING_KEYS = frozenset(
    "dtype device decoder_init_norm l1_coefficient l1_warm_up_steps lp_norm aux_loss_coefficient "
    "use_sparse_activations topk_threshold_lr matryoshka_widths use_matryoshka_aux_loss jumprelu_bandwidth "
    "jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient "
    "l0_warm_up_steps pre_act_loss_coefficient target_l0 sae_lens_version sae_lens_training_version".split()
)
"""Keys of a version 6 config known not to change the algebra of the trained SAE."""

NORM_FLOOR = 1e-8
"""Upstream's lower clamp of decoder norms when it folds them into a BatchTopK encoder."""


@dataclass(frozen=True)
class _Config:
    """What both versions of the config say, under one set of names."""

    architecture: str
    d_in: object
    d_sae: object
    apply_b_dec_to_input: bool
    normalize_activations: object
    reshape_activations: object
    k: object
    rescale: object
    metadata: dict[str, Any]


def is_saelens(directory: Path) -> bool:
    """Whether a directory has the two files of the format."""
    return (directory / CONFIG_NAME).is_file() and (directory / WEIGHTS_NAME).is_file()


def load_saelens(directory: Path, *, input_scale: float | None = None) -> SAE:
    """Read a SAELens directory.

    Args:
        directory: holds `cfg.json` and `sae_weights.safetensors`.
        input_scale: s of `expected_average_only_in`, which the files do not hold: sqrt(d_in) / (mean norm of the
            activations), or 1.0 if it is already folded into the weights.

    Raises:
        FileFormatError, WeightsError: broken files.
        MetadataError: something the algebra depends on is missing.
        UnsupportedError: an SAE whose algebra is not one of ours.
    """
    path = directory / CONFIG_NAME
    raw = read_json(path)
    config = _version_6(raw, path) if _is_version_6(raw, path) else _before_6(raw, path)
    _refuse_unsupported(config, path)
    normalization = normalization_named(config.normalize_activations, input_scale, path)
    tensors, _ = read_safetensors(directory / WEIGHTS_NAME)
    sae = _build(config, normalization, _drop_unit_scaling(tensors, directory), directory)
    if (sae.d_in, sae.d_sae) != (config.d_in, config.d_sae):
        raise ShapeError(
            f"{path} says d_in {config.d_in!r} and d_sae {config.d_sae!r}; W_enc is ({sae.d_in}, {sae.d_sae})",
            rule="config and weights must agree",
            remedy="check that the two files belong together",
        )
    return sae


def normalization_named(name: object, input_scale: float | None, path: Path) -> Normalization:
    """Return the normalisation that SAELens calls `name`; `path` is for messages.

    Raises:
        MetadataError: `expected_average_only_in` without an input scale.
        InputError: an input scale where the format has none.
        UnsupportedError: an unknown name.
    """
    if name == "expected_average_only_in":
        if input_scale is None:
            raise MetadataError(
                f"{path} says normalize_activations = 'expected_average_only_in', and no file says by which factor",
                rule="the factor changes every feature; reading without it would be silently wrong",
                remedy="give input_scale=sqrt(d_in)/(mean activation norm), or 1.0 if it is folded into the weights",
            )
        scale = InputScale(input_scale)
        return Identity() if scale.scale == 1.0 else scale
    known: dict[object, Normalization] = {
        "none": Identity(),
        "layer_norm": LayerNorm(),
        "constant_norm_rescale": ConstantNormRescale(),
    }
    if not isinstance(name, str) or name not in known:
        raise UnsupportedError(
            f"{path} says normalize_activations = {name!r}",
            rule=f"supported are {sorted(map(str, known))} and 'expected_average_only_in'",
            remedy="fold the normalisation into the weights",
        )
    if input_scale is not None:
        raise InputError(
            f"input_scale is {input_scale!r}, but {path} says normalize_activations = {name!r}",
            rule="an input scale applies to 'expected_average_only_in' only",
            remedy="leave it out",
        )
    return known[name]


# --- config -----------------------------------------------------------------------------------------------------


def _is_version_6(raw: dict[str, Any], path: Path) -> bool:
    metadata = raw.get("metadata", {})
    if not isinstance(metadata, dict):
        raise FileFormatError(f"metadata in {path} is {metadata!r}", rule="it must be a JSON object")
    version = raw.get("sae_lens_version") or metadata.get("sae_lens_version")
    if version is None:
        return "metadata" in raw  # the nested form came with version 6
    match = re.match(r"(\d+)\.", str(version))
    if match is None:
        raise MetadataError(f"sae_lens_version in {path} is {version!r}", rule="it must look like 6.1.0")
    return int(match.group(1)) >= 6


def _version_6(raw: dict[str, Any], path: Path) -> _Config:
    unknown = sorted(set(raw) - ALGEBRA_KEYS - TRAINING_KEYS)
    architecture = _required(raw, "architecture", path)
    if architecture in SUPPORTED and unknown:
        raise UnsupportedError(
            f"{path} has the unknown keys {unknown}",
            rule="a key that is not understood may change the algebra",
            remedy="remove it if it does not, or ask for support",
        )
    return _Config(
        architecture=str(architecture),
        d_in=_required(raw, "d_in", path),
        d_sae=_required(raw, "d_sae", path),
        apply_b_dec_to_input=_flag(_required(raw, "apply_b_dec_to_input", path), "apply_b_dec_to_input", path),
        normalize_activations=_required(raw, "normalize_activations", path),
        reshape_activations=_required(raw, "reshape_activations", path),
        k=raw.get("k"),
        rescale=raw.get("rescale_acts_by_decoder_norm"),
        metadata=raw.get("metadata", {}),
    )


def _before_6(raw: dict[str, Any], path: Path) -> _Config:
    """Apply the defaults that the format had before version 6 (upstream `handle_pre_6_0_config`)."""
    activation = raw.get("activation_fn", raw.get("activation_fn_str", "relu"))
    architecture, k = str(raw.get("architecture", "standard")), None
    if activation == "topk" or architecture == "topk":
        options = raw.get("activation_fn_kwargs")
        k = options.get("k") if isinstance(options, dict) else raw.get("k")
        architecture = "topk"
    elif activation != "relu":
        raise UnsupportedError(f"{path} says activation_fn = {activation!r}", rule="supported are relu and topk")
    if raw.get("finetuning_scaling_factor"):
        raise UnsupportedError(f"{path} says finetuning_scaling_factor", rule="fine-tuned scaling is not supported")
    metadata = dict(raw)
    metadata["hook_name"] = raw.get("hook_name", raw.get("hook_point"))
    metadata["hook_head_index"] = raw.get("hook_head_index", raw.get("hook_point_head_index"))
    hook_z = "hook_z" in str(metadata["hook_name"])
    normalize = raw.get("normalize_activations")
    if isinstance(normalize, bool):
        normalize = "expected_average_only_in" if normalize else "none"
    return _Config(
        architecture=architecture,
        d_in=_required(raw, "d_in", path),
        d_sae=_required(raw, "d_sae", path),
        apply_b_dec_to_input=_flag(raw.get("apply_b_dec_to_input", True), "apply_b_dec_to_input", path),
        normalize_activations="none" if normalize is None else normalize,
        reshape_activations=raw.get("reshape_activations", "hook_z" if hook_z else "none"),
        k=k,
        rescale=raw.get("rescale_acts_by_decoder_norm", False),
        metadata=metadata,
    )


def _required(raw: dict[str, Any], key: str, path: Path) -> Any:  # noqa: ANN401
    if key not in raw:
        raise MetadataError(f"{path} has no {key}", rule="the algebra depends on it", remedy=f"add {key} to the config")
    return raw[key]


def _flag(value: object, key: str, path: Path) -> bool:
    if not isinstance(value, bool):
        raise MetadataError(f"{key} in {path} is {value!r}", rule="it must be true or false")
    return value


def _refuse_unsupported(config: _Config, path: Path) -> None:
    if config.architecture not in SUPPORTED:
        mixing = any(word in config.architecture for word in POSITION_MIXING)
        reason = "it does not act on each position alone; " if mixing else ""
        raise UnsupportedError(
            f"{path} says architecture = {config.architecture!r}",
            rule=f"{reason}supported are {sorted(SUPPORTED)}",
            remedy="use an SAE of a supported architecture",
        )
    if config.reshape_activations != "none":
        raise UnsupportedError(
            f"{path} says reshape_activations = {config.reshape_activations!r}",
            rule="only SAEs on an unreshaped residual are supported",
            remedy="use an SAE trained with reshape_activations 'none'",
        )
    hook, hook_out = config.metadata.get("hook_name"), config.metadata.get("hook_name_out")
    if config.metadata.get("hook_head_index") is not None or hook_out not in (None, hook):
        raise UnsupportedError(
            f"{path} says hook_head_index = {config.metadata.get('hook_head_index')!r}, hook_name_out = {hook_out!r}",
            rule="an SAE must read and write one whole hook point",
            remedy="use an SAE of the residual stream",
        )


# --- weights ----------------------------------------------------------------------------------------------------


def _drop_unit_scaling(tensors: dict[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """Drop the all-ones `scaling_factor` that some older versions wrote."""
    scaling = tensors.get("scaling_factor")
    if scaling is None:
        return tensors
    if not bool((scaling == 1).all()):
        raise UnsupportedError(
            f"{directory / WEIGHTS_NAME} has a scaling_factor other than 1", rule="fine-tuned scaling is not supported"
        )
    return {name: tensor for name, tensor in tensors.items() if name != "scaling_factor"}


def _common(config: _Config, normalization: Normalization, directory: Path) -> dict[str, Any]:
    def text(key: str) -> str | None:
        value = config.metadata.get(key)
        return None if value is None else str(value)

    source = Source("saelens", directory, hook_name=text("hook_name"), model_name=text("model_name"))
    return {"subtract_b_dec": config.apply_b_dec_to_input, "normalization": normalization, "source": source}


def _build(config: _Config, normalization: Normalization, tensors: dict[str, Tensor], directory: Path) -> SAE:
    path, common = directory / WEIGHTS_NAME, _common(config, normalization, directory)
    what = f"a SAELens {config.architecture} SAE"
    if config.architecture == "standard":
        return ReLUSAE(**take(tensors, (*SHARED, "b_enc"), path, what), **common)
    if config.architecture == "gated":
        return GatedSAE(**take(tensors, (*SHARED, "b_gate", "b_mag", "r_mag"), path, what), **common)
    if config.architecture == "topk":
        k = integer_k(config.k, directory / CONFIG_NAME)
        rescale = _rescale(config, directory / CONFIG_NAME)
        weights = take(tensors, (*SHARED, "b_enc"), path, what)
        return TopKSAE(**weights, k=k, rescale_by_decoder_norm=rescale, **common)
    if config.architecture in BATCH_TOPK:
        rescale = _rescale(config, directory / CONFIG_NAME)
        tensors = _as_jumprelu(tensors, rescale, path)
    if "log_threshold" in tensors and "threshold" not in tensors:  # training saves of older versions
        tensors = {**tensors, "threshold": tensors["log_threshold"].exp()}
        del tensors["log_threshold"]
    return JumpReLUSAE(**take(tensors, (*SHARED, "b_enc", "threshold"), path, what), **common)


def _as_jumprelu(tensors: dict[str, Tensor], rescale: bool, path: Path) -> dict[str, Tensor]:
    """Turn a training save of a BatchTopK SAE into the JumpReLU that upstream's inference save would hold.

    As upstream, in the stored dtype: one threshold for all features, and decoder norms folded into the encoder.
    """
    names = (*SHARED, "b_enc", "topk_threshold")
    take(tensors, names, path, "the training save of a BatchTopK SAE")
    threshold = tensors["topk_threshold"]
    if threshold.numel() != 1:
        raise ShapeError(
            f"topk_threshold in {path} has shape {tuple(threshold.shape)}", rule="it must be a single number"
        )
    result = {name: tensors[name] for name in (*SHARED, "b_enc")}
    result["threshold"] = torch.ones_like(result["b_enc"]) * threshold.item()
    if rescale:
        norms = result["W_dec"].norm(dim=-1).clamp(min=NORM_FLOOR)  # (d_sae,)
        result["b_enc"] = result["b_enc"] * norms
        result["W_enc"] = result["W_enc"] * norms
        result["W_dec"] = result["W_dec"] / norms[:, None]
    return result


def integer_k(k: object, path: Path) -> int:
    """Return k as an int.

    Raises:
        MetadataError: missing, or not a whole number.
    """
    if isinstance(k, bool) or not isinstance(k, (int, float)) or k != k // 1:
        raise MetadataError(
            f"k in {path} is {k!r}",
            rule="a TopK SAE needs its k, a whole number; the weights do not tell it",
            remedy="add the k that the SAE was trained with",
        )
    return int(k)


def _rescale(config: _Config, path: Path) -> bool:
    if config.rescale is None:
        raise MetadataError(
            f"{path} has no rescale_acts_by_decoder_norm",
            rule="it decides which features are selected",
            remedy="add true or false, as the SAE was trained",
        )
    return _flag(config.rescale, "rescale_acts_by_decoder_norm", path)


SUPPORTED = frozenset({"standard", "gated", "jumprelu", "topk", *BATCH_TOPK})


# --- saving -----------------------------------------------------------------------------------------------------


def save_sae(sae: SAE, directory: str | Path) -> Path:
    """Write an SAE as a SAELens 6 directory; reading it back gives the same weights, bit for bit.

    The directory appears complete or not at all.

    Args:
        sae: any SAE whose normalisation the format can express.
        directory: must not exist yet, or be an empty directory.

    Returns:
        The directory.

    Raises:
        InputError: the directory exists and is not empty.
        UnsupportedError: the normalisation is a constant scale, which the format does not store.
    """
    directory = Path(directory)
    config = _config_of(sae)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            f"{directory} exists and is not an empty directory",
            rule="saving never overwrites",
            remedy="give a new directory",
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in sae.tensors().items()}, staging / WEIGHTS_NAME)
        (staging / CONFIG_NAME).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        staging.chmod(0o755)
        staging.replace(directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return directory


def _config_of(sae: SAE) -> dict[str, Any]:
    names: dict[type[Normalization], str] = {
        Identity: "none",
        LayerNorm: "layer_norm",
        ConstantNormRescale: "constant_norm_rescale",
    }
    if type(sae.normalization) not in names:
        raise UnsupportedError(
            f"saving an SAE with {sae.normalization}",
            rule="the SAELens format does not store an input scale, and other readers would drop it",
            remedy="fold it first: sae.fold_input_scale()",
        )
    architecture: dict[str, Any]
    match sae:
        case ReLUSAE():
            architecture = {"architecture": "standard"}
        case JumpReLUSAE():
            architecture = {"architecture": "jumprelu"}
        case GatedSAE():
            architecture = {"architecture": "gated"}
        case TopKSAE(k=k, rescale_by_decoder_norm=rescale):
            architecture = {"architecture": "topk", "k": k, "rescale_acts_by_decoder_norm": rescale}
        case _:
            raise UnsupportedError(f"saving a {type(sae).__name__}", rule=f"supported are {sorted(SUPPORTED)}")
    return {
        **architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(sae.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": names[type(sae.normalization)],
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",
            "hook_name": sae.source.hook_name,
            "model_name": sae.source.model_name,
        },
    }
