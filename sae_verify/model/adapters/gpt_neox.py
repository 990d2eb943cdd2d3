"""GPT-NeoX and Pythia: LayerNorm, fused q, k, v a head, partial rotary positions, usually a parallel residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sae_verify.errors import HookPointError
from sae_verify.model.adapters.base import Adapter, layer_norm, linear, wide
from sae_verify.model.adapters.rotary import check_rotary, longest, rotary_tables
from sae_verify.model.block import Block
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.operations import Activation, AttentionWeights, LayerNorm, Linear, Mlp


class GptNeoxAdapter(Adapter):
    """`model_type` gpt_neox."""

    family = "gpt_neox"
    name = "GPT-NeoX, Pythia"
    enclosed = True

    def check(self, config: Any) -> None:
        """Refuse unknown rotary types and activations."""
        check_rotary(config, partial=True)
        Activation.parse(config.hidden_act, "hidden_act")

    def check_hook(self, module: Any, hook: HookPoint) -> None:
        """Refuse the middle of a block whose halves are parallel."""
        super().check_hook(module, hook)
        if hook.site == "hook_resid_mid" and module.config.use_parallel_residual:
            raise HookPointError(
                f"hook point {hook}",
                rule="attention and feed-forward network of this model both read the block's input "
                "(use_parallel_residual): there is no residual stream between them",
                remedy="use hook_attn_out, hook_mlp_out, hook_resid_pre or hook_resid_post",
            )

    def max_length(self, config: Any) -> int:
        """Return how long a prompt may be."""
        return longest(config)

    def blocks(self, module: Any) -> Sequence[Any]:
        """Return the transformer blocks, in order."""
        return list(module.gpt_neox.layers)

    def final_norm(self, module: Any) -> LayerNorm:
        """Return the norm before the unembedding."""
        return layer_norm(module.gpt_neox.final_layer_norm)

    def attention_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the attention."""
        return self.blocks(module)[layer].attention

    def mlp_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the feed-forward network."""
        return self.blocks(module)[layer].mlp

    def mlp_reader(self, module: Any, layer: int) -> nn.Module:
        """Return the norm before the feed-forward network."""
        return self.blocks(module)[layer].post_attention_layernorm

    def lm_head(self, module: Any) -> nn.Module:
        """Return the unembedding, which older releases call otherwise."""
        return module.get_output_embeddings()

    def block(self, module: Any, layer: int, inputs: Tensor, lengths: Tensor) -> Block:
        """Return block `layer` at each prompt's last position; see the base class."""
        stored, config = self.blocks(module)[layer], module.config
        norm, heads = layer_norm(stored.input_layernorm), config.num_attention_heads
        query, key, value = _split(linear(stored.attention.query_key_value), heads)
        weights = AttentionWeights(
            query=query,
            key=key,
            value=value,
            output=linear(stored.attention.dense),
            n_heads=heads,
            n_kv_heads=heads,
            scale=1.0 / math.sqrt(config.hidden_size // heads),
        )
        return Block(
            attention_norm=norm,
            attention=weights.at_last(norm(wide(inputs)), lengths, *rotary_tables(module.gpt_neox.rotary_emb, inputs)),
            attention_post_norm=None,
            mlp_norm=layer_norm(stored.post_attention_layernorm),
            mlp=Mlp(
                Activation.parse(config.hidden_act, "hidden_act"),
                up=linear(stored.mlp.dense_h_to_4h),
                down=linear(stored.mlp.dense_4h_to_h),
            ),
            mlp_post_norm=None,
            parallel=bool(config.use_parallel_residual),
        )


def _split(fused: Linear, heads: int) -> list[Linear]:
    """Query, key and value of each head lie together."""
    weights = fused.weight.unflatten(0, (heads, 3, -1))  # (heads, 3, d_head, d)
    biases = None if fused.bias is None else fused.bias.unflatten(0, (heads, 3, -1))  # (heads, 3, d_head)
    return [
        Linear(weights[:, part].flatten(0, 1), None if biases is None else biases[:, part].flatten())
        for part in range(3)
    ]
