"""nnsight models; needs the package. `python -m tests.hosts.run` runs it in an environment that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.tiny_models import save
from support.tiny import tiny_sae
from transformers import AutoModelForCausalLM, AutoTokenizer

import sae_verify as sv
from sae_verify.errors import InputError
from sae_verify.model import HookPoint, encode_prompts, run

nnsight = pytest.importorskip("nnsight", reason="nnsight is not installed: python -m tests.hosts.run")
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name), dtype=torch.float32, tokenizer=True)
        return made[name]

    return directory


def tokenizer_of(path: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = "<s>"
    return tokenizer


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("around", [False, True])
def test_language_models(name: str, around: bool, saved: Callable[[str], Path], tmp_path: Path) -> None:
    source: Any = AutoModelForCausalLM.from_pretrained(saved(name)) if around else str(saved(name))
    held = nnsight.LanguageModel(source, tokenizer=tokenizer_of(saved(name)), dispatch=True)
    tokens = torch.tensor(ROWS)
    with held.trace(tokens):
        logits = held.output.logits.save()
    model = sv.wrap_model(held)
    assert model.path == saved(name)
    assert model.tokenizer is held.tokenizer
    hook = HookPoint(1, "hook_resid_post")
    seen = run(model, encode_prompts(model, ROWS), hook)
    cap = getattr(model.config, "final_logit_softcapping", None)
    shown = seen.logits if cap is None else cap * torch.tanh(seen.logits / cap)
    torch.testing.assert_close(shown, logits[:, -1].detach(), rtol=0, atol=2e-5)
    sae = sv.load_sae(tiny_sae(tmp_path / "sae", d=32, hook=f"blocks.{model.n_layers - 1}.hook_resid_post", bias=-1.0))
    problem = sv.Problem(
        model, sae, ROWS, sv.Clamp.scale({1: -0.5, 4: 0.0}), sv.ErrorBall(0.05), sv.LogitDifference(3, 8)
    )
    (result,) = sv.certify(problem, out=tmp_path, settings=sv.Pgd(steps=10, restarts=1))
    assert result.certificate is not None
    assert sv.check(result.certificate).verdict == result.verdict.name != "undecided"
    with held.trace(tokens):  # the held model still works
        again = held.output.logits.save()
    assert torch.equal(again, logits)


def test_refusals(saved: Callable[[str], Path]) -> None:
    path = saved("llama")
    with pytest.raises(InputError, match="has not loaded the weights yet"):
        sv.wrap_model(nnsight.LanguageModel(str(path), tokenizer=tokenizer_of(path)))
    held = nnsight.LanguageModel(str(path), tokenizer=tokenizer_of(path), dispatch=True)
    with torch.no_grad():
        held._module.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    with pytest.raises(InputError, match="are not those in"):
        sv.wrap_model(held)
    assert sv.wrap_model(held, path=False).path is None
