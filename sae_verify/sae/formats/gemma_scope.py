"""Gemma Scope: JumpReLU SAEs in one `params.npz` with w_enc, w_dec, b_enc, b_dec and threshold.

The decoder bias is not subtracted from the input and the input is not normalised. Source: arXiv 2408.05147, the
release's own reference code. SAEs of the embedding, which were trained on rescaled embeddings, are refused.
"""

from __future__ import annotations

from pathlib import Path

from sae_verify.errors import UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.tensors import read_npz, take
from sae_verify.sae.jumprelu import JumpReLUSAE

PARAMS_NAME = "params.npz"
NAMES = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}


def load_gemma_scope(path: Path) -> JumpReLUSAE:
    """Read a `params.npz`, given itself or the directory that holds it.

    The format names neither model nor hook point; `source` has None for both.

    Raises:
        FileFormatError, UnsafeFileError, WeightsError, ShapeError: broken or hostile files.
        UnsupportedError: an SAE of the embedding.
    """
    path = path / PARAMS_NAME if path.is_dir() else path
    if any(part == "embedding" for part in path.parts):
        raise UnsupportedError(
            f"{path} is an SAE of the embedding",
            rule="these were trained on embeddings rescaled by the model's width, which the file does not say",
            remedy="use an SAE of a layer's residual stream",
        )
    tensors = take(read_npz(path), tuple(NAMES), path, "a Gemma Scope SAE")
    weights = {NAMES[name]: tensor for name, tensor in tensors.items()}
    return JumpReLUSAE(**weights, subtract_b_dec=False, source=Source("gemma_scope", path))
