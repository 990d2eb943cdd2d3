"""Qwen3: Llama with a norm on each query and key head."""

from __future__ import annotations

from typing import Any

from sae_verify.model.adapters.decoder import Decoder, window_by_type
from sae_verify.model.operations import Norm


class Qwen3Adapter(Decoder):
    """`model_type` qwen3."""

    family = "qwen3"
    name = "Qwen3"
    enclosed = True

    def window(self, config: Any, layer: int) -> int | None:
        """Sliding window of a block, or None."""
        return window_by_type(config, layer)

    def head_norms(self, attention: Any) -> tuple[Norm, Norm]:
        """Norms of each query and each key head."""
        return self.norm(attention.q_norm), self.norm(attention.k_norm)
