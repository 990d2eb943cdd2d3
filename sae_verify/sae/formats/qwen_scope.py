"""Qwen Scope: one `layer{n}.sae.pt` a layer; TopK, b_dec not subtracted.

Both matrices are stored the other way round: W_enc (d_sae, d_in), W_dec (d_in, d_sae). The number k is in the
repository's name alone, `SAE-Res-{model}-W{width}K-L0_{k}`, so a folder of that name must be on the path.
"""

from __future__ import annotations

import re
from pathlib import Path

from sae_verify.errors import MetadataError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.pickles import torch_names
from sae_verify.sae.formats.settings import check_size, normalization
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import state_dict

NAMES = {"W_enc": "W_enc.T", "W_dec": "W_dec.T", "b_dec": "b_dec", "b_enc": "b_enc"}
FILE = re.compile(r"layer(\d+)\.sae\.pt")
REPOSITORY = re.compile(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)")


def recognises(path: Path) -> bool:
    """A file of that name with exactly these tensors."""
    return FILE.fullmatch(path.name) is not None and torch_names(path) == set(NAMES)


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a Qwen Scope SAE; errors as every format, and MetadataError where nothing says k."""
    named = next((found for part in reversed(path.absolute().parts) if (found := REPOSITORY.search(part))), None)
    if named is None:
        raise MetadataError(
            f"{path} does not say k",
            rule="it is in the repository's name, SAE-Res-{model}-W{width}K-L0_{k}, which must be on the path",
            remedy="load it by its repository id, or put it into a folder of that name",
        )
    layer = FILE.fullmatch(path.name)
    stored = Stored(
        architecture="topk",
        tensors=renamed(state_dict(path), NAMES, path, "Qwen Scope"),
        subtract_b_dec=False,
        settings={"k": int(named[3]), "rescale_by_decoder_norm": False},
        normalization=normalization("none", input_scale, path),
        source=Source("qwen-scope", path, f"blocks.{layer[1]}.hook_resid_post" if layer else None, f"Qwen/{named[1]}"),
    )
    check_size({"W": int(named[2]) * 1024}, {"W": stored.d_sae}, path)
    return stored


FORMAT = Format(
    name="qwen-scope",
    title="Qwen Scope",
    layout="layer{n}.sae.pt",
    architectures=("topk",),
    recognises=recognises,
    read=read,
    downloads=(),
)
