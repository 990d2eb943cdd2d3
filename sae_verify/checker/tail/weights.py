"""The transformer blocks of a Hugging Face model directory as exact float64 arrays, each number as stored.

What a block computes, r' = r + post(attention(norm(r))) and r'' = r' + post(mlp(norm(r'))), is in `context.py`.
A tensor of a block that is not read, and a setting that could change the algebra and is not modelled, is a rejection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import Array, Ball
from ..arithmetic import sqrt as root
from ..errors import Rejected
from ..model import read_model
from .config import Settings
from .layer import Layer, whole
from .rotary import Rotary


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
        rotary_base: of plain rotary positions, or how they are scaled; None for no rotation.
        query_norm: of each query head over d_head, before the rotation; or None.
        key_norm: the same for key heads.

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
    rotary_base: float | Rotary | None
    query_norm: NormWeights | None = None
    key_norm: NormWeights | None = None

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
        parallel: the feed-forward network reads the stream before the attention (GPT-NeoX).

    """

    attention_norm: NormWeights
    attention: AttentionWeights
    attention_post_norm: NormWeights | None
    mlp_norm: NormWeights
    mlp: MlpWeights
    mlp_post_norm: NormWeights | None
    parallel: bool = False


def load_blocks(directory: Path, first: int) -> tuple[BlockWeights, ...]:
    """Read the blocks from number `first` on, in order; `first` may be one past the last."""
    files = read_model(directory)
    if not 0 <= first <= files.n_blocks:
        raise Rejected(f"block {first} does not exist in a model of {files.n_blocks} blocks")
    settings = Settings.read(files)
    readers: dict[str, Callable[[Layer, Settings], BlockWeights]] = {"gpt2": _gpt2, "gpt_neox": _gpt_neox}
    read = readers.get(settings.family, _llama)
    blocks = []
    for number in range(first, files.n_blocks):
        with whole(Layer(files, number)) as layer:
            blocks.append(read(layer, settings))
    return tuple(blocks)


def _gpt2(layer: Layer, settings: Settings) -> BlockWeights:
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


def _llama(layer: Layer, settings: Settings) -> BlockWeights:
    """Llama, Mistral, Qwen; Phi-3 with fused maps; Gemma with its unit offset and its two norms more."""
    d, gemma = settings.d_model, settings.unit_offset
    heads, kv_heads = settings.n_heads * settings.d_head, settings.n_kv_heads * settings.d_head
    biased, mlp_biased = settings.attention_bias, settings.mlp_bias

    def norm(name: str, size: int = d) -> NormWeights:
        gain = Ball.exact(layer.tensor(f"{name}.weight", size))
        if gemma:
            gain = gain + Ball.exact(np.ones(size))
        return NormWeights(False, gain, np.zeros(size), settings.epsilon)

    if settings.family == "phi3":
        fused = layer.tensor("self_attn.qkv_proj.weight", heads + 2 * kv_heads, d)
        query, key, value = (np.ascontiguousarray(part) for part in np.split(fused, [heads, heads + kv_heads]))
        both = layer.tensor("mlp.gate_up_proj.weight", None, d)
        if len(both) % 2:
            raise Rejected(f"tensor {layer.prefix}mlp.gate_up_proj.weight has {len(both)} rows, an odd number")
        gate, up = (np.ascontiguousarray(half) for half in np.split(both, 2))
    else:
        query = layer.tensor("self_attn.q_proj.weight", heads, d)
        key = layer.tensor("self_attn.k_proj.weight", kv_heads, d)
        value = layer.tensor("self_attn.v_proj.weight", kv_heads, d)
        up = layer.tensor("mlp.up_proj.weight", None, d)
        gate = layer.tensor("mlp.gate_proj.weight", len(up), d)
    query_bias = layer.bias("self_attn.q_proj.bias", heads, biased)
    key_bias = layer.bias("self_attn.k_proj.bias", kv_heads, biased)
    n, order = len(up), _pairing(settings, layer.number)
    if settings.head_norms and order is not None:
        raise Rejected("norms of heads of which only a part is rotated are not modelled")
    return BlockWeights(
        attention_norm=norm("input_layernorm"),
        attention=AttentionWeights(
            query=_reordered(query, order),
            query_bias=_reordered(query_bias, order),
            key=_reordered(key, order),
            key_bias=_reordered(key_bias, order),
            value=value,
            value_bias=layer.bias("self_attn.v_proj.bias", kv_heads, biased),
            output=layer.tensor("self_attn.o_proj.weight", d, heads),
            output_bias=layer.bias("self_attn.o_proj.bias", d, settings.output_bias),
            n_heads=settings.n_heads,
            n_kv_heads=settings.n_kv_heads,
            scale=_scale(settings, layer.number),
            softcap=settings.softcap,
            window=settings.windows[layer.number],
            rotary_base=settings.rotary[layer.number],
            query_norm=norm("self_attn.q_norm", settings.d_head) if settings.head_norms else None,
            key_norm=norm("self_attn.k_norm", settings.d_head) if settings.head_norms else None,
        ),
        attention_post_norm=norm("post_attention_layernorm") if gemma else None,
        mlp_norm=norm("pre_feedforward_layernorm" if gemma else "post_attention_layernorm"),
        mlp=MlpWeights(
            kind=settings.activation,
            gate=gate,
            gate_bias=layer.bias("mlp.gate_proj.bias", n, mlp_biased),
            up=up,
            up_bias=layer.bias("mlp.up_proj.bias", n, mlp_biased),
            down=layer.tensor("mlp.down_proj.weight", d, n),
            down_bias=layer.bias("mlp.down_proj.bias", d, mlp_biased),
        ),
        mlp_post_norm=norm("post_feedforward_layernorm") if gemma else None,
    )


