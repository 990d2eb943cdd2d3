"""Gemma Scope: one `params.npz` with a JumpReLU SAE that does not subtract b_dec (arXiv 2408.05147)."""

from __future__ import annotations

from pathlib import Path

from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.settings import build, normalization, tensor_names
from sae_verify.sae.formats.tensors import read_npz, take

NAMES = {name: name.lower() for name in tensor_names("jumprelu")}


def load_gemma_scope(path: Path, input_scale: float | None = None) -> SAE:
    """Read a Gemma Scope SAE.

    Args:
        path: a `.npz` file, or a directory that holds `params.npz`.
        input_scale: constant s with N(x) = s x; Gemma Scope itself needs none.

    Raises:
        FileFormatError, UnsafeFileError, ShapeError, WeightsError, InputError.

    """
    file = path / "params.npz" if path.is_dir() else path
    tensors = take(read_npz(file), tuple(NAMES.values()), file, "Gemma Scope")
    renamed = {name: tensors[stored] for name, stored in NAMES.items()}
    settings = {"apply_b_dec_to_input": False}
    return build("jumprelu", renamed, settings, normalization("none", input_scale, file), Source("gemma-scope", path))
