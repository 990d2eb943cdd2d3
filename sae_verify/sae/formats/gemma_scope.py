"""Gemma Scope: one `params.npz` with a JumpReLU SAE that does not subtract b_dec (arXiv 2408.05147)."""

from __future__ import annotations

from pathlib import Path

from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.settings import build, normalization, tensor_names
from sae_verify.sae.formats.tensors import read_npz, take


def load_gemma_scope(path: Path, input_scale: float | None = None) -> SAE:
    """Read a Gemma Scope SAE.

    Args:
        path: a `.npz` file, or a directory that holds `params.npz`.
        input_scale: constant s with N(x) = s x; Gemma Scope itself needs none.

    Raises:
        FileFormatError, UnsafeFileError, ShapeError, WeightsError, InputError.

    """
    file = path / "params.npz" if path.is_dir() else path
    stored = read_npz(file)
    # The released files spell W_enc or w_enc; either, but not a mixture.
    names = tensor_names("jumprelu")
    spelling = names if "W_enc" in stored else tuple(name.lower() for name in names)
    found = take(stored, spelling, file, "Gemma Scope")
    tensors = {name: found[key] for name, key in zip(names, spelling, strict=True)}
    settings = {"apply_b_dec_to_input": False}
    return build("jumprelu", tensors, settings, normalization("none", input_scale, file), Source("gemma-scope", path))
