"""What the Llama-like architectures share: pre-norms, rotary positions, grouped heads, gated network, RMSNorm."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from sae_verify.errors import UnsupportedError
from sae_verify.model.adapters.base import Adapter, linear, wide
from sae_verify.model.adapters.rotary import check_rotary, longest, rotary_tables
from sae_verify.model.block import Block
from sae_verify.model.operations import Activation, AttentionWeights, GatedMlp, Linear, Mlp, Norm, RMSNorm


class Decoder(Adapter, abc.ABC):
    """`model.layers` with `self_attn` and `mlp`; an architecture says in what it differs.

    Attributes:
        activation_key: of config.json, for the gate's activation.
        unit_offset: the norms store their gain minus one (Gemma).
        post_norms: attention and network end in norms of their own (Gemma).
    """

    activation_key: ClassVar[str] = "hidden_act"
    unit_offset: ClassVar[bool] = False
    post_norms: ClassVar[bool] = False

    def check(self, config: Any) -> None:
        """Refuse unknown layer types, rotary types and activations."""
        self.check_rotary(config)
        Activation.parse(getattr(config, self.activation_key), self.activation_key)
        for layer in range(config.num_hidden_layers):
            self.window(config, layer)

    def check_rotary(self, config: Any) -> None:
        """Refuse rotary embeddings that are not modelled."""
        check_rotary(config)

    def window(self, config: Any, layer: int) -> int | None:
        """Sliding window of a block, or None."""
        del config, layer
        return None

    def scale(self, config: Any, d_head: int) -> float:
        """What multiplies q.k."""
        del config
        return 1.0 / math.sqrt(d_head)

    def softcap(self, config: Any) -> float | None:
        """Of the scores, or None."""
        del config
        return None

    def projections(self, attention: Any, config: Any) -> tuple[Linear, Linear, Linear]:
        """Query, key and value maps of a block's attention."""
        del config
        return linear(attention.q_proj), linear(attention.k_proj), linear(attention.v_proj)

    def head_norms(self, attention: Any) -> tuple[Norm | None, Norm | None]:
        """Norms of each query and each key head, before the rotation."""
        del attention
        return None, None

    def network(self, mlp: Any, activation: Activation) -> Mlp | GatedMlp:
        """The feed-forward network of a block."""
        return GatedMlp(activation, linear(mlp.gate_proj), linear(mlp.up_proj), linear(mlp.down_proj))

    def tables(self, module: Any, layer: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables of a block, (T, width) each."""
        del layer
        return rotary_tables(module.model.rotary_emb, inputs)

    def blocks(self, module: Any) -> Sequence[Any]:
        """Return the transformer blocks, in order."""
        return list(module.model.layers)

    def final_norm(self, module: Any) -> Norm:
        """Return the norm before the unembedding."""
        return self.norm(module.model.norm)

    def max_length(self, config: Any) -> int:
        """Return how long a prompt may be."""
        return longest(config)

    def attention_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the attention, or the norm after it."""
        stored = self.blocks(module)[layer]
        return stored.post_attention_layernorm if self.post_norms else stored.self_attn

    def mlp_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the feed-forward network, or the norm after it."""
        stored = self.blocks(module)[layer]
        return stored.post_feedforward_layernorm if self.post_norms else stored.mlp

    def mlp_reader(self, module: Any, layer: int) -> nn.Module:
        """Return the norm before the feed-forward network."""
        stored = self.blocks(module)[layer]
        return stored.pre_feedforward_layernorm if self.post_norms else stored.post_attention_layernorm

    def block(self, module: Any, layer: int, inputs: Tensor, lengths: Tensor) -> Block:
        """Return block `layer` at each prompt's last position; see the base class."""
        stored, config = self.blocks(module)[layer], module.config
        attention, norm = stored.self_attn, self.norm(stored.input_layernorm)
        query, key, value = self.projections(attention, config)
        query_norm, key_norm = self.head_norms(attention)
        weights = AttentionWeights(
            query=query,
            key=key,
            value=value,
            output=linear(attention.o_proj),
            n_heads=config.num_attention_heads,
            n_kv_heads=config.num_key_value_heads,
            scale=self.scale(config, query.weight.shape[0] // config.num_attention_heads),
            softcap=self.softcap(config),
            window=self.window(config, layer),
            query_norm=query_norm,
            key_norm=key_norm,
        )
        activation = Activation.parse(getattr(config, self.activation_key), self.activation_key)
        return Block(
            attention_norm=norm,
            attention=weights.at_last(norm(wide(inputs)), lengths, *self.tables(module, layer, inputs)),
            attention_post_norm=self.norm(stored.post_attention_layernorm) if self.post_norms else None,
            mlp_norm=self.norm(self.mlp_reader(module, layer)),
            mlp=self.network(stored.mlp, activation),
            mlp_post_norm=self.norm(stored.post_feedforward_layernorm) if self.post_norms else None,
        )

    def norm(self, module: Any) -> Norm:
        """Read a norm; the releases name its epsilon in two ways."""
        epsilon = module.eps if self.unit_offset else module.variance_epsilon
        return RMSNorm.from_stored(module.weight, float(epsilon), unit_offset=self.unit_offset)


def window_by_type(config: Any, layer: int) -> int | None:
    """Sliding window of a block from `layer_types`, or None.

    Raises:
        UnsupportedError: an unknown type.
    """
    types = getattr(config, "layer_types", None)
    kind = types[layer] if types else "full_attention"
    if kind not in ("full_attention", "sliding_attention"):
        raise UnsupportedError(
            f"config.json has layer_types[{layer}] = {kind!r}",
            rule="only 'full_attention' and 'sliding_attention' are modelled",
            remedy="use a model without it",
        )
    return config.sliding_window if kind == "sliding_attention" else None
