"""Earlier positions of further architectures: torch, in float64 with exact rotary tables, lies in the balls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model.tiny_models import save
from torch import Tensor, nn

from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.model import read_model
from sae_verify.checker.tail.config import Settings
from sae_verify.checker.tail.context import contexts
from sae_verify.checker.tail.rotary import Rotary, tables
from sae_verify.checker.tail.weights import load_blocks
from sae_verify.model import HookPoint, encode_prompts, load_model, make_tail
from sae_verify.model.block import Block

PROMPT = [7, 3, 11, 19, 4, 4, 17, 9, 2, 13, 6]
"""Longer than the sliding windows of four."""
NAMES = ["mistral", "mistral-full", "qwen2", "phi3", "phi3-half", "llama-rope3", "llama-linear", "llama-yarn"]
NAMES += ["qwen3", "gemma3_text", "gpt_neox"]
PAIRED = {(8, 4): [0, 1, 4, 5, 2, 3, 6, 7], (8, 2): [0, 2, 3, 4, 1, 5, 6, 7]}


class ExactRotary(nn.Module):
    """The tables in float64; models compute theirs in float32. (That they are the right ones is for test_rotary.)"""

    def __init__(self, bases: dict[str | None, float | Rotary], gain: float, d_head: int) -> None:
        super().__init__()
        self.bases, self.gain, self.d_head = bases, gain, d_head
        self.half = (base.width if isinstance(base := bases[None], Rotary) else d_head) // 2

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, ...]:
        shown = tables(self.bases[layer_type], self.d_head, position_ids[0].tolist())
        halves = [torch.from_numpy(self.gain * ball.mid[:, : self.half]) for ball in shown]
        return tuple(torch.cat([half, half], -1)[None] for half in halves)


@pytest.mark.parametrize("name", [*NAMES, "gpt_neox-serial"])
def test_torch_lies_inside(name: str, tmp_path: Path) -> None:
    directory = save(name, tmp_path / "model")
    settings = Settings.read(read_model(directory))
    base, gain = settings.rotary[0], settings.rotary_gains[0]
    assert base is not None
    model = load_model(directory, dtype=torch.float64)
    module: Any = model.module
    body = module.gpt_neox if "neox" in name else module.model
    kinds = getattr(model.module.config, "layer_types", None) or []
    bases: dict[str | None, Any] = dict(zip(kinds, settings.rotary, strict=False))
    body.rotary_emb = ExactRotary({None: base, **bases}, gain, settings.d_head)
    tail, shown = make_tail(model, encode_prompts(model, [PROMPT]), HookPoint(0, "hook_resid_pre"))
    residuals = shown.edited[0, :-1].double().numpy()
    blocks = load_blocks(directory, 0)
    found = contexts(blocks, Ball.exact(residuals), len(PROMPT))
    for stored, read, context in zip(tail.blocks, blocks, found, strict=True):
        assert isinstance(stored, Block)
        seen = stored.attention.visible[0]
        width = base.width if isinstance(base, Rotary) else settings.d_head
        order = PAIRED.get((settings.d_head, width), list(range(settings.d_head)))
        keys = stored.attention.keys[0][:, seen].numpy()[..., order] / gain
        for expected, ball in ((keys, context.keys), (stored.attention.values[0][:, seen].numpy(), context.values)):
            assert expected.shape == ball.mid.shape
            assert (np.abs(expected - ball.mid) <= ball.rad + 1e-14).all()
        assert read.attention.window == stored.attention.weights.window
    for context, limit in zip(found, (1e-12, 1e-6), strict=False):  # balls grow from block to block
        assert max(context.keys.rad.max(), context.values.rad.max()) < limit
    if name in ("mistral", "phi3"):
        assert [context.keys.mid.shape[1] for context in found] == [3, 3, 3]
