"""Llama: RMSNorm, rotary positions, grouped key-value heads, gated network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sae_verify.model.adapters.base import Adapter, linear, require, wide
from sae_verify.model.adapters.rotary import check_rotary, rotary_tables
from sae_verify.model.block import Block
from sae_verify.model.operations import Activation, AttentionWeights, GatedMlp, RMSNorm


class LlamaAdapter(Adapter):
    """`model_type` llama."""

    family = "llama"

    def check(self, config: Any) -> None:
        """Refuse tensor-parallel slicing, unknown rotary types and unknown activations."""
        require(config, "pretraining_tp", 1, None)
        check_rotary(config)
        Activation.parse(config.hidden_act, "hidden_act")

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """Return the transformer blocks, in order."""
        return list(module.model.layers)

    def final_norm(self, module: Any) -> RMSNorm:
        """Return the norm before the unembedding."""
        return _rms_norm(module.model.norm)

    def block(self, module: Any, layer: int, inputs: Tensor, lengths: Tensor) -> Block:
        """Return block `layer` at each prompt's last position; see the base class."""
        stored, config = module.model.layers[layer], module.config
        attention, mlp, norm = stored.self_attn, stored.mlp, _rms_norm(stored.input_layernorm)
        d_head = attention.q_proj.weight.shape[0] // config.num_attention_heads
        weights = AttentionWeights(
            query=linear(attention.q_proj),
            key=linear(attention.k_proj),
            value=linear(attention.v_proj),
            output=linear(attention.o_proj),
            n_heads=config.num_attention_heads,
            n_kv_heads=config.num_key_value_heads,
            scale=1.0 / math.sqrt(d_head),
        )
        return Block(
            attention_norm=norm,
            attention=weights.at_last(norm(wide(inputs)), lengths, *rotary_tables(module.model.rotary_emb, inputs)),
            attention_post_norm=None,
            mlp_norm=_rms_norm(stored.post_attention_layernorm),
            mlp=GatedMlp(
                Activation.parse(config.hidden_act, "hidden_act"),
                gate=linear(mlp.gate_proj),
                up=linear(mlp.up_proj),
                down=linear(mlp.down_proj),
            ),
            mlp_post_norm=None,
        )


def _rms_norm(module: Any) -> RMSNorm:
    return RMSNorm.from_stored(module.weight, float(module.variance_epsilon))
