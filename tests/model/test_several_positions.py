"""The tail over several perturbed positions equals the real model edited at all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny_models
import torch

from sae_verify.errors import ShapeError
from sae_verify.model import HookPoint, Model, Tail, encode_prompts, make_tail, run
from sae_verify.model.hook_point import SITES

Load = Callable[..., Model]
RAGGED = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5, 8, 2], [9, 8, 7, 60], [1, 2, 3, 4, 5, 6, 7]]
VARIANTS = [name for name in tiny_models.CONFIGS if name not in tiny_models.FAMILIES]
NAMES = [*tiny_models.FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
EXACT = 1e-12


def clamp(resid: torch.Tensor) -> torch.Tensor:
    return 1.1 * resid + 0.1


def pushed(tail: Tail, scale: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(tail.base.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return tail.base + scale * noise


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positions", [2, 3])
def test_it_is_the_model_at_every_hook(name: str, positions: int, load: Load) -> None:
    """Prompts as short as the perturbed part, longer than a sliding window, and of different lengths."""
    model = load(name)
    prompts = encode_prompts(model, RAGGED)
    parallel = getattr(model.config, "use_parallel_residual", False)
    for site in SITES:
        if parallel and site == "hook_resid_mid":
            continue
        tail, edited = make_tail(model, prompts, HookPoint(1, site), clamp, positions)
        assert tail.agreement is not None
        assert tail.agreement.worst < EXACT
        assert tail.base.shape == (len(RAGGED), positions * model.d_model)
        torch.testing.assert_close(tail(tail.base), edited.logits, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "qwen3", "gpt_neox"])
def test_the_gradient_is_autograd_through_the_real_model(name: str, load: Load) -> None:
    model, hook = load(name), HookPoint(1, "hook_resid_pre")
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, hook, clamp, 3)
    readout = torch.randn(len(prompts), model.d_vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = pushed(tail, 0.1).requires_grad_()
    (ours,) = torch.autograd.grad((tail(moved) * readout).sum(), moved)
    leaf = moved.detach().clone().requires_grad_()
    places = torch.arange(len(prompts))[:, None], prompts.ends(3)
    states = edited.edited.detach()
    logits = run(model, prompts, hook, lambda _: states.index_put(places, leaf.unflatten(1, (3, -1)))).logits
    (real,) = torch.autograd.grad((logits * readout).sum(), leaf)
    assert real[:, : 2 * model.d_model].abs().max() > 1e-3  # earlier positions do matter
    torch.testing.assert_close(ours, real, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_the_last_position_alone_is_the_ordinary_tail(name: str, load: Load) -> None:
    """Nothing at the earlier positions: what one position gives, to rounding; and variants and selections agree."""
    model, hook = load(name), HookPoint(1, "hook_resid_post")
    prompts = encode_prompts(model, RAGGED)
    one, _ = make_tail(model, prompts, hook, clamp)
    three, _ = make_tail(model, prompts, hook, clamp, 3)
    d = model.d_model
    torch.testing.assert_close(three.base[:, 2 * d :], one.base, rtol=0, atol=0)
    last = pushed(one, 0.3)
    resid = torch.cat([three.base[:, : 2 * d], last], 1)
    torch.testing.assert_close(three(resid), one(last), rtol=0, atol=EXACT)
    variants = torch.stack([resid, pushed(three, 1.0)], 1)  # (B, 2, 3 d)
    torch.testing.assert_close(three(variants)[:, 1], three(variants[:, 1]), rtol=0, atol=EXACT)
    torch.testing.assert_close(three.select([2, 0])(resid[[2, 0]]), three(resid)[[2, 0]], rtol=0, atol=EXACT)
    rows = three.unembed[:4].expand(len(prompts), -1, -1)
    values, gradients = three.value_and_grad(resid, rows)
    torch.testing.assert_close(values, three.hidden(resid) @ three.unembed[:4].T, rtol=0, atol=EXACT)
    assert gradients.shape == (len(prompts), 4, 3 * d)


def test_no_block_after_the_hook(load: Load) -> None:
    """The readout then sees the last position alone."""
    model = load("llama")
    tail, _ = make_tail(model, encode_prompts(model, RAGGED), HookPoint(model.n_layers - 1, "hook_resid_post"), None, 2)
    other = tail.base.clone()
    other[:, : model.d_model] += 1.0
    assert torch.equal(tail(other), tail(tail.base))
    with pytest.raises(ShapeError, match="residual"):
        tail(tail.base[:, model.d_model :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_runs_agree_within_their_rounding(dtype: torch.dtype, load: Load) -> None:
    model = load("gemma2", dtype)
    tail, _ = make_tail(model, encode_prompts(model, RAGGED), HookPoint(0, "hook_resid_pre"), clamp, 3)
    assert tail.agreement is not None
    assert bool((tail.agreement.difference <= tail.agreement.tolerance).all())
