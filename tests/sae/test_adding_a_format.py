"""The example of docs/adding_a_format.md works as it stands, and is as short as the page says formats are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_verify.errors import FileFormatError, MetadataError
from sae_verify.sae import InputScale, TopKSAE, load_sae, save_sae
from sae_verify.sae.formats import registry

PAGE = Path(__file__).parent.parent.parent / "docs" / "adding_a_format.md"
D, M, K, SCALE = 6, 20, 3, 0.5


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(code.splitlines()) < 60
    namespace: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), namespace)
    return namespace


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    g = torch.Generator().manual_seed(0)
    shapes = {"encode.weight": (M, D), "decode.weight": (D, M), "encode.bias": (M,), "decode.bias": (D,)}
    save_file({name: torch.randn(s, generator=g) for name, s in shapes.items()}, tmp_path / "weights.safetensors")
    (tmp_path / "sae.json").write_text(json.dumps({"k": K, "scale": SCALE, "hook": "blocks.1.hook_resid_post"}))
    return tmp_path


def test_the_example_loads(example, directory):
    sae = load_sae(directory, format=example["FORMAT"])
    assert isinstance(sae, TopKSAE)
    assert (sae.k, sae.d_in, sae.d_sae, sae.normalization) == (K, D, M, InputScale(SCALE))
    assert (sae.source.format, sae.source.hook_name) == ("acme", "blocks.1.hook_resid_post")
    x = torch.randn(50, D, generator=torch.Generator().manual_seed(1))
    a = (SCALE * x - sae.b_dec) @ sae.W_enc + sae.b_enc
    expected = torch.zeros_like(a).scatter(1, a.topk(K).indices, a.topk(K).values.relu())
    torch.testing.assert_close(sae.encode(x), expected)
    again = load_sae(save_sae(sae, directory / "saved"))
    torch.testing.assert_close(again.reconstruct(x), sae.reconstruct(x))


def test_in_the_registry_it_is_told_from_the_others(example, directory, monkeypatch):
    with pytest.raises(FileFormatError, match="holds"):
        load_sae(directory)
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, example["FORMAT"]))
    assert load_sae(directory).source.format == "acme"
    (directory / "sae.json").write_text("{}")
    with pytest.raises(MetadataError, match="'k'"):
        load_sae(directory)
