"""Qwen2 and Qwen2.5: Llama with biases on query, key and value, and sliding windows from some block on."""

from __future__ import annotations

from typing import Any

from sae_verify.model.adapters.base import require
from sae_verify.model.adapters.decoder import Decoder, window_by_type


class Qwen2Adapter(Decoder):
    """`model_type` qwen2."""

    family = "qwen2"
    name = "Qwen2"
    enclosed = True

    def check(self, config: Any) -> None:
        """Refuse positions in several dimensions, and what the base class refuses."""
        require(config, "use_mrope", False, None)
        super().check(config)

    def window(self, config: Any, layer: int) -> int | None:
        """Sliding window of a block, or None."""
        return window_by_type(config, layer)
