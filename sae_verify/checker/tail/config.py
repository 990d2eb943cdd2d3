"""What config.json says of the blocks, strictly: an option that changes the algebra is read or refused.

Keys that may be missing are those that Hugging Face's own exports leave out, with the defaults of their families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..model import ModelFiles
from .keys import count, flag, only, positive, refuse
from .positions import rotary, rotary_by_window
from .rotary import Rotary

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""Hugging Face's names of the activations that are modelled."""
_SYNONYMS = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
"""Keys of GPT-2 that loaders also take under another name."""


@dataclass(frozen=True)
class Settings:
    """The numbers of config.json that the blocks depend on.

    Attributes:
        family: the model type.
        d_model: width of the residual stream.
        n_heads: query heads.
        n_kv_heads: key-value heads; it divides n_heads.
        d_head: width of a head.
        epsilon: of every norm.
        activation: gelu, gelu_tanh or silu.
        scale_square: scores are divided by its root; None for no scaling.
        scale_by_layer: scores are divided by the block's number, from one, too.
        attention_bias: query, key and value have a bias.
        output_bias: the attention's output has one.
        mlp_bias: the maps of the feed-forward network have a bias.
        softcap: of the scores, or None.
        windows: of each block; None where it sees everything.
        rotary: of each block, the base of plain rotary positions, or how they are scaled; None for no rotation.
        rotary_gains: of each block; scores are multiplied by its square, which yarn puts into its tables.
        unit_offset: norms store their gain minus one, and both halves of a block end in norms (Gemma).
        head_norms: each query and key head has a norm.
        parallel: the feed-forward network reads the stream before the attention.

    """

    family: str
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    epsilon: float
    activation: str
    scale_square: float | None
    scale_by_layer: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    softcap: float | None
    windows: tuple[int | None, ...]
    rotary: tuple[float | Rotary | None, ...]
    rotary_gains: tuple[float, ...]
    unit_offset: bool = False
    head_norms: bool = False
    parallel: bool = False

    @classmethod
    def read(cls, files: ModelFiles) -> Settings:
        """Read and check them."""
        families: dict[str, Callable[[ModelFiles], Settings]] = {
            "gpt2": _gpt2,
            "llama": _llama,
            "mistral": _mistral,
            "qwen2": _qwen2,
            "qwen3": _qwen3,
            "phi3": _phi3,
            "gemma2": _gemma2,
            "gemma3_text": _gemma3,
            "gpt_neox": _gpt_neox,
        }
        return families[files.config["model_type"]](files)


