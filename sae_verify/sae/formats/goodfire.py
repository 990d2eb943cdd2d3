"""Goodfire: one `.pt` or `.pth` with `encoder_linear` and `decoder_linear`; ReLU, b_dec not subtracted."""

from __future__ import annotations

import re
from pathlib import Path

from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.pickles import torch_names
from sae_verify.sae.formats.settings import normalization
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import state_dict

NAMES = {
    "W_enc": "encoder_linear.weight.T",
    "W_dec": "decoder_linear.weight.T",
    "b_dec": "decoder_linear.bias",
    "b_enc": "encoder_linear.bias",
}


def recognises(path: Path) -> bool:
    """A torch file with exactly these four tensors."""
    return torch_names(path) == {name.removesuffix(".T") for name in NAMES.values()}


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a Goodfire SAE; errors as every format."""
    release = re.fullmatch(r"(.+)-SAE-l(\d+)", path.stem)
    return Stored(
        architecture="standard",
        tensors=renamed(state_dict(path), NAMES, path, "Goodfire"),
        subtract_b_dec=False,
        normalization=normalization("none", input_scale, path),
        source=Source(
            "goodfire",
            path,
            f"blocks.{release[2]}.hook_resid_post" if release else None,
            f"meta-llama/{release[1]}" if release else None,
        ),
    )


FORMAT = Format(
    name="goodfire",
    title="Goodfire",
    layout="one .pt or .pth",
    architectures=("standard",),
    recognises=recognises,
    read=read,
    downloads=(),
)
