"""Hugging Face models that are in memory already: what is shared, what is refused, and that they certify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.tiny_models import CONFIGS, FAMILIES, save
from support.tiny import tiny_sae
from torch import nn
from transformers import AutoModelForCausalLM

import sae_verify as sv
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.instance import prepare
from sae_verify.model import HookPoint, encode_prompts, load_model, make_tail, run

OTHERS = (torch.bfloat16, torch.float64)
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5], [9, 8, 7]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name), dtype=torch.float32, tokenizer=True)
        return made[name]

    return directory


def held(path: Path, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, **settings)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in CONFIGS), *((name, dtype) for name in FAMILIES for dtype in OTHERS)],
)
def test_it_is_the_model_of_its_files(name: str, dtype: torch.dtype, saved: Callable[[str], Path]) -> None:
    model, stored = sv.wrap_model(held(saved(name), dtype=dtype)), load_model(saved(name), dtype=dtype)
    assert (model.path, model.dtype, model.stored_exactly) == (saved(name), dtype, stored.stored_exactly)
    assert model.tokenizer is not None
    prompts, hook = (
        encode_prompts(model, ROWS),
        HookPoint(1, "hook_resid_mid" if "neox" not in name else "hook_mlp_out"),
    )
    tail, seen = make_tail(model, prompts, hook)
    assert torch.equal(seen.logits, run(stored, prompts, hook).logits)
    assert tail.agreement is not None
    assert tail.agreement.dtype == dtype


@pytest.mark.parametrize("name", ["llama", "llama-rope3", "gemma3_text", "gpt_neox", "phi3-half"])
def test_a_model_made_float64_as_a_whole(name: str, saved: Callable[[str], Path]) -> None:
    """Its rotary frequencies are float64 then, too, and its tail is still exact."""
    model = sv.wrap_model(held(saved(name)).double(), path=False)
    tail, _ = make_tail(model, encode_prompts(model, ROWS), HookPoint(0, "hook_resid_pre"))
    assert tail.agreement is not None
    assert tail.agreement.worst < 1e-12


def test_memory_is_shared_and_the_held_model_left_alone(saved: Callable[[str], Path]) -> None:
    mine = held(saved("llama-bias")).train()
    implementation = mine.config._attn_implementation
    model = sv.wrap_model(mine)
    module: Any = model.module
    assert [w.data_ptr() for w in module.parameters()] == [w.data_ptr() for w in mine.parameters()]
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert mine.training
    assert not module.training
    assert all(w.requires_grad for w in mine.parameters())
    assert not any(w.requires_grad for w in module.parameters())
    assert mine.config._attn_implementation == implementation != "eager"


def test_without_files_it_is_attacked_and_not_certified(saved: Callable[[str], Path], tmp_path: Path) -> None:
    mine = held(saved("llama"))
    with torch.no_grad():
        mine.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    model = sv.wrap_model(mine, path=False)
    assert model.path is None
    sae = sv.load_sae(tiny_sae(tmp_path, d=32, hook="blocks.1.hook_resid_post"))
    problem = sv.Problem(model, sae, [[1, 2, 3]], sv.Clamp.set({1: 0.0}), sv.ErrorBall(0.1), sv.LogitDifference(2, 3))
    assert len(prepare(problem).instances) == 1
    with pytest.raises(InputError, match="model has no files on disk"):
        list(sv.certify(problem))


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3", "gpt_neox"])
def test_it_certifies_like_the_loaded_one(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    hook = f"blocks.{3 if 'gemma' in name else 2}.hook_resid_post"
    sae = sv.load_sae(tiny_sae(tmp_path / "sae", d=32, hook=hook, bias=-1.0))
    results = []
    for model in (sv.wrap_model(held(saved(name))), load_model(saved(name))):
        asked = sv.Problem(
            model, sae, ROWS[:1], sv.Clamp.scale({1: -0.5, 4: 0.0}), sv.ErrorBall(0.05), sv.LogitDifference(3, 8)
        )
        results += list(sv.certify(asked, out=tmp_path / "out", settings=sv.Pgd(steps=10, restarts=1)))
    first, second = results
    assert (first.digest, first.verdict.name, first.upper) == (second.digest, second.verdict.name, second.upper)
    assert sv.check(first.certificate).verdict == first.verdict.name


def changed(module: Any) -> None:
    with torch.no_grad():
        module.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3


def hooked(module: Any) -> None:
    module.model.layers[0].register_forward_hook(lambda _m, _a, out: out)


def adapted(module: Any) -> None:
    module.model.layers[0].mlp.lora = nn.Linear(2, 2)


def reconfigured(module: Any) -> None:
    module.config.rms_norm_eps = 1e-3


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (changed, InputError, r"layers\.1\.mlp\.up_proj\.weight .* are not those in"),
        (hooked, InputError, "has a forward hook"),
        (adapted, InputError, "merge_and_unload"),
        (reconfigured, InputError, "differ in rms_norm_eps"),
        (lambda module: module.model.norm.half(), UnsupportedError, "one dtype"),
        (lambda module: setattr(module.config, "_name_or_path", ""), InputError, "does not say which files"),
        (lambda module: setattr(module.config, "_name_or_path", "no/such"), InputError, "no/such"),
        (lambda module: setattr(module.config, "model_type", "bert"), UnsupportedError, "bert"),
        (lambda module: setattr(module.config, "alibi", True), UnsupportedError, "alibi"),
    ],
)
def test_refusals(change: Any, error: type[Exception], says: str, saved: Callable[[str], Path]) -> None:
    module = held(saved("llama"))
    change(module)
    with pytest.raises(error, match=says):
        sv.wrap_model(module)


def test_weights_without_files_must_still_fit_the_class(saved: Callable[[str], Path]) -> None:
    module = held(saved("llama"))
    adapted(module)
    with pytest.raises(UnsupportedError, match="which its class has not"):
        sv.wrap_model(module, path=False)


def test_other_things_are_no_models(saved: Callable[[str], Path]) -> None:
    model = load_model(saved("llama"))
    assert sv.wrap_model(model) is model
    for other in (nn.Linear(2, 2), "gpt2", None):
        with pytest.raises(InputError, match="models are taken from Hugging Face"):
            sv.wrap_model(other)
