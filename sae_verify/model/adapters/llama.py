"""Llama: RMSNorm, rotary positions, grouped key-value heads, gated network."""

from __future__ import annotations

from typing import Any

from sae_verify.model.adapters.base import require
from sae_verify.model.adapters.decoder import Decoder


class LlamaAdapter(Decoder):
    """`model_type` llama."""

    family = "llama"
    name = "Llama"
    enclosed = True

    def check(self, config: Any) -> None:
        """Refuse tensor-parallel slicing, and what the base class refuses."""
        require(config, "pretraining_tp", 1, None)
        super().check(config)
