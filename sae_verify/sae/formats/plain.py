"""One bare `.safetensors` file: SAELens tensor names, and the settings in the file's own `__metadata__`.

Every setting is a string there: `architecture` (standard, jumprelu, topk, abstopk, groupmax, gated),
`apply_b_dec_to_input` (true, false), `normalize_activations`, `k` where there is one, for topk and abstopk
`rescale_acts_by_decoder_norm`; and `hook_name` and `model_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_verify.errors import MetadataError, UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import take
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import normalization, one_of, refuse_unknown_keys, required
from sae_verify.sae.formats.stored import ARCHITECTURES, Stored, tensor_names
from sae_verify.sae.formats.tensors import read_safetensors

KNOWN = tuple(name for name in ARCHITECTURES if name != "matching_pursuit")
RANKED = ("topk", "abstopk")
SETTINGS = ("architecture", "apply_b_dec_to_input", "normalize_activations", "k", "rescale_acts_by_decoder_norm")
LABELS = ("hook_name", "model_name", "format")
"""Keys that do not change the algebra; other writers put `format: pt` into every file."""


def recognises(path: Path) -> bool:
    """A `.safetensors` file."""
    return path.suffix == ".safetensors" and path.is_file()


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read an SAE from one safetensors file.

    Args:
        path: the file.
        input_scale: constant s with N(x) = s x.

    Raises:
        FileFormatError, MetadataError, ShapeError, UnsupportedError, InputError.

    """
    tensors, metadata = read_safetensors(path)
    refuse_unknown_keys(metadata, (*SETTINGS, *LABELS), path, "remove them")
    architecture = one_of(metadata, "architecture", KNOWN, path)
    settings: dict[str, Any] = {}
    if architecture in (*RANKED, "groupmax"):
        settings["k"] = _integer(metadata, "k", path)
    if architecture in RANKED:
        settings["rescale_by_decoder_norm"] = _boolean(metadata, "rescale_acts_by_decoder_norm", path)
    words = {"rescale_by_decoder_norm": "rescale_acts_by_decoder_norm"}
    wanted = {words.get(key, key) for key in settings}
    if unused := [key for key in ("k", "rescale_acts_by_decoder_norm") if key in metadata and key not in wanted]:
        raise UnsupportedError(f"{path} gives {unused} with architecture {architecture!r}", rule="it has none")
    return Stored(
        architecture=architecture,
        tensors=take(tensors, tensor_names(architecture), path, f"architecture {architecture!r}"),
        subtract_b_dec=_boolean(metadata, "apply_b_dec_to_input", path),
        settings=settings,
        normalization=normalization(required(metadata, "normalize_activations", str, path), input_scale, path),
        source=Source("safetensors", path, metadata.get("hook_name"), metadata.get("model_name")),
    )


def _boolean(metadata: Mapping[str, str], key: str, path: Path) -> bool:
    value = required(metadata, key, str, path)
    if value not in ("true", "false"):
        raise MetadataError(f"{key} in {path} is {value!r}", rule="it must be 'true' or 'false'")
    return value == "true"


def _integer(metadata: Mapping[str, str], key: str, path: Path) -> int:
    value = required(metadata, key, str, path)
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise MetadataError(f"{key} in {path} is {value!r}", rule="it must be a positive integer in decimal digits")
    return int(value)


FORMAT = Format(
    name="safetensors",
    title="plain safetensors",
    layout="one .safetensors with __metadata__",
    architectures=KNOWN,
    recognises=recognises,
    read=read,
    downloads=(),
    checked=True,
)
