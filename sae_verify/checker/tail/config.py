"""What config.json says of the blocks, strictly: an option that changes the algebra is read or refused.

Keys that may be missing are those that Hugging Face's own exports leave out, with the defaults of their families.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import Rejected
from ..model import ModelFiles

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
_ROTARY_BASE = 10000.0
"""Of Llama and Gemma-2 where config.json gives none."""
_ROTARY_KEYS = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})


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
        attention_bias: the four projections have a bias.
        mlp_bias: the maps of the feed-forward network have a bias.
        softcap: of the scores, or None.
        windows: of each block; None where it sees everything.
        rotary_base: None for no rotation.

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
    mlp_bias: bool
    softcap: float | None
    windows: tuple[int | None, ...]
    rotary_base: float | None

    @classmethod
    def read(cls, files: ModelFiles) -> Settings:
        """Read and check them."""
        families: dict[str, Callable[[ModelFiles], Settings]] = {"gpt2": _gpt2, "llama": _llama, "gemma2": _gemma2}
        return families[files.config["model_type"]](files)


def _gpt2(files: ModelFiles) -> Settings:
    config = files.config
    for key, other in _SYNONYMS.items():
        if other in config and config[other] != config.get(key):
            _refuse(other, config[other], f"the same as {key}")
    _only(config, "add_cross_attention", False)
    _only(config, "pruned_heads", None, {})
    d, heads = _count(config, "n_embd"), _count(config, "n_head")
    if d % heads:
        _refuse("n_head", heads, f"a divisor of n_embd = {d}")
    return Settings(
        family="gpt2",
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=d // heads,
        epsilon=files.epsilon,
        activation=_activation(config, "activation_function"),
        scale_square=float(d // heads) if _flag(config, "scale_attn_weights", True) else None,
        scale_by_layer=_flag(config, "scale_attn_by_inverse_layer_idx", False),
        attention_bias=True,
        mlp_bias=True,
        softcap=None,
        windows=(None,) * files.n_blocks,
        rotary_base=None,
    )


def _llama(files: ModelFiles) -> Settings:
    config = files.config
    _only(config, "pretraining_tp", None, 1)
    d, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    if config.get("head_dim") is None and d % heads:
        _refuse("num_attention_heads", heads, f"a divisor of hidden_size = {d}")
    d_head = d // heads if config.get("head_dim") is None else _count(config, "head_dim")
    return Settings(
        family="llama",
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads if config.get("num_key_value_heads") is None else _kv_heads(config, heads),
        d_head=d_head,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_act"),
        scale_square=float(d_head),
        scale_by_layer=False,
        attention_bias=_flag(config, "attention_bias", False),
        mlp_bias=_flag(config, "mlp_bias", False),
        softcap=None,
        windows=(None,) * files.n_blocks,
        rotary_base=_rotary(config, d_head),
    )


def _gemma2(files: ModelFiles) -> Settings:
    config = files.config
    _only(config, "use_bidirectional_attention", None, False)
    heads, d_head = _count(config, "num_attention_heads"), _count(config, "head_dim")
    if "attn_logit_softcapping" not in config:
        _refuse("attn_logit_softcapping", None, "there, if only as null")
    capped = config["attn_logit_softcapping"] is not None
    return Settings(
        family="gemma2",
        d_model=_count(config, "hidden_size"),
        n_heads=heads,
        n_kv_heads=_kv_heads(config, heads),
        d_head=d_head,
        epsilon=files.epsilon,
        activation=_activation(config, "hidden_activation"),
        scale_square=_positive(config, "query_pre_attn_scalar"),
        scale_by_layer=False,
        attention_bias=_flag(config, "attention_bias", False),
        mlp_bias=False,
        softcap=_positive(config, "attn_logit_softcapping") if capped else None,
        windows=_windows(config, files.n_blocks),
        rotary_base=_rotary(config, d_head),
    )


def _windows(config: dict[str, Any], blocks: int) -> tuple[int | None, ...]:
    """Of each block; without `layer_types` they alternate, the first being short."""
    kinds = config.get("layer_types")
    if kinds is None:
        kinds = [("sliding_attention", "full_attention")[number % 2] for number in range(blocks)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != blocks or any(kind not in known for kind in kinds):
        _refuse("layer_types", kinds, f"one of {known} for each of {blocks} blocks")
    return tuple(_count(config, "sliding_window") if kind == "sliding_attention" else None for kind in kinds)


def _rotary(config: dict[str, Any], d_head: int) -> float:
    """The base of the plain rotary positions; every place that names one must name the same."""
    if d_head % 2:
        _refuse("head_dim", d_head, "even, for its halves are rotated against each other")
    bases = [_positive(config, "rope_theta")] if config.get("rope_theta") is not None else []
    _only(config, "partial_rotary_factor", None, 1.0)
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict) or not rope.keys() <= _ROTARY_KEYS:
            _refuse(key, rope, f"null or hold at most {sorted(_ROTARY_KEYS)}")
        for name in ("rope_type", "type"):
            _only(rope, name, None, "default")
        _only(rope, "partial_rotary_factor", None, 1.0)
        if rope.get("rope_theta") is not None:
            bases.append(_positive(rope, "rope_theta"))
    if len(set(bases)) > 1:
        _refuse("rope_theta", bases, "one number wherever it is given")
    base = bases[0] if bases else _ROTARY_BASE
    if base < 1.0:
        _refuse("rope_theta", base, "at least 1")
    return base


def _refuse(key: str, value: object, rule: str) -> NoReturn:
    raise Rejected(f"config.json has {key} = {str(value)[:80]}, and it must be {rule}")


def _only(config: dict[str, Any], key: str, *allowed: object) -> None:
    """Refuse a key that is there with another value; an absent key counts as null where that is allowed."""
    if key in config and not any(type(config[key]) is type(v) and config[key] == v for v in allowed):
        _refuse(key, config[key], " or ".join(map(repr, allowed)))


def _count(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= 2**30:
        _refuse(key, value, "a positive whole number")
    return value


def _kv_heads(config: dict[str, Any], heads: int) -> int:
    value = _count(config, "num_key_value_heads")
    if heads % value:
        _refuse("num_key_value_heads", value, f"a divisor of num_attention_heads = {heads}")
    return value


def _flag(config: dict[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        _refuse(key, value, "true or false")
    return value


def _positive(config: dict[str, Any], key: str) -> float:
    value = config.get(key)
    # The float of an integer beyond 2^53 may be another number.
    whole = type(value) is int and 0 < value <= 2**53
    if not whole and not (isinstance(value, float) and math.isfinite(value) and value > 0):
        _refuse(key, value, "a positive number")
    assert value is not None  # by the above
    return float(value)


def _activation(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        _refuse(key, value, f"one of {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]
