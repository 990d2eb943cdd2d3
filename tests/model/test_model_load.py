"""Loading: what is taken, and every refusal with its type and its remedy."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, FAMILIES, V, save
from torch import Tensor

from sae_verify.errors import (
    FileFormatError,
    HookPointError,
    InputError,
    PromptError,
    ShapeError,
    TokenError,
    UnsafeFileError,
    UnsupportedError,
    WeightsError,
)
from sae_verify.model import HookPoint, Model, Prompts, encode_prompts, load_model, run, token_id


@pytest.fixture
def copy(tmp_path: Path, saved: Callable[[str], Path]) -> Callable[[str], Path]:
    """A directory of its own, to be damaged."""

    def write(name: str) -> Path:
        return Path(shutil.copytree(saved(name), tmp_path / name))

    return write


def edit_config(directory: Path, **changes: object) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


def edit_weights(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("name", CONFIGS)
def test_properties(name: str, load: Callable[..., Model], saved: Callable[[str], Path]) -> None:
    model = load(name)
    assert model.family == name.split("-")[0]
    assert model.n_layers == (4 if "gemma" in name else 3)
    assert (model.d_model, model.d_vocab, model.max_length) == (32, V, 16 if name == "phi3-partial" else 64)
    assert model.dtype == torch.float64
    assert model.device.type == "cpu"
    assert model.path == saved(name)
    assert model.stored_exactly
    assert not model.module.training
    assert model.config._attn_implementation == "eager"
    assert not any(weight.requires_grad for weight in model.module.parameters())


def test_stored_exactly_compares_dtypes(tmp_path: Path) -> None:
    path = save("llama", tmp_path, dtype=torch.bfloat16)
    expected = {torch.float64: True, torch.float32: True, torch.bfloat16: True, torch.float16: False}
    for dtype, exact in expected.items():
        assert load_model(path, dtype=dtype).stored_exactly is exact


def test_hook_points_of_a_model(load: Callable[..., Model]) -> None:
    model = load("gpt2")
    assert model.hook_point("blocks.2.hook_resid_post") == HookPoint(2, "hook_resid_post")
    with pytest.raises(HookPointError):
        model.hook_point("blocks.3.hook_resid_pre")


# --- hub ids -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_cached_hub_id(hub_cache: Path, saved: Callable[[str], Path]) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--someone--tiny-gpt2"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(saved("gpt2"), snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    model = load_model("someone/tiny-gpt2")
    assert model.path == snapshot
    assert (model.path / "config.json").is_file()
    assert token_id(model, "Mary") == 2


@pytest.mark.parametrize("name", ["someone/not-cached", "gpt2", "no/such/thing", "../nowhere", "a b", ""])
def test_an_unknown_model(name: str, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub_cache / ".." if name == "" else hub_cache)
    with pytest.raises((InputError, FileFormatError)):
        load_model(name)


def test_a_file_is_no_model(copy: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="give the directory"):
        load_model(copy("gpt2") / "model.safetensors")
    with pytest.raises(InputError, match="directory"):
        load_model(Path("no-such-directory"))


# --- damaged or hostile directories ------------------------------------------------------------------------------


def test_no_config(copy: Callable[[str], Path]) -> None:
    path = copy("gpt2")
    (path / "config.json").unlink()
    with pytest.raises(FileFormatError, match=r"config\.json"):
        load_model(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "gpt2", "n_head": "many"}'])
def test_a_broken_config(text: str, copy: Callable[[str], Path]) -> None:
    path = copy("gpt2")
    (path / "config.json").write_text(text)
    with pytest.raises(FileFormatError):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_truncated_safetensors(keep: int, copy: Callable[[str], Path]) -> None:
    path = copy("gpt2")
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(FileFormatError, match="cannot be read as safetensors"):
        load_model(path)


def test_pickles_are_never_read(copy: Callable[[str], Path]) -> None:
    path = copy("gpt2")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match="pickles"):
        load_model(path)
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(FileFormatError, match="neither"):
        load_model(path)


def test_shards(copy: Callable[[str], Path]) -> None:
    path = copy("llama")
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in halves.items():
        save_file({name: tensors[name] for name in members}, path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, members in halves.items() for name in members}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_model(path).n_layers == 3
    (path / "b.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"b\.safetensors"):
        load_model(path)
    index["weight_map"][names[0]] = "../elsewhere.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileFormatError, match="elsewhere"):
        load_model(path)
    (path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(FileFormatError, match="weight_map"):
        load_model(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers(value: float, copy: Callable[[str], Path]) -> None:
    path = edit_weights(copy("llama"), lambda t: t["model.layers.1.mlp.up_proj.weight"].view(-1)[7].fill_(value))
    with pytest.raises(WeightsError, match=r"layers\.1\.mlp\.up_proj\.weight has 1 of"):
        load_model(path)


def test_weights_that_overflow_in_a_narrow_dtype(copy: Callable[[str], Path]) -> None:
    path = edit_weights(copy("llama"), lambda t: t["model.norm.weight"][3].fill_(1e6))
    assert load_model(path).d_model == 32
    with pytest.raises(WeightsError, match=r"norm\.weight"):
        load_model(path, dtype=torch.float16)


def test_weights_that_do_not_fit_the_config(copy: Callable[[str], Path]) -> None:
    with pytest.raises(FileFormatError, match=r"lack .*layers\.3"):
        load_model(edit_config(copy("llama"), num_hidden_layers=4))
    with pytest.raises(FileFormatError, match=r"unused by the model, .*layers\.3"):
        load_model(edit_config(copy("gemma2"), num_hidden_layers=3, layer_types=["sliding_attention"] * 3))
    with pytest.raises(FileFormatError):
        load_model(edit_config(copy("gpt2"), vocab_size=V + 1))


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("gpt2", {"model_type": "mamba"}, "mamba"),
        ("gpt2", {"model_type": None}, "model_type"),
        ("gpt2", {"model_type": ["gpt2"]}, "model_type"),
        ("gpt2", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        ("gemma2", {"hidden_activation": "relu"}, "hidden_activation"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"layer_types": ["full_attention", "chunked_attention"] * 2}, "layer_types"),
        ("gemma3_text", {"layer_types": ["full_attention", "chunked_attention"] * 2}, "layer_types"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("mistral", {"hidden_act": "relu"}, "hidden_act"),
        ("qwen2", {"use_mrope": True}, "use_mrope"),
        ("qwen3", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "layer_types"),
        ("qwen3", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        ("phi3", {"auto_map": {"AutoModel": "modeling_other.Model"}}, "auto_map"),
        ("gpt_neox", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        ("gpt_neox", {"hidden_act": "gelu_fast"}, "hidden_act"),
        *((name, {"alibi": True}, "alibi") for name in FAMILIES),
        ("llama", {"rope_interleaved": True}, "rope_interleaved"),
        ("qwen2", {"attention_scale_in": 0.5}, "attention_scale_in"),
    ],
)
def test_what_is_not_modelled_is_refused_by_key(
    name: str, changes: dict[str, object], key: str, copy: Callable[[str], Path]
) -> None:
    with pytest.raises(UnsupportedError, match=key) as caught:
        load_model(edit_config(copy(name), **changes))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"rope_interleaved": False, "is_llama_config": True, "unsloth_version": "1", "use_mup": None}),
        ("gpt2", {"n_ctx": 64, "task_specific_params": {"text-generation": {"do_sample": True}}}),
        ("gemma2", {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}),
        ("phi3", {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "attention_bias": False}),
    ],
)
def test_options_that_change_nothing_are_taken(
    name: str, changes: dict[str, object], copy: Callable[[str], Path]
) -> None:
    assert load_model(edit_config(copy(name), **changes)).family == name


def test_older_names_of_options(copy: Callable[[str], Path], load: Callable[..., Model]) -> None:
    """As Pythia's and Gemma-3's published files have them."""
    path = copy("gpt_neox") / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rotary_pct": 0.25, "rotary_emb_base": 10000}))
    model, today = load_model(path.parent, dtype=torch.float64), load("gpt_neox")
    prompts = encode_prompts(model, [[1, 2, 3, 4]])
    assert torch.equal(
        run(model, prompts, HookPoint(0, "hook_resid_pre")).logits,
        run(today, prompts, HookPoint(0, "hook_resid_pre")).logits,
    )


def test_an_old_pythia_export(saved: Callable[[str], Path], tmp_path: Path, load: Callable[..., Model]) -> None:
    """Causal masks and frequency tables stored beside the weights, and the unembedding by its older name."""
    path = Path(shutil.copytree(saved("gpt_neox"), tmp_path / "m"))
    tensors = load_file(path / "model.safetensors")
    if "lm_head.weight" in tensors:  # today's name
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    for layer in range(3):
        tensors[f"gpt_neox.layers.{layer}.attention.bias"] = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
        tensors[f"gpt_neox.layers.{layer}.attention.masked_bias"] = torch.tensor(-1e4)
        tensors[f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.full((1,), 3.0)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    model, today = load_model(path, dtype=torch.float64), load("gpt_neox")
    assert model.stored_exactly
    prompts = encode_prompts(model, [[1, 2, 3, 4]])
    hook = HookPoint(0, "hook_resid_pre")
    expected = run(today, prompts, hook).logits
    torch.testing.assert_close(run(model, prompts, hook).logits, expected, rtol=0, atol=1e-12)


def test_a_bad_dtype(copy: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="int8"):
        load_model(copy("gpt2"), dtype=torch.int8)


@pytest.mark.parametrize("package", ["transformers", "huggingface_hub"])
def test_missing_packages(package: str, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy("gpt2")
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=r"pip install sae-verify\[hf\]"):
        load_model(path if package == "transformers" else "someone/tiny")


# --- prompts and tokens ------------------------------------------------------------------------------------------


def test_prompts_are_padded_on_the_right(load: Callable[..., Model]) -> None:
    prompts = encode_prompts(load("gpt2"), ["Mary gave John a drink", [5], torch.tensor([7, 8])])
    assert prompts.tokens.tolist() == [[2, 4, 3, 5, 6], [5, 0, 0, 0, 0], [7, 8, 0, 0, 0]]
    assert prompts.lengths.tolist() == [5, 1, 2]
    assert prompts.last.tolist() == [4, 0, 1]
    assert len(prompts) == 3
    fewer = prompts.select([2, 1])
    assert fewer.tokens.tolist() == [[7, 8], [5, 0]]


@pytest.mark.parametrize(
    ("prompts", "error", "says"),
    [
        ([], PromptError, "non-empty"),
        ("Mary", PromptError, "list of texts"),
        ([""], PromptError, "prompt 0 is empty"),
        (["  "], PromptError, "prompt 0 is empty"),
        ([[3], []], PromptError, "prompt 1 is empty"),
        ([[1] * 65], PromptError, "at most 64"),
        ([[V]], TokenError, "0 to 60"),
        ([[-1]], TokenError, "-1"),
        ([[1.5]], TokenError, "integers"),
        ([[True]], TokenError, "integers"),
        ([["Mary"]], TokenError, "integers"),
        (["Mary met John"], TokenError, "does not know"),
    ],
)
def test_bad_prompts(prompts: list, error: type[Exception], says: str, load: Callable[..., Model]) -> None:
    with pytest.raises(error, match=says):
        encode_prompts(load("gpt2"), prompts)


def test_prompts_check_themselves() -> None:
    tokens, lengths = torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 1])
    assert len(Prompts(tokens, lengths)) == 2
    for bad in (
        (tokens.float(), lengths),
        (tokens, lengths[:1]),
        (tokens, torch.tensor([3, 0])),
        (tokens, torch.tensor([2, 1])),
        (tokens[:0], lengths[:0]),
    ):
        with pytest.raises(ShapeError):
            Prompts(*bad)


def test_readout_tokens(load: Callable[..., Model]) -> None:
    model = load("gpt2")
    assert token_id(model, "John") == 3
    assert token_id(model, "<unk>") == 0
    for text, says in (("Mary John", "2 tokens"), ("", "0 tokens"), ("Paul", "does not know")):
        with pytest.raises(TokenError, match=says):
            token_id(model, text)


def test_no_tokenizer(tmp_path: Path) -> None:
    model = load_model(save("gpt2", tmp_path))
    assert model.tokenizer is None
    assert len(encode_prompts(model, [[1, 2]])) == 1
    with pytest.raises(PromptError, match="has no tokenizer"):
        encode_prompts(model, ["Mary"])
    with pytest.raises(PromptError, match="has no tokenizer"):
        token_id(model, "Mary")


def test_a_broken_tokenizer(copy: Callable[[str], Path]) -> None:
    path = copy("gpt2")
    (path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(FileFormatError, match="tokenizer"):
        load_model(path)
