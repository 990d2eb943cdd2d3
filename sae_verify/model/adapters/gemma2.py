"""Gemma-2: (1 + w) RMSNorm, four a block, capped scores, alternating sliding windows, gated GELU network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sae_verify.errors import UnsupportedError
from sae_verify.model.adapters.base import Adapter, linear, require, wide
from sae_verify.model.adapters.rotary import check_rotary, rotary_tables
from sae_verify.model.block import Block
from sae_verify.model.operations import Activation, AttentionWeights, GatedMlp, RMSNorm


class Gemma2Adapter(Adapter):
    """`model_type` gemma2."""

    family = "gemma2"

    def check(self, config: Any) -> None:
        """Refuse bidirectional attention, unknown layer types, rotary types and activations."""
        require(config, "use_bidirectional_attention", None, False)
        check_rotary(config)
        Activation.parse(config.hidden_activation, "hidden_activation")
        for layer in range(config.num_hidden_layers):
            _window(config, layer)

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
        weights = AttentionWeights(
            query=linear(attention.q_proj),
            key=linear(attention.k_proj),
            value=linear(attention.v_proj),
            output=linear(attention.o_proj),
            n_heads=config.num_attention_heads,
            n_kv_heads=config.num_key_value_heads,
            scale=1.0 / math.sqrt(config.query_pre_attn_scalar),
            softcap=config.attn_logit_softcapping,
            window=_window(config, layer),
        )
        return Block(
            attention_norm=norm,
            attention=weights.at_last(norm(wide(inputs)), lengths, *rotary_tables(module.model.rotary_emb, inputs)),
            attention_post_norm=_rms_norm(stored.post_attention_layernorm),
            mlp_norm=_rms_norm(stored.pre_feedforward_layernorm),
            mlp=GatedMlp(
                Activation.parse(config.hidden_activation, "hidden_activation"),
                gate=linear(mlp.gate_proj),
                up=linear(mlp.up_proj),
                down=linear(mlp.down_proj),
            ),
            mlp_post_norm=_rms_norm(stored.post_feedforward_layernorm),
        )


def _window(config: Any, layer: int) -> int | None:
    """Return the sliding window of a block, or None; older configs have no `layer_types` and alternate."""
    types = getattr(config, "layer_types", None)
    kind = types[layer] if types else ("full_attention", "sliding_attention")[layer % 2 == 0]
    if kind not in ("full_attention", "sliding_attention"):
        raise UnsupportedError(
            f"config.json has layer_types[{layer}] = {kind!r}",
            rule="only 'full_attention' and 'sliding_attention' are modelled",
            remedy="use a model without it",
        )
    return config.sliding_window if kind == "sliding_attention" else None


def _rms_norm(module: Any) -> RMSNorm:
    return RMSNorm.from_stored(module.weight, float(module.eps), unit_offset=True)
