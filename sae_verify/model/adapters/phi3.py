"""Phi-3 and Phi-4: Llama with fused projections, a sliding window in every block, and partial rotary positions."""

from __future__ import annotations

from typing import Any

from sae_verify.model.adapters.base import linear
from sae_verify.model.adapters.decoder import Decoder
from sae_verify.model.adapters.rotary import check_rotary
from sae_verify.model.operations import Activation, GatedMlp, Linear


class Phi3Adapter(Decoder):
    """`model_type` phi3."""

    family = "phi3"
    name = "Phi-3"
    enclosed = True
    own_code = frozenset({"configuration_phi3.Phi3Config", "modeling_phi3.Phi3ForCausalLM"})

    def check_rotary(self, config: Any) -> None:
        """Also parts of a head may be rotated, and tables may change beyond the length of the training."""
        check_rotary(config, partial=True, long=True)

    def window(self, config: Any, layer: int) -> int | None:
        """The same in every block."""
        del layer
        return config.sliding_window

    def projections(self, attention: Any, config: Any) -> tuple[Linear, Linear, Linear]:
        """Query, key and value, stored as one."""
        fused = linear(attention.qkv_proj)
        grouped = config.num_key_value_heads * attention.head_dim
        query, key, value = _split(fused, len(fused.weight) - 2 * grouped, grouped, grouped)
        return query, key, value

    def network(self, mlp: Any, activation: Activation) -> GatedMlp:
        """Gate and up, stored as one."""
        fused = linear(mlp.gate_up_proj)
        half = len(fused.weight) // 2
        gate, up = _split(fused, half, half)
        return GatedMlp(activation, gate, up, linear(mlp.down_proj))


def _split(fused: Linear, *sizes: int) -> list[Linear]:
    assert fused.bias is None  # the architecture has none
    return [Linear(weight) for weight in fused.weight.split(sizes)]
