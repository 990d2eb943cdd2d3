"""Rotary position tables, read from the model's own module so that they are the ones it uses."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import UnsupportedError
from sae_verify.model.full_precision import FullPrecision

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Types whose table at a position does not depend on the length of the batch."""

_NESTED = ("full_attention", "sliding_attention")
"""Keys of rotary settings that differ by layer type (Gemma-3)."""


def check_rotary(config: Any, *, partial: bool = False, long: bool = False) -> None:
    """Refuse rotary embeddings that are not modelled.

    Args:
        config: of the model.
        partial: the architecture may rotate a part of each head only.
        long: it may have the type longrope, whose table is fixed up to the length of the training (see `longest`).

    Raises:
        UnsupportedError: names the key of config.json.
    """
    types = (*ROPE_TYPES, "longrope") if long else ROPE_TYPES
    for key in ("rope_parameters", "rope_scaling"):
        stated = getattr(config, key, None) or {}
        nested = {f"{key}.{name}": stated[name] or {} for name in _NESTED if name in stated}
        for name, rope in (nested or {key: stated}).items():
            rope_type = rope.get("rope_type", rope.get("type", "default"))
            if rope_type not in types:
                raise UnsupportedError(
                    f"config.json has {name}.rope_type = {rope_type!r}",
                    rule=f"the modelled types are {', '.join(types)}",
                    remedy="use a model with one of them",
                )
            if not partial and rope.get("partial_rotary_factor", 1.0) != 1.0:
                raise UnsupportedError(
                    f"config.json has {name}.partial_rotary_factor = {rope['partial_rotary_factor']!r}",
                    rule="only 1.0 is modelled for this architecture, where the whole head is rotated",
                    remedy="use a model that rotates the whole head",
                )


def longest(config: Any) -> int:
    """How long a prompt may be: the table of longrope is another one beyond the length of the training."""
    limit = int(config.max_position_embeddings)
    for key in ("rope_parameters", "rope_scaling"):
        rope = getattr(config, key, None) or {}
        if rope.get("rope_type", rope.get("type")) == "longrope":
            trained = rope.get(
                "original_max_position_embeddings", getattr(config, "original_max_position_embeddings", limit)
            )
            limit = min(limit, int(trained))
    return limit


def rotary_tables(module: Any, like: Tensor, *which: str) -> tuple[Tensor, Tensor]:
    """Cos and sin of each position, (T, width) float64, as the run computes them.

    Args:
        module: the model's rotary embedding.
        like: (B, T, d), whose dtype and device count.
        which: the layer type, where the module wants one.
    """
    positions = torch.arange(like.shape[1], device=like.device)[None]  # (1, T)
    # As in the run: a module that was made float64 as a whole has wide frequencies, too.
    precision = FullPrecision() if like.dtype == torch.float64 else contextlib.nullcontext()
    with torch.no_grad(), precision:
        cos, sin = module(like, positions, *which)  # (1, T, width) each, in the dtype of the run
    return cos[0].to(torch.float64), sin[0].to(torch.float64)
