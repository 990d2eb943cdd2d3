"""Scaled and partial rotary positions: against high precision, and against the tables of Hugging Face."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model.tiny_models import LLAMA3_ROPE
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from sae_verify.checker import Rejected
from sae_verify.checker.tail.positions import rotary
from sae_verify.checker.tail.rotary import MAX_POSITION, Rotary, tables

KINDS = {
    "plain": Rotary(1e4, 8),
    "partial": Rotary(1e4, 4),
    "linear": Rotary(1e4, 8, "linear", 2.5),
    "llama3": Rotary(5e5, 8, "llama3", 8.0, 1.0, 4.0, 64.0),
    "yarn": Rotary(1e4, 8, "yarn", 4.0, 0.0, 2.5),
}


def frequency(r: Rotary, index: int) -> Any:
    """By the published formulas, in the precision of mpmath."""
    if index >= r.width // 2:
        return mpmath.mpf(0)
    plain = mpmath.mpf(r.base) ** (-mpmath.mpf(2 * index) / r.width)
    if r.kind == "plain":
        return plain
    if r.kind == "linear":
        return plain / r.factor
    if r.kind == "llama3":
        length = 2 * mpmath.pi / plain
        if length < mpmath.mpf(r.trained) / r.high:
            return plain
        if length > mpmath.mpf(r.trained) / r.low:
            return plain / r.factor
        smooth = (r.trained / length - r.low) / (mpmath.mpf(r.high) - r.low)
        return (1 - smooth) * plain / r.factor + smooth * plain
    ramp = min(max((mpmath.mpf(index) - r.low) / (mpmath.mpf(r.high) - r.low), 0), 1)
    return plain / r.factor * ramp + plain * (1 - ramp)


@pytest.mark.parametrize("kind", KINDS)
@given(positions=st.lists(st.one_of(st.integers(0, 40), st.integers(0, MAX_POSITION - 1)), min_size=1, max_size=2))
def test_tables_enclose_the_formulas(kind: str, positions: list[int]) -> None:
    cos, sin = tables(KINDS[kind], 8, positions)
    assert max(cos.rad.max(), sin.rad.max()) < 2e-16
    with mpmath.workdps(60):
        for row, position in enumerate(positions):
            for entry in range(8):
                angle = position * frequency(KINDS[kind], entry % 4)
                for ball, exact in ((cos, mpmath.cos(angle)), (sin, mpmath.sin(angle))):
                    assert abs(mpmath.mpf(float(ball.mid[row, entry])) - exact) <= ball.rad[row, entry]


COMMON: dict[str, Any] = {"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 4096}
SETTINGS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0},
    LLAMA3_ROPE,
    {**LLAMA3_ROPE, "rope_theta": 5e5, "original_max_position_embeddings": 8192, "factor": 32.0},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024},
    {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 24, "beta_slow": 2, "truncate": False},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "attention_factor": 0.75},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_read_as_hugging_face_reads_them(settings: dict[str, Any]) -> None:
    config = LlamaConfig(**COMMON, rope_parameters=dict(settings))
    same_tables(LlamaRotaryEmbedding(config), {**COMMON, "rope_parameters": settings})


@pytest.mark.parametrize("part", [1.0, 0.5, 0.75])
def test_parts_of_a_head(part: float) -> None:
    settings = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": part}
    config = Phi3Config(**COMMON, pad_token_id=0, rope_parameters=dict(settings))
    same_tables(Phi3RotaryEmbedding(config), {**COMMON, "rope_parameters": settings}, partial=True)


def same_tables(module: Any, config: dict[str, Any], *, partial: bool = False) -> None:
    base, gain = rotary(config, 64, partial=partial)
    cos, sin = module(torch.zeros(1, 41, 1), torch.arange(41)[None])
    half = cos.shape[-1] // 2
    mine = tables(base, 64, range(41))
    for ball, theirs in zip(mine, (cos, sin), strict=True):
        np.testing.assert_allclose(gain * ball.mid[:, :half], theirs[0, :, :half].numpy(), rtol=0, atol=2e-5)
    assert (mine[0].mid[:, half:32] == 1.0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        Rotary(1e4, 7),
        Rotary(1e4, 10),
        Rotary(1e4, 0),
        Rotary(0.5, 8),
        Rotary(1e4, 8, "linear", 0.5),
        Rotary(1e4, 8, "llama3", 8.0, 4.0, 1.0, 64.0),
        Rotary(1e4, 8, "yarn", 8.0, 2.0, 2.0),
        Rotary(1e4, 8, "dynamic", 8.0),
    ],
)
def test_tables_that_do_not_exist(wrong: Rotary) -> None:
    with pytest.raises(Rejected, match="no rotary table"):
        tables(wrong, 8, [0])
