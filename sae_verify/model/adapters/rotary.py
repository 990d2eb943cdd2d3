"""Rotary position tables, read from the model's own module so that they are the ones it uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import UnsupportedError

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Types whose table at a position does not depend on the length of the batch."""


def check_rotary(config: Any) -> None:
    """Refuse rotary embeddings whose table depends on more than the position, or that rotate a part of the head.

    Raises:
        UnsupportedError: names the key of config.json.
    """
    for key in ("rope_parameters", "rope_scaling"):
        rope = getattr(config, key, None) or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type not in ROPE_TYPES:
            raise UnsupportedError(
                f"config.json has {key}.rope_type = {rope_type!r}",
                rule=f"the modelled types are {', '.join(ROPE_TYPES)}",
                remedy="use a model with one of them",
            )
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedError(
                f"config.json has {key}.partial_rotary_factor = {rope['partial_rotary_factor']!r}",
                rule="only 1.0 is modelled, where the whole head is rotated",
                remedy="use a model that rotates the whole head",
            )


def rotary_tables(module: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin of each position, (T, d_head) float64, as the run computes them for `like` (B, T, d)."""
    positions = torch.arange(like.shape[1], device=like.device)[None]  # (1, T)
    with torch.no_grad():
        cos, sin = module(like, positions)  # (1, T, d_head) each, in the dtype of the run
    return cos[0].to(torch.float64), sin[0].to(torch.float64)
