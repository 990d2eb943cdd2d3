"""Padding and batching change nothing, and the logits are those before the final soft-cap."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sae_verify.model import HookPoint, Model, encode_prompts, make_tail

EXACT = 1e-12
"""Far above float64 rounding of logits of size 3, far below anything float32 would leave."""

RAGGED = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5], [9, 8, 7], [60, 3], [1, 2, 3, 4, 5, 6, 7]]


def clamp(resid: Tensor) -> Tensor:
    """Change every position, as a clamp does."""
    return resid + 0.1 * resid.roll(1, -1)


@pytest.mark.parametrize("name", ["gpt2", "llama-bias", "gemma2"])
def test_a_padded_batch_equals_one_by_one(name: str, load: Callable[..., Model]) -> None:
    model, hook = load(name), HookPoint(0, "hook_resid_post")
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, hook, clamp)
    resid = tail.base[:, None] + torch.randn(5, 4, model.d_model, generator=torch.Generator().manual_seed(3)).double()
    together = tail(resid)  # (B, 4, V)
    for index, prompt in enumerate(RAGGED):
        tail_alone, run_alone = make_tail(model, encode_prompts(model, [prompt]), hook, clamp)
        torch.testing.assert_close(run_alone.logits, edited.logits[[index]], rtol=0, atol=EXACT)
        torch.testing.assert_close(tail_alone.base, tail.base[[index]], rtol=0, atol=EXACT)
        torch.testing.assert_close(tail_alone(resid[[index]]), together[[index]], rtol=0, atol=EXACT)


def test_the_last_hook_leaves_only_norm_and_unembedding(load: Callable[..., Model]) -> None:
    model = load("gemma2")
    tail, edited = make_tail(model, encode_prompts(model, RAGGED), HookPoint(3, "hook_resid_post"))
    assert tail.blocks == ()
    assert edited.block_inputs == ()
    by_hand = tail.final_norm(tail.base) @ tail.unembed.T
    torch.testing.assert_close(by_hand, edited.logits, rtol=0, atol=EXACT)
    assert float(edited.logits.abs().max()) > model.config.final_logit_softcapping


def test_what_the_run_shows_is_what_the_tail_starts_from(load: Callable[..., Model]) -> None:
    model, hook = load("llama", torch.float32), HookPoint(1, "hook_resid_pre")
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, hook, clamp)
    assert torch.equal(edited.edited, clamp(edited.resid))
    assert torch.equal(tail.base, edited.edited[torch.arange(5), prompts.last].double())
