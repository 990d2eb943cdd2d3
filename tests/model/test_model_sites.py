"""Hook points inside a block: what they show, how edits act, and which a model does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES
from torch import Tensor

from sae_verify.errors import HookPointError
from sae_verify.model import HookPoint, Model, encode_prompts, run
from sae_verify.model.hook_point import SITES

Load = Callable[..., Model]
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5], [9, 8, 7]]
EXACT = 1e-12
SEQUENTIAL = [*(name for name in FAMILIES if name != "gpt_neox"), "gpt_neox-serial"]


def at(model: Model, site: Any, edit: Any = None, layer: int = 1) -> Any:
    with torch.no_grad():
        return run(model, encode_prompts(model, ROWS), HookPoint(layer, site), edit)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_writes_add_up(name: str, load: Load) -> None:
    model = load(name)
    seen = {site: at(model, site).resid for site in SITES}
    middle = seen["hook_resid_pre"] + seen["hook_attn_out"]
    torch.testing.assert_close(seen["hook_resid_mid"], middle, rtol=0, atol=EXACT)
    torch.testing.assert_close(seen["hook_resid_post"], middle + seen["hook_mlp_out"], rtol=0, atol=EXACT)
    assert min(float(state.abs().max()) for state in seen.values()) > 0.1


def test_parallel_writes_add_up_and_have_no_middle(load: Load) -> None:
    model = load("gpt_neox")
    seen = {site: at(model, site).resid for site in SITES if site != "hook_resid_mid"}
    total = seen["hook_resid_pre"] + seen["hook_attn_out"] + seen["hook_mlp_out"]
    torch.testing.assert_close(seen["hook_resid_post"], total, rtol=0, atol=EXACT)
    for use in (lambda: at(model, "hook_resid_mid"), lambda: model.hook_point("blocks.1.hook_resid_mid")):
        with pytest.raises(HookPointError, match="no residual stream between them"):
            use()
    before = at(model, "hook_mlp_out").resid
    torch.testing.assert_close(at_after_attention_edit(model), before, rtol=0, atol=0)


def at_after_attention_edit(model: Model) -> Tensor:
    """The network's write while the attention's is changed."""
    kept: list[Tensor] = []
    handle = model.adapter.mlp_writer(model.module, 1).register_forward_hook(lambda _m, _a, out: kept.append(out))
    try:
        at(model, "hook_attn_out", torch.sin)
    finally:
        handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_an_edit_of_the_middle_reaches_both_the_network_and_the_sum(name: str, load: Load) -> None:
    model, shift = load(name), torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    by_middle = at(model, "hook_resid_mid", lambda x: x + shift)
    by_attention = at(model, "hook_attn_out", lambda x: x + shift)
    torch.testing.assert_close(by_middle.logits, by_attention.logits, rtol=0, atol=EXACT)
    assert float((by_middle.logits - at(model, "hook_resid_mid").logits).abs().max()) > 0.01
    torch.testing.assert_close(by_middle.edited, by_middle.resid + shift, rtol=0, atol=0)


@pytest.mark.parametrize("site", SITES)
def test_gradients_flow_through_an_edit_that_saves_its_input(site: Any, load: Load) -> None:
    model = load("llama", torch.float64)
    prompts = encode_prompts(model, ROWS)
    scale = torch.ones(32, dtype=torch.float64, requires_grad=True)

    def logit(scale: Tensor) -> Tensor:
        return run(model, prompts, HookPoint(1, site), lambda x: torch.sin(x * scale) * scale).logits[:, 3].sum()

    (gradient,) = torch.autograd.grad(logit(scale), scale)
    step = torch.zeros(32, dtype=torch.float64)
    step[4] = 1e-6
    with torch.no_grad():
        slope = (logit(scale + step) - logit(scale - step)) / 2e-6
    assert float(gradient[4]) == pytest.approx(float(slope), rel=1e-5)
    assert float(gradient.abs().max()) > 1e-3


def test_what_is_the_same_state() -> None:
    post, pre = HookPoint(1, "hook_resid_post"), HookPoint(2, "hook_resid_pre")
    assert post.same_state(pre)
    assert pre.same_state(post)
    for site in ("hook_resid_mid", "hook_mlp_out", "hook_attn_out"):
        inside = HookPoint(2, site)
        assert inside.same_state(inside)
        assert not any(inside.same_state(other) or other.same_state(inside) for other in (post, pre))
