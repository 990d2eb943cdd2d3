"""The transformer blocks of a Hugging Face model directory as exact float64 arrays, each number as stored.

What a block computes, r' = r + post(attention(norm(r))) and r'' = r' + post(mlp(norm(r'))), is in `context.py`.
A tensor of a block that is not read, and a setting that could change the algebra and is not modelled, is a rejection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arithmetic import Array, Ball
from ..arithmetic import sqrt as root
from ..errors import Rejected
from ..model import ModelFiles, read_model
from .config import Settings


@dataclass(frozen=True, eq=False)
class NormWeights:
    """`gain * z / sqrt(mean(z^2) + epsilon) + shift`, with z = x - mean(x) where centred, else x.

    Attributes:
        centred: LayerNorm rather than RMSNorm.
        gain: (d,), with a unit offset already added where the architecture has one.
        shift: (d,); zeros for an RMSNorm.
        epsilon: added to the mean square.

    """

    centred: bool
    gain: Ball
    shift: Array
    epsilon: float


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The stored part of an attention; a missing bias is zeros.

    The score of key k for query q is cap(scale * q.k), with cap(s) = c tanh(s / c) or the identity. Query head h reads
    key-value head h // (n_heads // n_kv_heads).

    Attributes:
        query: (n_heads * d_head, d).
        query_bias: (n_heads * d_head,).
        key: (n_kv_heads * d_head, d).
        key_bias: (n_kv_heads * d_head,).
        value: (n_kv_heads * d_head, d).
        value_bias: (n_kv_heads * d_head,).
        output: (d, n_heads * d_head).
        output_bias: (d,).
        n_heads: query heads.
        n_kv_heads: key-value heads; it divides n_heads.
        scale: shape (), multiplies q.k.
        softcap: c, or None.
        window: a position sees itself and the window - 1 before it; None means all before it.
        rotary_base: of the rotary positions, or None for no rotation.

    """

    query: Array
    query_bias: Array
    key: Array
    key_bias: Array
    value: Array
    value_bias: Array
    output: Array
    output_bias: Array
    n_heads: int
    n_kv_heads: int
    scale: Ball
    softcap: float | None
    window: int | None
    rotary_base: float | None

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.query.shape[0] // self.n_heads


@dataclass(frozen=True, eq=False)
class MlpWeights:
    """`down(activation(up(y)))` or, with a gate, `down(activation(gate(y)) * up(y))`; a missing bias is zeros.

    Attributes:
        kind: the activation: gelu, gelu_tanh or silu.
        gate: (n, d), or None.
        gate_bias: (n,), or None with no gate.
        up: (n, d).
        up_bias: (n,).
        down: (d, n).
        down_bias: (d,).

    """

    kind: str
    gate: Array | None
    gate_bias: Array | None
    up: Array
    up_bias: Array
    down: Array
    down_bias: Array


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """One block; a missing post norm is the identity.

    Attributes:
        attention_norm: before the attention.
        attention: the attention.
        attention_post_norm: after it, before the sum (Gemma-2), or None.
        mlp_norm: before the feed-forward network.
        mlp: the feed-forward network.
        mlp_post_norm: after it, before the sum (Gemma-2), or None.

    """

    attention_norm: NormWeights
    attention: AttentionWeights
    attention_post_norm: NormWeights | None
    mlp_norm: NormWeights
    mlp: MlpWeights
    mlp_post_norm: NormWeights | None


_UNUSED = re.compile(r"attn\.(masked_)?bias|self_attn\.rotary_emb\.inv_freq")
"""Tensors of older exports that are no weights: causal masks and frequency tables."""


def load_blocks(directory: Path, first: int) -> tuple[BlockWeights, ...]:
    """Read the blocks from number `first` on, in order; `first` may be one past the last."""
    files = read_model(directory)
    if not 0 <= first <= files.n_blocks:
        raise Rejected(f"block {first} does not exist in a model of {files.n_blocks} blocks")
    settings = Settings.read(files)
    read: Callable[[_Layer, Settings], BlockWeights] = _gpt2 if settings.family == "gpt2" else _llama
    blocks = []
    for number in range(first, files.n_blocks):
        with _whole(_Layer(files, number)) as layer:
            blocks.append(read(layer, settings))
    return tuple(blocks)


