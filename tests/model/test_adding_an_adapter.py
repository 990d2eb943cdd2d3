"""The page on adding an architecture does what it says, and the support table is the registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, FAMILIES, save

from sae_verify.checker import Rejected
from sae_verify.checker.model import load_head
from sae_verify.checker.tail.weights import load_blocks
from sae_verify.errors import UnsupportedError
from sae_verify.model import HookPoint, Model, make_tail
from sae_verify.model.adapters import ADAPTERS, adapter_for
from sae_verify.model.hook_point import SITES
from sae_verify.model.support import hooks_cell, models_cell, supported_hooks, supported_models

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding_an_adapter.md").read_text(encoding="utf-8")


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match="starcoder2"):
        adapter_for("starcoder2")
    torch.manual_seed(0)
    adapter, example = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(adapter.splitlines()) < 60
    monkeypatch.setitem(ADAPTERS, "starcoder2", adapter_for("llama"))  # put back afterwards
    exec(compile(adapter, "adapter", "exec"), scope := {"__name__": "page"})
    exec(compile(example, "example", "exec"), scope)
    assert float(capsys.readouterr().out) < 1e-12
    model, prompts = scope["model"], scope["prompts"]
    assert isinstance(model, Model)
    for parameter in model.module.parameters():  # as large as a trained model's, so that every part matters
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5))
    for site in SITES:
        tail, _ = make_tail(model, prompts, HookPoint(1, site))
        assert tail.agreement is not None
        assert tail.agreement.worst < 1e-12


def test_every_adapter_is_tested_and_shown() -> None:
    assert sorted(FAMILIES) == sorted(ADAPTERS)
    assert [row.family for row in supported_models()] == list(ADAPTERS)
    assert [row.name for row in supported_hooks()] == list(SITES)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert models_cell() in readme
    assert hooks_cell() in readme


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_says_what_the_checker_does(name: str, tmp_path: Path) -> None:
    directory = save(name, tmp_path / "model")
    assert load_head(directory).n_blocks == CONFIGS[name]().num_hidden_layers
    (row,) = [row for row in supported_models() if row.family == name]
    if row.through_blocks:
        assert load_blocks(directory, 1)
    else:
        with pytest.raises(Rejected, match="not enclosed"):
            load_blocks(directory, 1)
