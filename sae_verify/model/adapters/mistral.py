"""Mistral: Llama with a sliding window in every block."""

from __future__ import annotations

from typing import Any

from sae_verify.model.adapters.base import require
from sae_verify.model.adapters.decoder import Decoder


class MistralAdapter(Decoder):
    """`model_type` mistral."""

    family = "mistral"
    name = "Mistral"
    enclosed = True

    def check(self, config: Any) -> None:
        """Refuse windows that differ between blocks, which this architecture ignores, and what the base class does."""
        require(config, "layer_types", None)
        super().check(config)

    def window(self, config: Any, layer: int) -> int | None:
        """The same in every block."""
        del layer
        return config.sliding_window
