"""One forward pass: what it returns, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import V
from torch import Tensor, nn

from sae_verify.errors import HookPointError, ShapeError
from sae_verify.model import HookPoint, Model, Prompts, encode_prompts, run
from sae_verify.model.full_precision import FullPrecision

NAMES = ["gpt2", "llama", "gemma2"]


def prompts_of(model: Model) -> Prompts:
    return encode_prompts(model, [[4, 5, 6, 7, 8, 9], [3], [9, 2, 1]])


def hook_count(module: nn.Module) -> int:
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._forward_hooks_with_kwargs)
        for part in module.modules()
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_an_edit_it_is_the_model(name: str, load: Callable[..., Model]) -> None:
    model = load(name, torch.float32)
    prompts = prompts_of(model)
    with torch.no_grad():
        plain = model.module(input_ids=prompts.tokens, output_hidden_states=True, use_cache=False)
    logits = plain.logits[torch.arange(3), prompts.last]
    cap = getattr(model.config, "final_logit_softcapping", None)
    for layer in range(model.n_layers):
        seen = run(model, prompts, HookPoint(layer, "hook_resid_pre"), block_inputs=True)
        torch.testing.assert_close(seen.resid, plain.hidden_states[layer], rtol=0, atol=0)
        assert seen.edited is seen.resid
        assert len(seen.block_inputs) == model.n_layers - layer
        torch.testing.assert_close(seen.block_inputs[0], seen.resid, rtol=0, atol=0)
        capped = seen.logits if cap is None else cap * torch.tanh(seen.logits / cap)
        torch.testing.assert_close(capped, logits, rtol=1e-5, atol=1e-5)
    after = run(model, prompts, HookPoint(0, "hook_resid_post"))
    torch.testing.assert_close(after.resid, plain.hidden_states[1], rtol=0, atol=0)
    assert after.block_inputs == ()


@pytest.mark.parametrize("name", NAMES)
def test_post_is_the_next_pre(name: str, load: Callable[..., Model]) -> None:
    model = load(name)
    prompts = prompts_of(model)
    post = run(model, prompts, HookPoint(0, "hook_resid_post"), torch.sin, block_inputs=True)
    pre = run(model, prompts, HookPoint(1, "hook_resid_pre"), torch.sin, block_inputs=True)
    torch.testing.assert_close(post.logits, pre.logits, rtol=0, atol=0)
    torch.testing.assert_close(post.edited, pre.block_inputs[0], rtol=0, atol=0)
    assert len(post.block_inputs) == len(pre.block_inputs)


def test_an_edit_in_float64_is_rounded_to_the_model(load: Callable[..., Model]) -> None:
    model = load("gpt2", torch.float32)
    seen = run(model, prompts_of(model), HookPoint(1, "hook_resid_pre"), lambda x: x.double() * 1.1)
    assert seen.edited.dtype == torch.float32
    assert seen.logits.shape == (3, V)


def test_gradients_flow_through_the_edit(load: Callable[..., Model]) -> None:
    model = load("llama", torch.float32)
    delta = torch.zeros(model.d_model, requires_grad=True)
    logits = run(model, prompts_of(model), HookPoint(0, "hook_resid_pre"), lambda x: x + delta).logits
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), delta)
    assert float(gradient.norm()) > 0
    with torch.no_grad():
        assert not run(
            model, prompts_of(model), HookPoint(0, "hook_resid_pre"), lambda x: x + delta
        ).logits.requires_grad


@pytest.mark.parametrize("site", ["hook_resid_pre", "hook_resid_post"])
def test_hooks_are_removed_after_an_exception(site: str, load: Callable[..., Model]) -> None:
    model = load("gpt2")
    prompts, hook = prompts_of(model), HookPoint(1, site)
    before = run(model, prompts, hook).logits

    def explode(_: Tensor) -> Tensor:
        raise RuntimeError("edit failed")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="edit failed"):
            run(model, prompts, hook, explode, block_inputs=True)
    assert hook_count(model.module) == 0
    torch.testing.assert_close(run(model, prompts, hook).logits, before, rtol=0, atol=0)
    assert torch.nn.functional.softmax(torch.zeros(2).double(), -1, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("edit", [lambda x: x[:, :1], lambda x: None, lambda x: x.sum()])
def test_an_edit_must_keep_the_shape(edit: Callable[[Tensor], Tensor], load: Callable[..., Model]) -> None:
    model = load("gpt2")
    with pytest.raises(ShapeError, match="must keep the shape"):
        run(model, prompts_of(model), HookPoint(0, "hook_resid_post"), edit)
    assert hook_count(model.module) == 0


@pytest.mark.parametrize("layer_output", ["tuple", "tensor"])
def test_layers_may_return_tuples_and_take_keywords(layer_output: str, load: Callable[..., Model]) -> None:
    model = load("llama")
    prompts, hook = prompts_of(model), HookPoint(1, "hook_resid_post")
    expected = run(model, prompts, hook, torch.sin, block_inputs=True)
    layers = model.module.model.layers

    class Wrapped(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, *, hidden_states: Tensor, **kwargs: object) -> object:
            output = self.block(hidden_states, **kwargs)
            return (output, None) if layer_output == "tuple" else output

    class Body(nn.Module):
        """The old calling convention: keywords in, tuples out."""

        def __init__(self) -> None:
            super().__init__()
            self.wrapped = nn.ModuleList(Wrapped(block) for block in layers)
            self.lm_head = model.module.lm_head

        def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Tensor:
            assert not use_cache
            assert bool(attention_mask.all())
            body = model.module.model
            hidden = body.embed_tokens(input_ids)
            where = torch.arange(input_ids.shape[1])[None]
            mask = torch.full((input_ids.shape[1],) * 2, -torch.inf).double().triu(1)[None, None]
            tables = body.rotary_emb(hidden, where)
            for block in self.wrapped:
                output = block(hidden_states=hidden, attention_mask=mask, position_embeddings=tables)
                hidden = output[0] if isinstance(output, tuple) else output
            return self.lm_head(body.norm(hidden))

    class OldAdapter(type(model.adapter)):
        def blocks(self, module: Body) -> list[nn.Module]:
            return list(module.wrapped)

    old = Model(Body(), None, OldAdapter(), model.path, True)
    seen = run(old, prompts, hook, torch.sin, block_inputs=True)
    torch.testing.assert_close(seen.logits, expected.logits, rtol=0, atol=1e-12)
    assert len(seen.block_inputs) == len(expected.block_inputs)


def test_full_precision_leaves_everything_else_alone() -> None:
    x = torch.randn(3).double()
    with FullPrecision() as mode:
        assert x.float().dtype == torch.float64
        assert x.to(torch.float32).dtype == torch.float64
        assert x.to(dtype=torch.float32).dtype == torch.float64
        assert torch.nn.functional.softmax(x, dim=-1, dtype=torch.float32).dtype == torch.float64
        assert torch.arange(3).float().dtype == torch.float32
        assert x.to(torch.int64).dtype == torch.int64
        with mode.paused():
            assert x.float().dtype == torch.float32
    assert x.float().dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("blocks.6.hook_resid_pst", "blocks.6.hook_resid_post"),
        ("blocks.2.hook_resid_middle", "blocks.2.hook_resid_mid"),
        ("block.3.hook_resid_pre", "blocks.3.hook_resid_pre"),
        ("blocks.06.hook_resid_pre", "blocks.6.hook_resid_pre"),
        ("blocks.-1.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ("transformer.h.4", "blocks.4"),
        ("", "blocks.0"),
    ],
)
def test_bad_hook_points_suggest_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(HookPointError, match=suggestion):
        HookPoint.parse(name)


def test_hook_points() -> None:
    for name, first in (("blocks.6.hook_resid_pre", 6), ("blocks.6.hook_resid_post", 7)):
        hook = HookPoint.parse(name)
        assert str(hook) == name
        assert hook.first_block == first
        hook.check(7)
        with pytest.raises(HookPointError, match="blocks 0 to 5"):
            hook.check(6)
    for layer, site in ((-1, "hook_resid_pre"), (True, "hook_resid_pre"), (1, "hook_z")):
        with pytest.raises(HookPointError):
            HookPoint(layer, site)
