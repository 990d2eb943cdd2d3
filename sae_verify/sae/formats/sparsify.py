"""EleutherAI sparsify: `cfg.json` and `sae.safetensors`; TopK or GroupMax, SAEs and transcoders, with and without skip.

b_dec is subtracted from the input unless it is a transcoder.
"""

from __future__ import annotations

import re
from pathlib import Path

from sae_verify.errors import UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import read_json, renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import check_size, normalization, one_of, optional, refuse_unknown_keys, required
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import has_safetensors, read_safetensors

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
KEYS = ("activation", "d_in", "expansion_factor", "k", "num_latents", "signed", "skip_connection", "transcode")
KEYS += ("multi_topk", "normalize_decoder")  # change training only


def recognises(path: Path) -> bool:
    """A directory with both files."""
    return path.is_dir() and (path / CONFIG).is_file() and has_safetensors(path / WEIGHTS)


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a sparse coder of sparsify."""
    file = path / CONFIG
    config = read_json(file)
    refuse_unknown_keys(config, KEYS, file)
    activation = one_of(config, "activation", ("topk", "groupmax"), file, default="topk")  # older ones had TopK alone
    if optional(config, "signed", bool, False, file):
        raise UnsupportedError(
            f"signed in {file} is true", rule="older releases of sparsify kept negative codes then, newer ones do not"
        )
    transcoder = optional(config, "transcode", bool, False, file)
    skip = optional(config, "skip_connection", bool, False, file)
    if skip and not transcoder:
        raise UnsupportedError(f"{file} has a skip connection and no transcode", rule="only transcoders have one")
    names = {"W_enc": "encoder.weight.T", "W_dec": "W_dec", "b_dec": "b_dec", "b_enc": "encoder.bias"}
    names |= {"W_skip": "W_skip"} if skip else {}
    tensors, _ = read_safetensors(path / WEIGHTS)
    d_in = required(config, "d_in", int, file)
    latents = optional(config, "num_latents", int, None, file) or None
    if latents is None:
        latents = d_in * required(config, "expansion_factor", int, file)
    settings = {"k": required(config, "k", int, file)}
    if activation == "topk" and not transcoder:
        settings["rescale_by_decoder_norm"] = False
    layer = re.search(r"layers\.(\d+)$", path.name)
    stored = Stored(
        architecture=activation,
        tensors=renamed(tensors, names, path / WEIGHTS, "sparsify"),
        subtract_b_dec=not transcoder,
        settings=settings,
        normalization=normalization("none", input_scale, file),
        source=Source("sparsify", path, f"blocks.{layer[1]}.hook_resid_post" if layer else None),
        transcoder=transcoder,
    )
    check_size({"d_in": d_in, "num_latents": latents}, {"d_in": stored.d_in, "num_latents": stored.d_sae}, file)
    return stored


FORMAT = Format(
    name="sparsify",
    title="EleutherAI sparsify",
    layout=f"{CONFIG}, {WEIGHTS}",
    architectures=("topk", "groupmax", "their transcoders, with and without skip"),
    recognises=recognises,
    read=read,
    downloads=(CONFIG, WEIGHTS),
)
