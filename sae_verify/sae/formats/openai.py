"""OpenAI's SAEs of GPT-2 small: one `.pt` state dict that also names its activation (arXiv 2406.04093).

TopK SAEs normalise their input by layer norm, ReLU ones do not; that follows from the activation, as in the release's
own loader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_verify.errors import MetadataError, UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.pickles import torch_names
from sae_verify.sae.formats.settings import normalization, one_of, required, section
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import read_torch

NAMES = {
    "W_enc": "encoder.weight.T",
    "W_dec": "decoder.weight.T",
    "b_dec": "pre_bias",
    "b_enc": "latent_bias",
}
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def recognises(path: Path) -> bool:
    """A `.pt` file with `pre_bias` and `latent_bias`."""
    return {"pre_bias", "latent_bias"} <= torch_names(path)


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read one of OpenAI's SAEs; errors as every format."""
    state: dict[str, Any] = {k: v for k, v in read_torch(path).items() if k not in STATISTICS}
    activation = one_of(state, "activation", ("ReLU", "TopK"), path)
    details = section(state, "activation_state_dict", path)
    for key in ("k", "postact_fn"):  # torch gathers the activation's own a second time
        if state.pop(f"activation.{key}", details.get(key)) != details.get(key):
            raise MetadataError(f"{path} gives two values of {key}", rule="activation_state_dict says it again")
    state = {k: v for k, v in state.items() if k not in ("activation", "activation_state_dict")}
    if "decoder.weight" not in state:
        raise UnsupportedError(f"{path} has no decoder.weight", rule="SAEs with tied weights are not read from it")
    settings: dict[str, Any] = {}
    if activation == "TopK":
        if details.get("postact_fn") != "ReLU":
            raise MetadataError(
                f"postact_fn in {path} is {details.get('postact_fn')!r}", rule="only ReLU after TopK is modelled"
            )
        settings = {"k": required(details, "k", int, path), "rescale_by_decoder_norm": False}
    return Stored(
        architecture="topk" if activation == "TopK" else "standard",
        tensors=renamed(state, NAMES, path, "OpenAI's SAEs"),
        subtract_b_dec=True,
        settings=settings,
        normalization=normalization("layer_norm" if activation == "TopK" else "none", input_scale, path),
        source=Source("openai", path, None, "gpt2"),
    )


FORMAT = Format(
    name="openai",
    title="OpenAI",
    layout="one .pt",
    architectures=("standard", "topk"),
    recognises=recognises,
    read=read,
    downloads=(),
)
