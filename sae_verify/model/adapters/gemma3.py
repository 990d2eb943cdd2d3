"""Gemma-3, the text model: Gemma-2 without caps, with norms on query and key heads, and a rotary base a layer type."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from sae_verify.model.adapters.base import require
from sae_verify.model.adapters.decoder import Decoder, window_by_type
from sae_verify.model.adapters.rotary import rotary_tables
from sae_verify.model.operations import Norm


class Gemma3Adapter(Decoder):
    """`model_type` gemma3_text."""

    family = "gemma3_text"
    name = "Gemma-3 (text)"
    enclosed = True
    activation_key = "hidden_activation"
    unit_offset = True
    post_norms = True

    def check(self, config: Any) -> None:
        """Refuse bidirectional attention, capped scores (its code ignores them), and what the base class refuses."""
        require(config, "use_bidirectional_attention", False, None)
        require(config, "attn_logit_softcapping", None)
        super().check(config)

    def window(self, config: Any, layer: int) -> int | None:
        """Sliding window of a block, or None."""
        return window_by_type(config, layer)

    def scale(self, config: Any, d_head: int) -> float:
        """From a number of its own."""
        del d_head
        return 1.0 / math.sqrt(config.query_pre_attn_scalar)

    def head_norms(self, attention: Any) -> tuple[Norm, Norm]:
        """Norms of each query and each key head."""
        return self.norm(attention.q_norm), self.norm(attention.k_norm)

    def tables(self, module: Any, layer: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of the block's layer type; older releases have a module for each."""
        kind = module.config.layer_types[layer]
        local = getattr(module.model, "rotary_emb_local", None)
        if local is not None:
            return rotary_tables(local if kind == "sliding_attention" else module.model.rotary_emb, inputs)
        return rotary_tables(module.model.rotary_emb, inputs, kind)