class _Layer:
    """The tensors of one block, by their names within it; every use is recorded."""

    def __init__(self, files: ModelFiles, number: int) -> None:
        self.files, self.number = files, number
        self.prefix = f"{'h' if files.config['model_type'] == 'gpt2' else 'layers'}.{number}."
        self.used: set[str] = set()

    def tensor(self, name: str, *shape: int | None) -> Array:
        """The exact values; None in `shape` stands for any size."""
        self.used.add(name)
        stored = self.files.needed(self.prefix + name)
        if len(stored.shape) != len(shape) or any(
            want is not None and have != want for have, want in zip(stored.shape, shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise Rejected(f"tensor {self.prefix}{name} has shape {stored.shape}, and ({wanted}) was expected")
        try:
            return np.ascontiguousarray(stored.float64())
        except Rejected as error:
            raise Rejected(f"tensor {self.prefix}{name}: {error}") from None

    def bias(self, name: str, size: int, present: bool) -> Array:
        """A bias, zeros where the architecture has none."""
        return self.tensor(name, size) if present else np.zeros(size)


@contextmanager
def _whole(layer: _Layer) -> Iterator[_Layer]:
    """Refuse a block that holds more than was read."""
    yield layer
    pattern = re.compile(rf"(?:{re.escape(layer.files.family['prefix'])})?{re.escape(layer.prefix)}(.*)", re.DOTALL)
    names = {match[1] for name in layer.files.tensors if (match := pattern.fullmatch(name))}
    more = sorted(name for name in names - layer.used if not _UNUSED.fullmatch(name))
    if more:
        raise Rejected(f"block {layer.number} has tensors that are not modelled: {more[:5]}")


def _gpt2(layer: _Layer, settings: Settings) -> BlockWeights:
    """Conv1D stores (in, out); query, key and value are fused."""
    d = settings.d_model

    def norm(name: str) -> NormWeights:
        gain, shift = layer.tensor(f"{name}.weight", d), layer.tensor(f"{name}.bias", d)
        return NormWeights(True, Ball.exact(gain), shift, settings.epsilon)

    fused, fused_bias = layer.tensor("attn.c_attn.weight", d, 3 * d), layer.tensor("attn.c_attn.bias", 3 * d)
    query, key, value = (np.ascontiguousarray(part.T) for part in np.split(fused, 3, axis=1))
    query_bias, key_bias, value_bias = np.split(fused_bias, 3)
    up = layer.tensor("mlp.c_fc.weight", d, None)
    n = up.shape[1]
    return BlockWeights(
        attention_norm=norm("ln_1"),
        attention=AttentionWeights(
            query=query,
            query_bias=query_bias,
            key=key,
            key_bias=key_bias,
            value=value,
            value_bias=value_bias,
            output=np.ascontiguousarray(layer.tensor("attn.c_proj.weight", d, d).T),
            output_bias=layer.tensor("attn.c_proj.bias", d),
            n_heads=settings.n_heads,
            n_kv_heads=settings.n_heads,
            scale=_scale(settings, layer.number),
            softcap=None,
            window=None,
            rotary_base=None,
        ),
        attention_post_norm=None,
        mlp_norm=norm("ln_2"),
        mlp=MlpWeights(
            kind=settings.activation,
            gate=None,
            gate_bias=None,
            up=np.ascontiguousarray(up.T),
            up_bias=layer.tensor("mlp.c_fc.bias", n),
            down=np.ascontiguousarray(layer.tensor("mlp.c_proj.weight", n, d).T),
            down_bias=layer.tensor("mlp.c_proj.bias", d),
        ),
        mlp_post_norm=None,
    )


def _llama(layer: _Layer, settings: Settings) -> BlockWeights:
    """Llama, and Gemma-2 with its unit offset and its two norms more."""
    d, gemma = settings.d_model, settings.family == "gemma2"
    heads, kv_heads = settings.n_heads * settings.d_head, settings.n_kv_heads * settings.d_head
    biased, mlp_biased = settings.attention_bias, settings.mlp_bias

    def norm(name: str) -> NormWeights:
        gain = Ball.exact(layer.tensor(f"{name}.weight", d))
        if gemma:
            gain = gain + Ball.exact(np.ones(d))
        return NormWeights(False, gain, np.zeros(d), settings.epsilon)

    up = layer.tensor("mlp.up_proj.weight", None, d)
    n = len(up)
    return BlockWeights(
        attention_norm=norm("input_layernorm"),
        attention=AttentionWeights(
            query=layer.tensor("self_attn.q_proj.weight", heads, d),
            query_bias=layer.bias("self_attn.q_proj.bias", heads, biased),
            key=layer.tensor("self_attn.k_proj.weight", kv_heads, d),
            key_bias=layer.bias("self_attn.k_proj.bias", kv_heads, biased),
            value=layer.tensor("self_attn.v_proj.weight", kv_heads, d),
            value_bias=layer.bias("self_attn.v_proj.bias", kv_heads, biased),
            output=layer.tensor("self_attn.o_proj.weight", d, heads),
            output_bias=layer.bias("self_attn.o_proj.bias", d, biased),
            n_heads=settings.n_heads,
            n_kv_heads=settings.n_kv_heads,
            scale=_scale(settings, layer.number),
            softcap=settings.softcap,
            window=settings.windows[layer.number],
            rotary_base=settings.rotary_base,
        ),
        attention_post_norm=norm("post_attention_layernorm") if gemma else None,
        mlp_norm=norm("pre_feedforward_layernorm" if gemma else "post_attention_layernorm"),
        mlp=MlpWeights(
            kind=settings.activation,
            gate=layer.tensor("mlp.gate_proj.weight", n, d),
            gate_bias=layer.bias("mlp.gate_proj.bias", n, mlp_biased),
            up=up,
            up_bias=layer.bias("mlp.up_proj.bias", n, mlp_biased),
            down=layer.tensor("mlp.down_proj.weight", d, n),
            down_bias=layer.bias("mlp.down_proj.bias", d, mlp_biased),
        ),
        mlp_post_norm=norm("post_feedforward_layernorm") if gemma else None,
    )


def _scale(settings: Settings, number: int) -> Ball:
    """1 / sqrt(scale_square), once more divided by the block's number (from one) where the config says so."""
    one = Ball.exact(1.0)
    scale = one if settings.scale_square is None else one / root(Ball.exact(settings.scale_square))
    return scale / Ball.exact(float(number + 1)) if settings.scale_by_layer else scale
