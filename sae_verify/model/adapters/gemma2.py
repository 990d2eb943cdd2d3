"""Gemma-2: (1 + w) RMSNorm, four a block, capped scores, alternating sliding windows, gated GELU network."""

from __future__ import annotations

import math
from typing import Any

from sae_verify.model.adapters.base import require
from sae_verify.model.adapters.decoder import Decoder, window_by_type


class Gemma2Adapter(Decoder):
    """`model_type` gemma2."""

    family = "gemma2"
    name = "Gemma-2"
    enclosed = True
    activation_key = "hidden_activation"
    unit_offset = True
    post_norms = True

    def check(self, config: Any) -> None:
        """Refuse bidirectional attention, and what the base class refuses."""
        require(config, "use_bidirectional_attention", None, False)
        super().check(config)

    def window(self, config: Any, layer: int) -> int | None:
        """Sliding window of a block, or None."""
        return _window(config, layer)

    def scale(self, config: Any, d_head: int) -> float:
        """From a number of its own."""
        del d_head
        return 1.0 / math.sqrt(config.query_pre_attn_scalar)

    def softcap(self, config: Any) -> float | None:
        """Of the scores, or None."""
        return config.attn_logit_softcapping


def _window(config: Any, layer: int) -> int | None:
    """Older configs have no `layer_types` and alternate."""
    if getattr(config, "layer_types", None):
        return window_by_type(config, layer)
    return config.sliding_window if layer % 2 == 0 else None
