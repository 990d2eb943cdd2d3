"""What Hugging Face's own code does around a run: float32 inside norms, warnings, progress bars, old exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, FAMILIES
from torch import Tensor
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from sae_verify.errors import FileFormatError, PromptError, TokenError
from sae_verify.model import HookPoint, Model, encode_prompts, load_model, run

Load = Callable[..., Model]
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [5], [9, 8, 7]]
HOOK = HookPoint(1, "hook_resid_pre")


def plain_logits(model: Model, row: list[int]) -> Tensor:
    """Last logits (V,) of one prompt, from the model's own forward, without this package."""
    module: Any = model.module
    with torch.no_grad():
        logits = module(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.atanh(logits / cap)


@pytest.fixture
def float64_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSNorm and softmax by their definitions, in the dtype that comes in."""

    def llama(self: Any, x: Tensor) -> Tensor:
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).sqrt()

    def gemma(self: Any, x: Tensor) -> Tensor:
        return (1.0 + self.weight) * x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def softmax(x: Tensor, dim: int, dtype: object = None) -> Tensor:
        return torch.exp(x - x.logsumexp(dim, keepdim=True))

    for norm in (LlamaRMSNorm, MistralRMSNorm, Phi3RMSNorm, Qwen2RMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", llama)
    for norm in (Gemma2RMSNorm, Gemma3RMSNorm):
        monkeypatch.setattr(norm, "forward", gemma)
    monkeypatch.setattr(torch.nn.functional, "softmax", softmax)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.usefixtures("float64_throughout")
def test_a_float64_run_is_the_definition(name: str, load: Load) -> None:
    model = load(name)
    for row in ROWS:
        expected = plain_logits(model, row)
        torch.testing.assert_close(
            run(model, encode_prompts(model, [row]), HOOK).logits[0], expected, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_it_departs_from_the_unpatched_code_by_float32_rounding(name: str, load: Load) -> None:
    model = load(name)
    logits = run(model, encode_prompts(model, ROWS), HOOK).logits
    for index, row in enumerate(ROWS):
        torch.testing.assert_close(logits[index], plain_logits(model, row), rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_run_is_its_prompts_one_by_one(name: str, load: Load) -> None:
    model = load(name)
    together = run(model, encode_prompts(model, ROWS), HOOK, torch.sin, block_inputs=True)
    for index, row in enumerate(ROWS):
        alone = run(model, encode_prompts(model, [row]), HOOK, torch.sin, block_inputs=True)
        torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=0, atol=1e-12)
        for padded, exact in zip(together.block_inputs, alone.block_inputs, strict=True):
            torch.testing.assert_close(padded[index, : len(row)], exact[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padding_far_beyond_the_window_stays_finite(name: str, dtype: torch.dtype, load: Load) -> None:
    model = load(name, dtype)
    logits = run(model, encode_prompts(model, [[1], list(range(30)) * 2]), HOOK).logits
    assert bool(logits.isfinite().all())


def test_a_run_is_silent(saved: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = edit_config(Path(shutil.copytree(saved("gpt2"), tmp_path / "m")), pad_token_id=0, bos_token_id=1)
    capfd.readouterr()
    model = load_model(path)
    run(model, encode_prompts(model, [[0, 1], [2], [0]]), HOOK)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("transformers_on", [True, False])
@pytest.mark.parametrize("hub_on", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_progress_bar_settings_are_put_back(
    transformers_on: bool, hub_on: bool, fails: bool, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    logging, hub = transformers.utils.logging, huggingface_hub.utils
    before = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    path = saved("gpt2")
    if fails:
        path = edit_config(Path(shutil.copytree(path, tmp_path / "m")), n_layer=4)
    try:
        set_progress_bars(transformers_on, hub_on)
        if fails:
            with pytest.raises(FileFormatError):
                load_model(path)
        else:
            load_model(path)
        assert (logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()) == (transformers_on, hub_on)
    finally:
        set_progress_bars(*before)


def set_progress_bars(transformers_on: bool, hub_on: bool) -> None:
    logging, hub = transformers.utils.logging, huggingface_hub.utils
    (logging.enable_progress_bar if transformers_on else logging.disable_progress_bar)()
    (hub.enable_progress_bars if hub_on else hub.disable_progress_bars)()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt2-erf-scaled", "lm_head.weight"),  # untied
        ("llama", "lm_head.weight"),
        ("gpt2", "transformer.h.1.ln_2.bias"),
        ("llama-bias", "model.layers.2.self_attn.k_proj.bias"),
        ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"),
        ("qwen2", "model.layers.1.self_attn.q_proj.bias"),
        ("qwen3", "model.layers.0.self_attn.q_norm.weight"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.weight"),
        ("gpt_neox", "gpt_neox.layers.0.attention.query_key_value.bias"),
    ],
)
def test_a_missing_weight_is_never_made_up(name: str, key: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(saved(name), tmp_path / "m"))
    tensors = load_file(path / "model.safetensors")
    del tensors[key]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileFormatError, match=rf"lack {key.replace('.', '[.]')} \(1 in all\)"):
        load_model(path)


@pytest.mark.parametrize("name", ["gpt2", "llama-bias", "gemma2"])
def test_a_tied_head_may_be_absent(name: str, saved: Callable[[str], Path], load: Load) -> None:
    assert "lm_head.weight" not in load_file(saved(name) / "model.safetensors")
    module: Any = load(name).module
    assert module.lm_head.weight.data_ptr() == module.get_input_embeddings().weight.data_ptr()


def test_an_old_gpt2_export(saved: Callable[[str], Path], tmp_path: Path, load: Load) -> None:
    """Names without a prefix, and causal masks stored beside the weights."""
    path = Path(shutil.copytree(saved("gpt2"), tmp_path / "m"))
    tensors = load_file(path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor.to(torch.float32) for name, tensor in tensors.items()}
    for layer in range(3):
        old[f"h.{layer}.attn.bias"] = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
        old[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, path / "model.safetensors", metadata={"format": "pt"})
    model, current = load_model(path), load("gpt2", torch.float32)
    assert model.stored_exactly
    assert not current.stored_exactly
    prompts = encode_prompts(model, ROWS)
    assert torch.equal(run(model, prompts, HOOK).logits, run(current, prompts, HOOK).logits)


@pytest.mark.parametrize("text", ["<unk> Mary Paul", "Paul <unk>"])
def test_an_unknown_word_beside_the_unknown_token(text: str, load: Load) -> None:
    with pytest.raises(TokenError, match="does not know"):
        encode_prompts(load("gpt2"), [text])


def test_token_ids_that_are_not_in_a_list_of_their_own(load: Load) -> None:
    with pytest.raises(PromptError, match="list of their own"):
        encode_prompts(load("gpt2"), [1, 2, 3])  # type: ignore[list-item]


def edit_config(directory: Path, **changes: object) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory
