"""Writing SAEs: SAELens 6 directories, and single safetensors files for what SAELens has no name for."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.sae.base import SAE
from sae_verify.sae.formats.saelens import CONFIG, SCALE_KEY, WEIGHTS
from sae_verify.sae.formats.settings import AVERAGE_NORM, NORMALIZATIONS
from sae_verify.sae.formats.stored import ARCHITECTURES
from sae_verify.sae.groupmax import GroupMaxSAE
from sae_verify.sae.matching_pursuit import MatchingPursuitSAE
from sae_verify.sae.normalization import InputScale
from sae_verify.sae.ranked import RankedSAE

WRITTEN_VERSION = "6.0.0"
REPLACEABLE = {CONFIG, WEIGHTS, "sparsity.safetensors", "runner_cfg.json"}
"""What a directory may hold for `save_sae` to replace it."""
NAMES = {architecture.kind: name for name, architecture in ARCHITECTURES.items()}


def save_sae(sae: SAE, directory: Path | str) -> Path:
    """Write an SAE so that `load_sae` gives back the same weights and algebra, bit for bit.

    A name that ends in `.safetensors` makes one plain file, any other a SAELens 6 directory. Both are written under a
    temporary name beside the target and then renamed, so that nobody sees half of it. A constant input scale is
    recorded in a directory's metadata (SAELens itself does not apply it); for a plain file the reader gives it again.

    Args:
        sae: any SAE of this package.
        directory: created; replaced only if it is empty or holds nothing but an SAE, or is such a file.

    Returns:
        The directory or file.

    Raises:
        InputError: something else is there, or it cannot be written.
        UnsupportedError: SAELens has no name for it, or a plain file has none.

    """
    target = Path(directory)
    plain = target.suffix == ".safetensors"
    if plain and target.exists() and not target.is_file():
        raise InputError(f"{target} exists and is no file", remedy="choose another name")
    metadata = _plain_metadata(sae) if plain else {}
    if not plain:
        _check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            weights = temporary / (target.name if plain else WEIGHTS)
            save_file(_saved(sae), weights, metadata or None)
            weights.chmod(0o644)  # save_file writes for the owner alone
            if plain:
                weights.replace(target)
            else:
                (temporary / CONFIG).write_text(json.dumps(_config(sae), indent=2) + "\n", encoding="utf-8")
                temporary.chmod(0o755)
                _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error}", remedy="choose a directory that is writable"
        ) from error
    return target


def _saved(sae: SAE) -> dict[str, Tensor]:
    """Every stored tensor, row by row; matching pursuit is tied and has no encoder of its own."""
    tied = isinstance(sae, MatchingPursuitSAE)
    return {name: tensor.contiguous() for name, tensor in sae.tensors().items() if not (tied and name == "W_enc")}


def _plain_metadata(sae: SAE) -> dict[str, str]:
    norms = {kind: name for name, kind in NORMALIZATIONS.items()} | {InputScale: AVERAGE_NORM}
    if isinstance(sae, MatchingPursuitSAE) or type(sae) not in NAMES or type(sae.normalization) not in norms:
        raise UnsupportedError(
            f"an SAE of type {type(sae).__name__} with {type(sae.normalization).__name__}",
            rule="a plain safetensors file has no place for it",
            remedy="give a name without .safetensors, for a SAELens directory",
        )
    metadata = {
        "architecture": NAMES[type(sae)],
        "apply_b_dec_to_input": _word(sae.subtract_b_dec),
        "normalize_activations": norms[type(sae.normalization)],
    }
    if isinstance(sae, RankedSAE):
        metadata |= {"k": str(sae.k), "rescale_acts_by_decoder_norm": _word(sae.rescale_by_decoder_norm)}
    if isinstance(sae, GroupMaxSAE):
        metadata["k"] = str(sae.k)
    labels = {"hook_name": sae.source.hook_name, "model_name": sae.source.model_name}
    return metadata | {key: value for key, value in labels.items() if value is not None}


def _word(value: bool) -> str:
    return "true" if value else "false"


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
    norms = {kind: name for name, kind in NORMALIZATIONS.items()} | {InputScale: AVERAGE_NORM}
    if isinstance(sae, GroupMaxSAE) or type(sae) not in NAMES or type(sae.normalization) not in norms:
        raise UnsupportedError(
            f"an SAE of type {type(sae).__name__} with {type(sae.normalization).__name__}",
            rule="SAELens 6 has no place for it",
            remedy="give a name that ends in .safetensors, for a plain file",
        )
    metadata: dict[str, Any] = {
        "sae_lens_version": WRITTEN_VERSION,
        "hook_name": sae.source.hook_name,
        "model_name": sae.source.model_name,
    }
    if isinstance(sae.normalization, InputScale):
        metadata[SCALE_KEY] = float(sae.normalization.scale)
    config: dict[str, Any] = {
        "architecture": NAMES[type(sae)],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float64" if sae.dtype == torch.float64 else "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": norms[type(sae.normalization)],
        "reshape_activations": "none",
        "metadata": metadata,
    }
    if isinstance(sae, RankedSAE):
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": sae.rescale_by_decoder_norm}
    if isinstance(sae, MatchingPursuitSAE):
        config |= {name: getattr(sae, name) for name in ARCHITECTURES["matching_pursuit"].settings}
    return config