def _gpt2(files: ModelFiles) -> Settings:
    config = files.config
    for key, other in _SYNONYMS.items():
        if other in config and config[other] != config.get(key):
            refuse(other, config[other], f"the same as {key}")
    only(config, "add_cross_attention", False)
    only(config, "pruned_heads", None, {})
    d, heads = count(config, "n_embd"), count(config, "n_head")
    if d % heads:
        refuse("n_head", heads, f"a divisor of n_embd = {d}")
    return Settings(
        family="gpt2",
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=d // heads,
        epsilon=files.epsilon,
        activation=_activation(config, "activation_function"),
        scale_square=float(d // heads) if flag(config, "scale_attn_weights", True) else None,
        scale_by_layer=flag(config, "scale_attn_by_inverse_layer_idx", False),
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        softcap=None,
        windows=(None,) * files.n_blocks,
        rotary=(None,) * files.n_blocks,
        rotary_gains=(1.0,) * files.n_blocks,
    )


def _llama(files: ModelFiles) -> Settings:
    only(files.config, "pretraining_tp", None, 1)
    biased = flag(files.config, "attention_bias", False)
    return _like_llama(files, "llama", qkv=biased, output=biased, mlp=flag(files.config, "mlp_bias", False))


def _mistral(files: ModelFiles) -> Settings:
    """A sliding window in every block; without the key loaders assume one, which is not guessed here."""
    only(files.config, "layer_types", None)
    if "sliding_window" not in files.config:
        refuse("sliding_window", None, "there, if only as null")
    return _like_llama(files, "mistral", windows=_same_window(files))


def _qwen2(files: ModelFiles) -> Settings:
    """Biases on query, key and value; sliding windows from the block `max_window_layers` on, if at all."""
    only(files.config, "use_mrope", None, False)
    return _like_llama(files, "qwen2", qkv=True, windows=_later_windows(files))


def _qwen3(files: ModelFiles) -> Settings:
    """Norms on query and key heads, whose width is a number of its own."""
    count(files.config, "head_dim")
    biased = flag(files.config, "attention_bias", False)
    windows = _later_windows(files)
    return _like_llama(files, "qwen3", qkv=biased, output=biased, windows=windows, head_norms=True)


def _later_windows(files: ModelFiles) -> tuple[int | None, ...]:
    """Of each block, from `layer_types`, or else from the block `max_window_layers` on."""
    config, blocks = files.config, files.n_blocks
    sliding = flag(config, "use_sliding_window", False) and config.get("sliding_window") is not None
    if config.get("layer_types") is not None:
        windows = _windows(config, blocks) if sliding else _windows(config | {"sliding_window": 1}, blocks)
        if not sliding and any(windows):
            refuse("layer_types", config["layer_types"], "full_attention throughout, without a sliding window in use")
        return windows
    if not sliding:
        return (None,) * blocks
    full, window = config.get("max_window_layers"), count(config, "sliding_window")
    if type(full) is not int or full < 0:
        refuse("max_window_layers", full, "a whole number")
    assert type(full) is int
    return tuple(window if number >= full else None for number in range(blocks))


def _phi3(files: ModelFiles) -> Settings:
    """Fused projections; a sliding window in every block, if at all; a part of each head may turn.

    Loaders read other rotary types of this architecture as one whose tables depend on the length.
    """
    only(files.config, "attention_bias", None, False)
    return _like_llama(files, "phi3", windows=_same_window(files), partial=True)


def _like_llama(
    files: ModelFiles,
    family: str,
    *,
    qkv: bool = False,
    output: bool = False,
    mlp: bool = False,
    windows: tuple[int | None, ...] | None = None,
    partial: bool = False,
    head_norms: bool = False,
) -> Settings:
    config = files.config
    d, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    if config.get("head_dim") is None and d % heads:
        refuse("num_attention_heads", heads, f"a divisor of hidden_size = {d}")
    d_head = d // heads if config.get("head_dim") is None else count(config, "head_dim")
    base, gain = rotary(config, d_head, partial=partial, scaled=family != "phi3")
    blocks = files.n_blocks
    return Settings(
        family=family,
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads if config.get("num_key_value_heads") is None else _kv_heads(config, heads),
        d_head=d_head,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_act"),
        scale_square=float(d_head),
        scale_by_layer=False,
        attention_bias=qkv,
        output_bias=output,
        mlp_bias=mlp,
        softcap=None,
        windows=(None,) * blocks if windows is None else windows,
        rotary=(base,) * blocks,
        rotary_gains=(gain,) * blocks,
        head_norms=head_norms,
    )


def _gemma2(files: ModelFiles) -> Settings:
    config = files.config
    only(config, "use_bidirectional_attention", None, False)
    heads, d_head = count(config, "num_attention_heads"), count(config, "head_dim")
    if "attn_logit_softcapping" not in config:
        refuse("attn_logit_softcapping", None, "there, if only as null")
    capped = config["attn_logit_softcapping"] is not None
    base, gain = rotary(config, d_head)
    biased = flag(config, "attention_bias", False)
    return Settings(
        family="gemma2",
        d_model=count(config, "hidden_size"),
        n_heads=heads,
        n_kv_heads=_kv_heads(config, heads),
        d_head=d_head,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_activation"),
        scale_square=positive(config, "query_pre_attn_scalar"),
        scale_by_layer=False,
        attention_bias=biased,
        output_bias=biased,
        mlp_bias=False,
        softcap=positive(config, "attn_logit_softcapping") if capped else None,
        windows=_windows(config, files.n_blocks),
        rotary=(base,) * files.n_blocks,
        rotary_gains=(gain,) * files.n_blocks,
        unit_offset=True,
    )


def _gemma3(files: ModelFiles) -> Settings:
    """Gemma-2 without caps, with norms on query and key heads, and rotary positions of their own for short windows."""
    config, blocks = files.config, files.n_blocks
    only(config, "use_bidirectional_attention", None, False)
    only(config, "attn_logit_softcapping", None)
    heads, d_head = count(config, "num_attention_heads"), count(config, "head_dim")
    biased = flag(config, "attention_bias", False)
    windows = _windows(config, blocks, every=6 if config.get("sliding_window_pattern") is None else None)
    far, near = rotary_by_window(config, d_head)
    return Settings(
        family="gemma3_text",
        d_model=count(config, "hidden_size"),
        n_heads=heads,
        n_kv_heads=_kv_heads(config, heads),
        d_head=d_head,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_activation"),
        scale_square=positive(config, "query_pre_attn_scalar"),
        scale_by_layer=False,
        attention_bias=biased,
        output_bias=biased,
        mlp_bias=False,
        softcap=None,
        windows=windows,
        rotary=tuple(far[0] if window is None else near[0] for window in windows),
        rotary_gains=tuple(far[1] if window is None else near[1] for window in windows),
        unit_offset=True,
        head_norms=True,
    )


def _gpt_neox(files: ModelFiles) -> Settings:
    """LayerNorm, biases, and rotary positions of a part of each head, under names of their own."""
    config, blocks = files.config, files.n_blocks
    d, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    if d % heads:
        refuse("num_attention_heads", heads, f"a divisor of hidden_size = {d}")
    only(config, "head_dim", None, d // heads)
    renamed = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
    older = {new: config[old] for old, new in renamed.items() if old in config}
    if config.get("rope_parameters") is None and config.get("rope_scaling") is None:
        older = {"partial_rotary_factor": 0.25} | older
    base, gain = rotary(config | older, d // heads, partial=True)
    biased = flag(config, "attention_bias", True)
    return Settings(
        family="gpt_neox",
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=d // heads,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_act"),
        scale_square=float(d // heads),
        scale_by_layer=False,
        attention_bias=biased,
        output_bias=biased,
        mlp_bias=True,
        softcap=None,
        windows=(None,) * blocks,
        rotary=(base,) * blocks,
        rotary_gains=(gain,) * blocks,
        parallel=flag(config, "use_parallel_residual", True),
    )


def _windows(config: dict[str, Any], blocks: int, every: int | None = 2) -> tuple[int | None, ...]:
    """Of each block; without `layer_types` one block in `every` sees everything, the last of each group."""
    kinds = config.get("layer_types")
    if kinds is None:
        every = count(config, "sliding_window_pattern") if every is None else every
        kinds = ["full_attention" if (number + 1) % every == 0 else "sliding_attention" for number in range(blocks)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != blocks or any(kind not in known for kind in kinds):
        refuse("layer_types", kinds, f"one of {known} for each of {blocks} blocks")
    return tuple(count(config, "sliding_window") if kind == "sliding_attention" else None for kind in kinds)


def _same_window(files: ModelFiles) -> tuple[int | None, ...]:
    """Of each block, from one number or null."""
    window = None if files.config.get("sliding_window") is None else count(files.config, "sliding_window")
    return (window,) * files.n_blocks


def _kv_heads(config: dict[str, Any], heads: int) -> int:
    value = count(config, "num_key_value_heads")
    if heads % value:
        refuse("num_key_value_heads", value, f"a divisor of num_attention_heads = {heads}")
    return value


def _activation(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        refuse(key, value, f"one of {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]
