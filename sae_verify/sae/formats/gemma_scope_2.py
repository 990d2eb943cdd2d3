"""Gemma Scope 2: `config.json` and `params.safetensors`; JumpReLU SAEs and transcoders that do not subtract b_dec.

The affine skip connection of a transcoder is stored as (d_in, d_out).
"""

from __future__ import annotations

import re
from pathlib import Path

from sae_verify.errors import FileFormatError, UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import read_json, renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import (
    NOT_ONE_POSITION,
    check_size,
    normalization,
    one_of,
    optional,
    refuse_unknown_keys,
    text,
)
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import has_safetensors, read_safetensors

CONFIG, WEIGHTS = "config.json", "params.safetensors"
KEYS = ("architecture", "type", "hf_hook_point_in", "hf_hook_point_out", "affine_connection")
KEYS += ("width", "l0", "model_name")
SKIP = "affine_skip_connection"
HOOK = re.compile(r"model\.layers\.(\d+)\.(output|post_feedforward_layernorm\.output)")
SITES = {"output": "hook_resid_post", "post_feedforward_layernorm.output": "hook_mlp_out"}


def recognises(path: Path) -> bool:
    """A directory with `params.safetensors`."""
    return path.is_dir() and has_safetensors(path / WEIGHTS)


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read an SAE or a transcoder of Gemma Scope 2; errors as every format, and `UnsupportedError` for its CLTs."""
    config = read_json(path / CONFIG)
    one_of(config, "architecture", ("jump_relu",), path / CONFIG)
    kind = one_of(config, "type", ("sae", "transcoder"), path / CONFIG, default="sae")
    refuse_unknown_keys(config, KEYS, path / CONFIG)
    reads, writes = text(config, "hf_hook_point_in"), text(config, "hf_hook_point_out")
    affine = optional(config, "affine_connection", bool, False, path / CONFIG)
    transcoder = kind == "transcoder" or affine or writes not in (None, reads)
    stored, _ = read_safetensors(path / WEIGHTS)
    if "w_dec" in stored and stored["w_dec"].ndim == 3:
        raise UnsupportedError(f"{path} is a cross-layer transcoder", rule=NOT_ONE_POSITION["clt"])
    if (SKIP in stored) != bool(affine):
        raise FileFormatError(
            f"{path} has tensors {sorted(stored)} and affine_connection {affine}",
            rule=f"{SKIP} is there if and only if affine_connection is true",
            remedy="check that config and weights belong together",
        )
    names = {"W_enc": "w_enc", "W_dec": "w_dec", "b_dec": "b_dec", "b_enc": "b_enc", "threshold": "threshold"}
    names |= {"W_skip": f"{SKIP}.T"} if affine else {}
    named = HOOK.fullmatch(reads or "")
    result = Stored(
        architecture="jumprelu",
        tensors=renamed(stored, names, path / WEIGHTS, "Gemma Scope 2"),
        subtract_b_dec=False,
        normalization=normalization("none", input_scale, path / CONFIG),
        source=Source(
            "gemma-scope-2",
            path,
            f"blocks.{named[1]}.{SITES[named[2]]}" if named else reads,
            text(config, "model_name"),
        ),
        transcoder=transcoder,
    )
    width = optional(config, "width", int, None, path / CONFIG)
    check_size({"width": width}, {"width": result.d_sae}, path / CONFIG)
    return result


FORMAT = Format(
    name="gemma-scope-2",
    title="Gemma Scope 2",
    layout=f"{CONFIG}, {WEIGHTS}",
    architectures=("jumprelu", "jumprelu transcoder, with and without skip"),
    recognises=recognises,
    read=read,
    downloads=(CONFIG, WEIGHTS),
)
