"""The blocks after a hook in float64, from a Hugging Face directory: for tests alone, every position run anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn.functional import gelu, silu


@dataclass(frozen=True, eq=False)
class OracleTail:
    """The model's blocks; every position is run, so nothing about keys and values is taken for granted."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def final(self, resid: Tensor, first: int) -> Tensor:
        """The last position's residual after the blocks from `first` on, (d,), for residuals (T, d) before them."""
        step = self._gpt2 if self.config["model_type"] == "gpt2" else self._llama
        for layer in range(first, int(self.config.get("n_layer") or self.config["num_hidden_layers"])):
            resid = step(resid, layer)
        return resid[-1]

    def _gpt2(self, resid: Tensor, layer: int) -> Tensor:
        t, at = self.tensors, f"h.{layer}."

        def norm(v: Tensor, name: str) -> Tensor:
            v = v - v.mean(-1, keepdim=True)
            v = v / (v.square().mean(-1, keepdim=True) + self.config["layer_norm_epsilon"]).sqrt()
            return v * t[f"{at}{name}.weight"] + t[f"{at}{name}.bias"]

        def linear(v: Tensor, name: str) -> Tensor:
            return v @ t[f"{at}{name}.weight"] + t[f"{at}{name}.bias"]

        heads = self.config["n_head"]
        width = resid.shape[1] // heads
        q, k, v = (
            part.reshape(-1, heads, width).transpose(0, 1)
            for part in linear(norm(resid, "ln_1"), "attn.c_attn").chunk(3, -1)
        )
        mixed = _attend(q @ k.transpose(1, 2) / width**0.5, v, None)
        resid = resid + linear(mixed, "attn.c_proj")
        return resid + linear(gelu(linear(norm(resid, "ln_2"), "mlp.c_fc"), approximate="tanh"), "mlp.c_proj")

    def _llama(self, resid: Tensor, layer: int) -> Tensor:
        t, at, config = self.tensors, f"layers.{layer}.", self.config
        gemma = config["model_type"] == "gemma2"

        def norm(v: Tensor, name: str) -> Tensor:
            v = v / (v.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt()
            return v * (t[f"{at}{name}.weight"] + (1.0 if gemma else 0.0))

        def linear(v: Tensor, name: str) -> Tensor:
            return v @ t[f"{at}{name}.weight"].T

        heads, groups, width = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
        y = norm(resid, "input_layernorm")
        q, k, v = (
            linear(y, f"self_attn.{name}_proj").reshape(-1, n, width).transpose(0, 1)
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = (_rotated(part, _base(config)) for part in (q, k))
        k, v = (part.repeat_interleave(heads // groups, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) / (config["query_pre_attn_scalar"] if gemma else width) ** 0.5
        window = None
        if gemma:
            cap = config["attn_logit_softcapping"]
            scores = scores if cap is None else cap * (scores / cap).tanh()
            window = config["sliding_window"] if config["layer_types"][layer] == "sliding_attention" else None
        change = linear(_attend(scores, v, window), "self_attn.o_proj")
        resid = resid + (norm(change, "post_attention_layernorm") if gemma else change)
        y = norm(resid, "pre_feedforward_layernorm" if gemma else "post_attention_layernorm")
        gate = linear(y, "mlp.gate_proj")
        gate = gelu(gate, approximate="tanh") if gemma else silu(gate)
        change = linear(gate * linear(y, "mlp.up_proj"), "mlp.down_proj")
        return resid + (norm(change, "post_feedforward_layernorm") if gemma else change)


def _base(config: dict[str, Any]) -> float:
    return float((config.get("rope_parameters") or config).get("rope_theta", 10000.0))


def _rotated(v: Tensor, base: float) -> Tensor:
    """Rotary positions of (heads, T, width)."""
    count, half = v.shape[1], v.shape[2] // 2
    angle = torch.arange(count).double()[:, None] * base ** (-torch.arange(half).double() / half)
    a, b = v[..., :half], v[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def _attend(scores: Tensor, values: Tensor, window: int | None) -> Tensor:
    """(T, heads * width) from scores (heads, T, T)."""
    count = scores.shape[1]
    row, column = torch.arange(count)[:, None], torch.arange(count)[None]
    hidden = (column > row) | (column <= row - (window or count))
    mixed = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    return mixed.transpose(0, 1).reshape(count, -1)


@lru_cache(maxsize=64)
def oracle_tail(directory: Path) -> OracleTail:
    """Read a directory."""
    config = json.loads((directory / "config.json").read_text())
    tensors = {
        name.removeprefix("transformer.").removeprefix("model."): torch.from_numpy(t.astype(np.float64))
        for name, t in load_file(directory / "model.safetensors").items()
    }
    return OracleTail(config, tensors)
