"""Models and SAEs in which the right answer is known, because it was put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.tiny import tiny_model
from torch import Tensor

from sae_verify.discover import Subject
from sae_verify.model import Model, load_model
from sae_verify.sae import ReLUSAE, Source

D = 8
f64 = torch.float64


def model(directory: Path, family: str = "llama", *, layers: int = 2, dtype: torch.dtype = f64) -> Model:
    """A random tiny model of token ids, in float64 so that differences can be compared exactly."""
    path = tiny_model(directory / f"{family}-{layers}-{dtype}", family, layers=layers, dtype=dtype, tied=False)
    return load_model(path, dtype=dtype)


def silence(subject: Model, *, except_head: tuple[int, int] | None = None, keep_mlp: bool = False) -> None:
    """Make attention and feed-forward network write nothing, but for one head of one layer (and the networks)."""
    for layer, block in enumerate(subject.adapter.blocks(subject.module)):
        gpt2 = subject.family == "gpt2"
        projection, down = (
            (block.attn.c_proj, block.mlp.c_proj) if gpt2 else (block.self_attn.o_proj, block.mlp.down_proj)
        )
        with torch.no_grad():
            kept = torch.zeros_like(projection.weight)
            if except_head is not None and layer == except_head[0]:
                width = D // 2
                part = slice(except_head[1] * width, (except_head[1] + 1) * width)
                place = (part, slice(None)) if gpt2 else (slice(None), part)
                kept[place] = projection.weight[place]
            projection.weight.copy_(kept)
            if gpt2:
                projection.bias.zero_()
            if not keep_mlp:
                down.weight.zero_()
                if gpt2:
                    down.bias.zero_()


def sae(hook: str, rows: Tensor | None = None, *, bias: float = 0.0, gain: float = 1.0) -> ReLUSAE:
    """Features +-u_i along orthonormal rows u_i (the axes, unless given): exact but for `gain` and `bias`."""
    axes = torch.eye(D, dtype=f64) if rows is None else rows.to(f64)
    both = torch.cat([axes, -axes])  # (2 n, D)
    return ReLUSAE(
        W_enc=gain * both.T,
        W_dec=both,
        b_dec=torch.zeros(D, dtype=f64),
        b_enc=torch.full((len(both),), bias, dtype=f64),
        subtract_b_dec=True,
        source=Source(hook_name=hook),
    )


def set_embedding(subject: Model, token: int, vector: Tensor) -> None:
    """Give a token its embedding."""
    with torch.no_grad():
        embedding: Any = subject.module.get_input_embeddings()  # type: ignore[operator]
        embedding.weight[token] = vector


def subject(directory: Path, family: str = "llama", hook: str = "blocks.0.hook_resid_post", **kwargs: Any) -> Subject:
    """A random model with the exact SAE of the axes."""
    return Subject(model(directory, family, **kwargs), sae(hook))
