"""SAEs of DeepSeek-R1's distillations: one `.pt` with two linear layers; ReLU, b_dec not subtracted.

Many other files have these four tensors, with other activations. So the file's name must say what it is, or the caller:
`load_sae(path, format="deepseek-r1")`.
"""

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
    "W_enc": "encoder.weight.T",
    "W_dec": "decoder.weight.T",
    "b_dec": "decoder.bias",
    "b_enc": "encoder.bias",
}


def recognises(path: Path) -> bool:
    """A torch file with exactly these four tensors whose name has `DeepSeek-R1` in it."""
    return "deepseek-r1" in path.name.lower() and torch_names(path) == {n.removesuffix(".T") for n in NAMES.values()}


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read an SAE of a DeepSeek-R1 distillation; errors as every format."""
    release = re.fullmatch(r"(.+)-SAE-l(\d+)", path.stem)
    return Stored(
        architecture="standard",
        tensors=renamed(state_dict(path), NAMES, path, "an SAE of DeepSeek-R1"),
        subtract_b_dec=False,
        normalization=normalization("none", input_scale, path),
        source=Source(
            "deepseek-r1",
            path,
            f"blocks.{release[2]}.hook_resid_post" if release else None,
            f"deepseek-ai/{release[1]}" if release else None,
        ),
    )


FORMAT = Format(
    name="deepseek-r1",
    title="DeepSeek-R1 distillations",
    layout="one .pt",
    architectures=("standard",),
    recognises=recognises,
    read=read,
    downloads=(),
)
