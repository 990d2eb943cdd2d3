"""One bare file of tensors under the usual names: .safetensors, or a torch state dict loaded with `weights_only`.

The tensors tell the architecture: W_enc, W_dec, b_dec and

    b_enc                  ReLU, or TopK if the metadata has k
    b_enc, threshold       JumpReLU
    b_gate, b_mag, r_mag   gated

Whether b_dec is subtracted from the input cannot be seen in them, so the safetensors metadata (strings) must say
`apply_b_dec_to_input`: `true` or `false`; and for b_enc alone `architecture`: `relu` or `topk`; for TopK also `k`, and
`rescale_acts_by_decoder_norm`. Optional: `hook_name`, `model_name`. No other key is accepted, except the writer's
`format`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sae_verify.errors import FileFormatError, MetadataError, UnsupportedError
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.tensors import read_safetensors, read_torch, take
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.normalization import Identity, InputScale
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE

SHARED = ("W_enc", "W_dec", "b_dec")
ARCHITECTURES = {
    frozenset({"b_enc"}): ("relu", "topk"),
    frozenset({"b_enc", "threshold"}): ("jumprelu",),
    frozenset({"b_gate", "b_mag", "r_mag"}): ("gated",),
}
KEYS = frozenset(
    {"architecture", "apply_b_dec_to_input", "k", "rescale_acts_by_decoder_norm", "hook_name", "model_name", "format"}
)
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle")


def load_plain(path: Path, *, input_scale: float | None = None) -> SAE:
    """Read a bare file of tensors.

    Args:
        path: a .safetensors file, or a torch file (which has no metadata, so it is only ever unambiguous in name).
        input_scale: s with N(x) = s x, if the SAE was trained on scaled activations and it is not folded in.

    Raises:
        FileFormatError, UnsafeFileError, WeightsError, ShapeError: broken or hostile files.
        MetadataError: the tensors leave the algebra open and the metadata does not settle it.
        UnsupportedError: metadata keys that are not understood.
    """
    tensors, metadata = (read_torch(path), {}) if path.suffix in TORCH_SUFFIXES else read_safetensors(path)
    unknown = sorted(set(metadata) - KEYS)
    if unknown:
        raise UnsupportedError(
            f"{path} has the metadata keys {unknown}",
            rule="a key that is not understood may change the algebra",
            remedy=f"use only {sorted(KEYS)}",
        )
    architecture = _architecture(tensors, metadata, path)
    own = next(names for names, architectures in ARCHITECTURES.items() if architecture in architectures)
    common: dict[str, Any] = {
        "subtract_b_dec": _flag(metadata, "apply_b_dec_to_input", path),
        "normalization": Identity() if input_scale in (None, 1.0) else InputScale(input_scale),
        "source": Source("plain", path, metadata.get("hook_name"), metadata.get("model_name")),
    }
    weights = take(tensors, (*SHARED, *sorted(own)), path, f"a plain {architecture} SAE")
    if architecture == "topk":
        rescale = _flag(metadata, "rescale_acts_by_decoder_norm", path)
        return TopKSAE(**weights, k=_k(metadata, path), rescale_by_decoder_norm=rescale, **common)
    return {"relu": ReLUSAE, "jumprelu": JumpReLUSAE, "gated": GatedSAE}[architecture](**weights, **common)


def _architecture(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> str:
    own = frozenset(tensors) - frozenset(SHARED)
    missing = sorted(set(SHARED) - set(tensors))
    if own not in ARCHITECTURES or missing:
        raise FileFormatError(
            f"{path} has the tensors {sorted(tensors)}",
            rule=f"a plain SAE has {list(SHARED)} and one of {[sorted(names) for names in ARCHITECTURES]}",
            remedy="rename the tensors, or load the SAE from its original directory",
        )
    possible = ARCHITECTURES[own]
    named = metadata.get("architecture")
    if named is not None and named not in possible:
        raise MetadataError(f"architecture in {path} is {named!r}", rule=f"its tensors say one of {list(possible)}")
    if named is None and len(possible) > 1:
        raise MetadataError(
            f"{path} has no architecture in its metadata",
            rule=f"its tensors fit each of {list(possible)}",
            remedy="save it with safetensors metadata such as {'architecture': 'topk', 'k': '32'}",
        )
    return named or possible[0]


def _flag(metadata: dict[str, str], key: str, path: Path) -> bool:
    value = metadata.get(key)
    if value not in ("true", "false"):
        raise MetadataError(
            f"{key} in the metadata of {path} is {value!r}",
            rule="it must be 'true' or 'false'; the tensors do not tell it",
            remedy=f"save the file as safetensors with metadata {{'{key}': ...}}",
        )
    return value == "true"


def _k(metadata: dict[str, str], path: Path) -> int:
    value = metadata.get("k", "")
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise MetadataError(
            f"k in the metadata of {path} is {metadata.get('k')!r}",
            rule="a TopK SAE needs its k, a whole number",
            remedy="save the file with metadata {'k': '32'}",
        )
    return int(value)
