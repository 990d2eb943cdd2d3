"""The tail equals the real model: values, gradients, batches, and what check_tail catches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor

from sae_verify.errors import ShapeError, TailMismatchError
from sae_verify.model import (
    Block,
    HookPoint,
    Model,
    Prompts,
    Run,
    Tail,
    check_tail,
    encode_prompts,
    make_tail,
    run,
)
from sae_verify.model.agreement import ROUNDING
from sae_verify.model.hook_point import SITES
from sae_verify.model.operations import Attention
from sae_verify.model.operations.attention import AttentionWeights

Load = Callable[..., Model]
RAGGED = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5], [9, 8, 7], [60, 3], [1, 2, 3, 4, 5, 6, 7]]
FAMILIES = tiny_models.FAMILIES
VARIANTS = [name for name in tiny_models.CONFIGS if name not in FAMILIES]
NAMES = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
FIRST = ["gpt2", "llama", "gemma2", "gpt_neox"]
MIDDLE = HookPoint(1, "hook_resid_pre")
EXACT = 1e-12
"""Far above float64 rounding of logits of size 3, far below anything float32 would leave."""


def every_hook(model: Model) -> list[HookPoint]:
    """Of the first and the last block."""
    parallel = getattr(model.config, "use_parallel_residual", False)
    sites = [site for site in SITES if not (parallel and site == "hook_resid_mid")]
    return [HookPoint(layer, site) for layer in (0, model.n_layers - 1) for site in sites]


def clamp(resid: Tensor) -> Tensor:
    """Change every position, as a clamp does."""
    return 1.1 * resid + 0.1


def replace_last(states: Tensor, prompts: Prompts, last: Tensor) -> Any:
    """An edit: the residuals (B, T, d), with (B, d) at the last positions."""

    def edit(_resid: Tensor) -> Tensor:
        rows = torch.arange(len(prompts))
        return states.detach().index_put((rows, prompts.last), last.to(states.dtype))

    return edit


@pytest.mark.parametrize("name", NAMES)
def test_tail_is_the_model_at_every_hook(name: str, load: Load) -> None:
    model = load(name)
    prompts = encode_prompts(model, RAGGED)
    for hook in every_hook(model)[:: 1 if name in FAMILIES else 3]:
        tail, edited = make_tail(model, prompts, hook, clamp)
        assert tail.agreement is not None
        assert tail.agreement.worst < EXACT
        assert len(tail.blocks) == model.n_layers - hook.first_block
        torch.testing.assert_close(tail(tail.base), edited.logits, rtol=0, atol=EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*FAMILIES, "gpt2-erf-scaled", "llama-bias"])
def test_narrow_runs_agree_within_their_rounding(name: str, dtype: torch.dtype, load: Load) -> None:
    model = load(name, dtype)
    for hook in (HookPoint(0, "hook_resid_pre"), HookPoint(model.n_layers - 1, "hook_resid_post")):
        tail, _ = make_tail(model, encode_prompts(model, RAGGED), hook, clamp)
        assert tail.base.dtype == tail.unembed.dtype == torch.float64
        assert tail.agreement is not None
        assert bool((tail.agreement.difference <= tail.agreement.tolerance).all())
        assert tail.agreement.worst < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_of_length_one_prompts(name: str, load: Load) -> None:
    model = load(name)
    tail, _ = make_tail(model, encode_prompts(model, [[4], [7]]), MIDDLE, clamp)
    assert tail.agreement is not None
    assert tail.agreement.worst < EXACT


@pytest.mark.parametrize(
    "name", ["gpt2-erf-scaled", "llama-rope3", "gemma2", "gemma3_text", "phi3-partial", "gpt_neox"]
)
def test_gradient_is_autograd_through_the_real_model(name: str, load: Load) -> None:
    model = load(name)
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, MIDDLE, clamp)
    readout = torch.randn(len(prompts), model.d_vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    through_tail = (tail.base + 0.1).requires_grad_()
    (expected,) = torch.autograd.grad((tail(through_tail) * readout).sum(), through_tail)
    last = (tail.base + 0.1).requires_grad_()
    logits = run(model, prompts, MIDDLE, replace_last(edited.edited, prompts, last)).logits
    (actual,) = torch.autograd.grad((logits * readout).sum(), last)
    assert actual.abs().max() > 0.01
    torch.testing.assert_close(actual, expected, rtol=0, atol=EXACT)

    rows = (readout @ tail.unembed)[:, None]  # (B, 1, d)
    values, gradients = tail.value_and_grad(through_tail.detach(), rows)
    torch.testing.assert_close(gradients[:, 0], expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(values[:, 0], (tail(through_tail.detach()) * readout).sum(-1), rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_pass_gradcheck(name: str, load: Load) -> None:
    model = load(name)
    tail, _ = make_tail(model, encode_prompts(model, [[1, 2, 3, 4, 5, 6], [5]]), HookPoint(2, "hook_resid_pre"))
    row = tail.unembed[3] - tail.unembed[4]
    assert torch.autograd.gradcheck(lambda x: tail.hidden(x) @ row, tail.base.clone().requires_grad_())


@pytest.mark.parametrize("name", FAMILIES)
def test_variants_select_and_value_and_grad(name: str, load: Load) -> None:
    model = load(name)
    tail, _ = make_tail(model, encode_prompts(model, RAGGED), MIDDLE, clamp)
    generator = torch.Generator().manual_seed(2)
    resid = tail.base[:, None, None] + torch.randn(5, 2, 3, 32, dtype=torch.float64, generator=generator)
    together = tail(resid)  # (B, 2, 3, V)
    assert together.shape == (5, 2, 3, model.d_vocab)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[:, i, j], tail(resid[:, i, j]), rtol=0, atol=EXACT)
    for chosen in ([3], [4, 0], torch.tensor([2, 2, 1])):
        few = tail.select(chosen)
        index = torch.as_tensor(chosen)
        assert few.unembed is tail.unembed
        assert few.agreement is not None
        assert few.agreement.difference.shape == (4, len(index))
        torch.testing.assert_close(few.base, tail.base[index])
        torch.testing.assert_close(few(resid[index]), together[index], rtol=0, atol=EXACT)
    rows = torch.randn(5, 4, 32, dtype=torch.float64, generator=generator)
    values, gradients = tail.value_and_grad(resid, rows)
    assert values.shape == (5, 2, 3, 4)
    assert gradients.shape == (5, 2, 3, 4, 32)
    leaf = resid.clone().requires_grad_()
    (one,) = torch.autograd.grad((tail.hidden(leaf) * rows[:, None, None, 2]).sum(), leaf)
    torch.testing.assert_close(gradients[..., 2, :], one, rtol=0, atol=EXACT)


def test_tail_refuses_other_shapes(load: Load) -> None:
    model = load("gpt2")
    tail, _ = make_tail(model, encode_prompts(model, [[1, 2], [3]]), MIDDLE)
    for bad in (torch.zeros(32), torch.zeros(3, 32), torch.zeros(2, 31), torch.zeros(1, 2, 32)):
        with pytest.raises(ShapeError):
            tail(bad)


def test_tail_holds_the_stored_weights_widened(load: Load) -> None:
    narrow, wide = load("llama", torch.bfloat16), load("llama", torch.float64)
    tail, _ = make_tail(narrow, encode_prompts(narrow, RAGGED), MIDDLE)
    stored: Any = wide.module
    assert torch.equal(tail.unembed, stored.lm_head.weight.to(torch.bfloat16).to(torch.float64))


def corrupt_block(tail: Tail, index: int, **changes: Any) -> Tail:
    blocks = list(tail.blocks)
    blocks[index] = dataclasses.replace(blocks[index], **changes)
    return dataclasses.replace(tail, blocks=tuple(blocks))


def wrong_epsilon(tail: Tail) -> Tail:
    norm = tail.final_norm
    return dataclasses.replace(tail, final_norm=dataclasses.replace(norm, epsilon=1.01 * norm.epsilon))


def wrong_gain(tail: Tail) -> Tail:
    gain = tail.final_norm.gain.clone()
    gain[3] += 1e-9
    return dataclasses.replace(tail, final_norm=dataclasses.replace(tail.final_norm, gain=gain))


def wrong_scale(tail: Tail) -> Tail:
    return _with_weights(tail, lambda w: dataclasses.replace(w, scale=w.scale * (1 + 1e-8)))


def wrong_softcap(tail: Tail) -> Tail:
    return _with_weights(tail, lambda w: dataclasses.replace(w, softcap=3.0 + 1e-7))


def wrong_bias(tail: Tail) -> Tail:
    mlp = tail.blocks[0].mlp
    shift = torch.full((mlp.down.weight.shape[0],), 1e-9, dtype=torch.float64)
    shift[0] = -1e-9
    bias = shift if mlp.down.bias is None else mlp.down.bias + shift
    return corrupt_block(tail, 0, mlp=dataclasses.replace(mlp, down=dataclasses.replace(mlp.down, bias=bias)))


def wrong_norm_order(tail: Tail) -> Tail:
    block = tail.blocks[0]
    return corrupt_block(tail, 0, attention_norm=block.mlp_norm, mlp_norm=block.attention_norm)


def missing_block(tail: Tail) -> Tail:
    return dataclasses.replace(tail, blocks=tail.blocks[:-1])


def nan_unembed(tail: Tail) -> Tail:
    return dataclasses.replace(tail, unembed=tail.unembed.clone().index_fill(0, torch.tensor([7]), torch.nan))


def _with_weights(tail: Tail, change: Any) -> Tail:
    block: Block = tail.blocks[0]
    attention = dataclasses.replace(block.attention, weights=change(block.attention.weights))
    return corrupt_block(tail, 0, attention=attention)


COMMON = (wrong_epsilon, wrong_gain, wrong_scale, wrong_bias, wrong_norm_order, missing_block, nan_unembed)
CORRUPTIONS = [
    *((name, corrupt) for name in FIRST for corrupt in COMMON),
    *((name, corrupt) for name in FAMILIES if name not in FIRST for corrupt in (wrong_scale, wrong_norm_order)),
    ("gemma2", wrong_softcap),
]


@pytest.mark.parametrize(("name", "corrupt"), CORRUPTIONS)
def test_check_tail_catches_corruption(name: str, corrupt: Any, load: Load) -> None:
    model = load(name)
    prompts, tail, edited = _checked(model)
    check_tail(tail, model, prompts, MIDDLE, edited)
    with pytest.raises(TailMismatchError, match="tail's logit is"):
        check_tail(corrupt(tail), model, prompts, MIDDLE, edited)


def test_float32_check_catches_coarse_corruption(load: Load) -> None:
    model = load("llama", torch.float32)
    prompts, tail, edited = _checked(model)
    gain = tail.final_norm.gain * (1 + 1e-3)
    with pytest.raises(TailMismatchError):
        check_tail(
            dataclasses.replace(tail, final_norm=dataclasses.replace(tail.final_norm, gain=gain)),
            model,
            prompts,
            MIDDLE,
            edited,
        )


@pytest.mark.parametrize("name", ["llama", "llama-linear", "gemma2", "gemma3_text", "phi3-partial", "gpt_neox"])
def test_check_tail_catches_a_shifted_rotation(name: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotating everything one further changes nothing; rotating only the last position does."""
    genuine = AttentionWeights.at_last

    def shifted(self: AttentionWeights, y: Tensor, lengths: Tensor, cos: Any, sin: Any) -> Attention:
        attention = genuine(self, y, lengths, cos, sin)
        further = lengths[:, None] % len(cos)
        return dataclasses.replace(attention, cos=cos[further], sin=sin[further])

    monkeypatch.setattr(AttentionWeights, "at_last", shifted)
    with pytest.raises(TailMismatchError):
        _checked(load(name))


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "mistral", "qwen2", "qwen3", "phi3"])
@pytest.mark.parametrize("off", [-1, 1])
def test_check_tail_catches_a_window_off_by_one(
    name: str, off: int, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(name)
    genuine = type(model.adapter).window

    def wrong(self: Any, config: Any, layer: int) -> int | None:
        window = genuine(self, config, layer)
        return None if window is None else window + off

    monkeypatch.setattr(type(model.adapter), "window", wrong)
    with pytest.raises(TailMismatchError):
        _checked(model)


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_check_tail_catches_missing_head_norms(name: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(name)
    monkeypatch.setattr(type(model.adapter), "head_norms", lambda *_: (None, None))
    with pytest.raises(TailMismatchError):
        _checked(model)


@pytest.mark.parametrize(("site", "field"), [("hook_mlp_out", "constant"), ("hook_attn_out", "constant")])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_check_tail_catches_another_rest_of_the_block(name: str, site: Any, field: str, load: Load) -> None:
    model, hook = load(name), HookPoint(1, site)
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, hook, clamp)
    wrong = corrupt_block(tail, 0, **{field: getattr(tail.blocks[0], field) + 1e-9 * torch.arange(32)})
    with pytest.raises(TailMismatchError):
        check_tail(wrong, model, prompts, hook, edited)


def _checked(model: Model) -> tuple[Prompts, Tail, Run]:
    prompts = encode_prompts(model, RAGGED)
    tail, edited = make_tail(model, prompts, MIDDLE, clamp)
    return prompts, tail, edited


@pytest.mark.parametrize("name", NAMES)
def test_the_allowed_rounding_is_what_its_docstring_says(name: str, load: Load) -> None:
    """At most 1 was seen on these models; 2 leaves room for other machines."""
    for dtype in (torch.float64, torch.float32):
        model = load(name, dtype)
        for hook in every_hook(model)[::3]:
            tail, _ = make_tail(model, encode_prompts(model, RAGGED), hook, clamp)
            assert tail.agreement is not None
            assert float((tail.agreement.difference / tail.agreement.tolerance).max()) * ROUNDING < 2


def test_the_result_of_make_tail_holds_no_graph(load: Load) -> None:
    model = load("llama")
    delta = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    tail, edited = make_tail(model, encode_prompts(model, RAGGED), MIDDLE, lambda resid: resid + delta)
    assert not tail.base.requires_grad
    assert not edited.logits.requires_grad
    assert not tail(tail.base).requires_grad