def _gpt_neox(layer: Layer, settings: Settings) -> BlockWeights:
    """Query, key and value of each head lie together."""
    d, heads, d_head = settings.d_model, settings.n_heads, settings.d_head

    def norm(name: str) -> NormWeights:
        gain, shift = layer.tensor(f"{name}.weight", d), layer.tensor(f"{name}.bias", d)
        return NormWeights(True, Ball.exact(gain), shift, settings.epsilon)

    fused = layer.tensor("attention.query_key_value.weight", 3 * d, d).reshape(heads, 3, d_head, d)
    fused_bias = layer.bias("attention.query_key_value.bias", 3 * d, settings.attention_bias).reshape(heads, 3, d_head)
    query, key, value = (np.ascontiguousarray(fused[:, part].reshape(d, d)) for part in range(3))
    query_bias, key_bias, value_bias = (np.ascontiguousarray(fused_bias[:, part].reshape(d)) for part in range(3))
    up, order = layer.tensor("mlp.dense_h_to_4h.weight", None, d), _pairing(settings, layer.number)
    n = len(up)
    return BlockWeights(
        attention_norm=norm("input_layernorm"),
        attention=AttentionWeights(
            query=_reordered(query, order),
            query_bias=_reordered(query_bias, order),
            key=_reordered(key, order),
            key_bias=_reordered(key_bias, order),
            value=value,
            value_bias=value_bias,
            output=layer.tensor("attention.dense.weight", d, d),
            output_bias=layer.bias("attention.dense.bias", d, settings.output_bias),
            n_heads=heads,
            n_kv_heads=heads,
            scale=_scale(settings, layer.number),
            softcap=None,
            window=None,
            rotary_base=settings.rotary[layer.number],
        ),
        attention_post_norm=None,
        mlp_norm=norm("post_attention_layernorm"),
        mlp=MlpWeights(
            kind=settings.activation,
            gate=None,
            gate_bias=None,
            up=up,
            up_bias=layer.bias("mlp.dense_h_to_4h.bias", n, settings.mlp_bias),
            down=layer.tensor("mlp.dense_4h_to_h.weight", d, n),
            down_bias=layer.bias("mlp.dense_4h_to_h.bias", d, settings.mlp_bias),
        ),
        mlp_post_norm=None,
        parallel=settings.parallel,
    )


def _pairing(settings: Settings, number: int) -> NDArray[np.intp] | None:
    """An order of a head's entries in which those that turn together lie half a head apart; None where they do.

    Only the first `width` entries of a head may turn, entry i with entry i + width / 2. Scores are sums over a head's
    entries, so the same order for queries and keys does not change them.
    """
    rotary, d_head = settings.rotary[number], settings.d_head
    if not isinstance(rotary, Rotary) or rotary.width == d_head:
        return None
    half, still = rotary.width // 2, (d_head - rotary.width) // 2
    first, second = np.arange(half), np.arange(half, rotary.width)
    rest = np.arange(rotary.width, d_head)
    return np.concatenate([first, rest[:still], second, rest[still:]])


def _reordered(rows: Array, order: NDArray[np.intp] | None) -> Array:
    """Rows (heads * d_head, ...) with every head's in the given order."""
    if order is None:
        return rows
    split = rows.reshape(-1, len(order), *rows.shape[1:])
    return np.ascontiguousarray(split[:, order].reshape(rows.shape))


def _scale(settings: Settings, number: int) -> Ball:
    """1 / sqrt(scale_square), times the square of the rotary tables' gain, and divided by the block's number if so."""
    one, gain = Ball.exact(1.0), Ball.exact(settings.rotary_gains[number])
    scale = one if settings.scale_square is None else one / root(Ball.exact(settings.scale_square))
    if settings.rotary_gains[number] != 1.0:
        scale = scale * gain * gain
    return scale / Ball.exact(float(number + 1)) if settings.scale_by_layer else scale
