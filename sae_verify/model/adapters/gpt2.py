"""GPT-2: LayerNorm, fused q, k, v in Conv1D layout, learned positions, plain GELU network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sae_verify.model.adapters.base import Adapter, layer_norm, require, wide
from sae_verify.model.block import Block
from sae_verify.model.operations import Activation, AttentionWeights, LayerNorm, Linear, Mlp


class Gpt2Adapter(Adapter):
    """`model_type` gpt2."""

    family = "gpt2"
    name = "GPT-2"
    enclosed = True

    def check(self, config: Any) -> None:
        """Refuse cross-attention, pruned heads, reordered attention and unknown activations."""
        require(config, "add_cross_attention", False)
        require(config, "reorder_and_upcast_attn", False)
        require(config, "pruned_heads", {}, None)
        Activation.parse(config.activation_function, "activation_function")

    def blocks(self, module: Any) -> Sequence[Any]:
        """Return the transformer blocks, in order."""
        return list(module.transformer.h)

    def final_norm(self, module: Any) -> LayerNorm:
        """Return the norm before the unembedding."""
        return layer_norm(module.transformer.ln_f)

    def attention_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the attention."""
        return self.blocks(module)[layer].attn

    def mlp_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the feed-forward network."""
        return self.blocks(module)[layer].mlp

    def mlp_reader(self, module: Any, layer: int) -> nn.Module:
        """Return the norm before the feed-forward network."""
        return self.blocks(module)[layer].ln_2

    def block(self, module: Any, layer: int, inputs: Tensor, lengths: Tensor) -> Block:
        """Return block `layer` at each prompt's last position; see the base class."""
        stored, config = module.transformer.h[layer], module.config
        norm = layer_norm(stored.ln_1)
        query, key, value = _split(_conv(stored.attn.c_attn))
        scale = 1.0 / math.sqrt(config.n_embd // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= layer + 1
        weights = AttentionWeights(
            query=query,
            key=key,
            value=value,
            output=_conv(stored.attn.c_proj),
            n_heads=config.n_head,
            n_kv_heads=config.n_head,
            scale=scale,
        )
        activation = Activation.parse(config.activation_function, "activation_function")
        return Block(
            attention_norm=norm,
            attention=weights.at_last(norm(wide(inputs)), lengths),
            attention_post_norm=None,
            mlp_norm=layer_norm(stored.ln_2),
            mlp=Mlp(activation, up=_conv(stored.mlp.c_fc), down=_conv(stored.mlp.c_proj)),
            mlp_post_norm=None,
        )


def _conv(module: Any) -> Linear:
    """Conv1D stores (in, out)."""
    return Linear(wide(module.weight).T, wide(module.bias))


def _split(fused: Linear) -> list[Linear]:
    assert fused.bias is not None  # Conv1D always has one
    return [Linear(w, b) for w, b in zip(fused.weight.chunk(3), fused.bias.chunk(3), strict=True)]
