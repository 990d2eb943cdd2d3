"""dictionary_learning: `ae.pt` and the trainer's `config.json`, whose `dict_class` says what the tensors are.

The weights are taken as stored. dictionary_learning's own loader rescales an `AutoEncoder` to decoder rows of length
one, which changes the units of its code: `unit_decoder` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import FileFormatError, ShapeError
from sae_verify.sae.base import Source
from sae_verify.sae.batch_topk import run_time_threshold
from sae_verify.sae.formats.files import read_json, renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import check_size, normalization, one_of, optional, section, text
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.formats.tensors import state_dict

CONFIG, WEIGHTS = "config.json", "ae.pt"
LINEAR = {"W_enc": "encoder.weight.T", "W_dec": "decoder.weight.T"}
PLAIN = {name: name for name in ("W_enc", "W_dec", "b_dec", "b_enc")}
AS_STORED = "decoder rows as stored; dictionary_learning's own loader rescales them to length 1 (see unit_decoder)"


@dataclass(frozen=True)
class DictClass:
    """One class of dictionary_learning: our architecture, our names to its names, and whether b_dec is subtracted."""

    architecture: str
    names: Mapping[str, str]
    subtract: bool
    label: str | None = None
    note: str | None = None


CLASSES = {
    "AutoEncoder": DictClass(
        "standard", {**LINEAR, "b_dec": "bias", "b_enc": "encoder.bias"}, subtract=True, note=AS_STORED
    ),
    "AutoEncoderNew": DictClass(
        "standard", {**LINEAR, "b_dec": "decoder.bias", "b_enc": "encoder.bias"}, subtract=False
    ),
    "GatedAutoEncoder": DictClass(
        "gated",
        {**LINEAR, "b_dec": "decoder_bias", "b_gate": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag"},
        subtract=True,
    ),
    "JumpReluAutoEncoder": DictClass("jumprelu", {**PLAIN, "threshold": "threshold"}, subtract=False),
    "AutoEncoderTopK": DictClass("topk", {**LINEAR, "b_dec": "b_dec", "b_enc": "encoder.bias"}, subtract=True),
    "BatchTopKSAE": DictClass(
        "jumprelu",
        {**LINEAR, "b_dec": "b_dec", "b_enc": "encoder.bias", "threshold": "threshold"},
        subtract=True,
        label="batchtopk",
    ),
    "MatryoshkaBatchTopKSAE": DictClass(
        "jumprelu", {**PLAIN, "threshold": "threshold"}, subtract=True, label="matryoshka_batchtopk"
    ),
}


def recognises(path: Path) -> bool:
    """A directory with `ae.pt`."""
    return path.is_dir() and (path / WEIGHTS).is_file()


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a dictionary; errors as every format."""
    trainer = section(read_json(path / CONFIG), "trainer", path / CONFIG)
    kind = CLASSES[one_of(trainer, "dict_class", CLASSES, path / CONFIG)]
    state: dict[str, Any] = dict(state_dict(path / WEIGHTS))
    k, groups = state.pop("k", None), state.pop("group_sizes", None)
    unused = state.pop("threshold", None) if kind.architecture == "topk" else None
    del unused  # TopK keeps one as a buffer and encodes without it
    tensors = renamed(state, kind.names, path / WEIGHTS, f"dict_class {trainer['dict_class']}")
    if kind.label is not None:
        size = tensors["b_enc"].shape[0]
        tensors["threshold"] = run_time_threshold(tensors["threshold"], size, path / WEIGHTS)
    settings: dict[str, Any] = {}
    if kind.architecture == "topk":
        settings = {"k": _k(k, trainer, path), "rescale_by_decoder_norm": False}
    stored = Stored(
        architecture=kind.architecture,
        tensors=tensors,
        subtract_b_dec=kind.subtract,
        settings=settings,
        normalization=normalization("none", input_scale, path / CONFIG),
        source=Source(
            "dictionary-learning",
            path,
            _hook(trainer),
            text(trainer, "lm_name"),
            kind.label,
            (kind.note,) if kind.note else (),
        ),
    )
    sizes = {key: optional(trainer, key, int, None, path / CONFIG) for key in ("activation_dim", "dict_size")}
    check_size(sizes, {"activation_dim": stored.d_in, "dict_size": stored.d_sae}, path / CONFIG)
    _check_groups(groups, stored.d_sae, path)
    return stored


def _k(stored: object, trainer: Mapping[str, Any], path: Path) -> int:
    claimed = optional(trainer, "k", int, None, path / CONFIG)
    if stored is None and claimed is not None:
        return claimed
    if not isinstance(stored, Tensor) or stored.ndim or stored.dtype not in (torch.int32, torch.int64):
        raise FileFormatError(f"k in {path / WEIGHTS} is {stored!r}", rule="it is one integer")
    if claimed is not None and claimed != int(stored):
        raise ShapeError(f"{path / CONFIG} says k = {claimed}", rule=f"{WEIGHTS} says {int(stored)}")
    return int(stored)


def _check_groups(groups: object, d_sae: int, path: Path) -> None:
    """Matryoshka's groups fill the dictionary; while it runs whole, they change nothing."""
    if groups is not None and (not isinstance(groups, Tensor) or int(groups.sum()) != d_sae):
        raise ShapeError(f"group_sizes in {path / WEIGHTS} are {groups!r}", rule=f"they add up to d_sae = {d_sae}")


def _hook(trainer: Mapping[str, Any]) -> str | None:
    layer, module = trainer.get("layer"), text(trainer, "submodule_name")
    named = module is None or module.startswith("resid_post")
    return f"blocks.{layer}.hook_resid_post" if type(layer) is int and named else None


FORMAT = Format(
    name="dictionary-learning",
    title="dictionary_learning",
    layout=f"{CONFIG}, {WEIGHTS}",
    architectures=("standard (also p-anneal)", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk"),
    recognises=recognises,
    read=read,
    downloads=(CONFIG, WEIGHTS),
)
