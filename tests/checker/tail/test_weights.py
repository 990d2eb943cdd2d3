"""The checker's reading of transformer blocks against the adapters' reading of the loaded model, number by number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model.tiny_models import CONFIGS, LLAMA3_ROPE, save
from safetensors.torch import load_file, save_file

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.tail.rotary import tables
from sae_verify.checker.tail.weights import BlockWeights, NormWeights, load_blocks
from sae_verify.model import HookPoint, encode_prompts, load_model, make_tail
from sae_verify.model.block import Block
from sae_verify.model.operations import GatedMlp, LayerNorm, Linear, Norm

CASES = Path(__file__).parents[3] / "examples" / "cases"
UNREAD = ("phi3-partial",)
READ = sorted(set(CONFIGS) - set(UNREAD))
LAST = 7
"""The last position, far enough for every frequency to be told from its scaled one."""
PAIRED = {(8, 4): [0, 1, 4, 5, 2, 3, 6, 7], (8, 2): [0, 2, 3, 4, 1, 5, 6, 7]}
"""By width of a head and of its turning part, an order in which what turns together lies half a head apart."""


def torch_blocks(directory: Path) -> tuple[Block, ...]:
    """Every block as the adapters read it."""
    model = load_model(directory, dtype=torch.float64)
    prompts = encode_prompts(model, [list(range(3, 4 + LAST))])
    tail, _ = make_tail(model, prompts, HookPoint(0, "hook_resid_pre"))
    assert all(isinstance(block, Block) for block in tail.blocks)
    return tail.blocks  # type: ignore[return-value]


def same_map(stored: Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    np.testing.assert_array_equal(weight, stored.weight.numpy())
    np.testing.assert_array_equal(bias, 0.0 if stored.bias is None else stored.bias.numpy())
    assert weight.dtype == bias.dtype == np.float64
    assert bias.shape == weight.shape[:1]


def holds(ball: Ball, value: Any, radius: float, slack: float = 0.0) -> None:
    assert (np.abs(ball.mid - value) <= ball.rad + slack).all()
    assert float(np.max(ball.rad)) <= radius


def same_norm(stored: Norm | None, read: NormWeights | None) -> None:
    assert (stored is None) == (read is None)
    if stored is None or read is None:
        return
    holds(read.gain, stored.gain.numpy(), 1e-14)
    assert read.centred == isinstance(stored, LayerNorm)
    assert read.epsilon == stored.epsilon
    np.testing.assert_array_equal(read.shift, stored.bias.numpy() if isinstance(stored, LayerNorm) else 0.0)
    assert read.shift.shape == read.gain.mid.shape


def same_block(stored: Block, read: BlockWeights) -> None:
    same_norm(stored.attention_norm, read.attention_norm)
    same_norm(stored.attention_post_norm, read.attention_post_norm)
    same_norm(stored.mlp_norm, read.mlp_norm)
    same_norm(stored.mlp_post_norm, read.mlp_post_norm)
    attention, weights = stored.attention.weights, read.attention
    order = head_order(stored)
    for name in ("query", "key", "value", "output"):
        linear = getattr(attention, name)
        heads = order + len(order) * np.arange(len(linear.weight) // len(order))[:, None]
        rows = torch.from_numpy(heads.ravel()) if name in ("query", "key") else torch.arange(len(linear.weight))
        linear = Linear(linear.weight[rows], None if linear.bias is None else linear.bias[rows])
        same_map(linear, getattr(weights, name), getattr(weights, f"{name}_bias"))
    same_norm(attention.query_norm, weights.query_norm)
    same_norm(attention.key_norm, weights.key_norm)
    assert read.parallel == stored.parallel
    for name in ("n_heads", "n_kv_heads", "softcap", "window", "d_head"):
        assert getattr(weights, name) == getattr(attention, name), name
    same_rotation(stored, read)
    mlp = stored.mlp
    assert read.mlp.kind == mlp.activation.value
    same_map(mlp.up, read.mlp.up, read.mlp.up_bias)
    same_map(mlp.down, read.mlp.down, read.mlp.down_bias)
    assert (read.mlp.gate is None) == (not isinstance(mlp, GatedMlp))
    if isinstance(mlp, GatedMlp):
        assert read.mlp.gate is not None
        assert read.mlp.gate_bias is not None
        same_map(mlp.gate, read.mlp.gate, read.mlp.gate_bias)


def head_order(block: Block) -> np.ndarray:
    d_head, cos = block.attention.weights.d_head, block.attention.cos
    width = d_head if cos is None else cos.shape[-1]
    return np.array(PAIRED.get((d_head, width), range(d_head)))


def same_rotation(stored: Block, read: BlockWeights) -> None:
    """Scores are scaled and turned alike; the model's tables have the rounding of float32."""
    weights, attention = read.attention, stored.attention
    if attention.cos is None or attention.sin is None:
        assert weights.rotary_base is None
        holds(weights.scale, attention.weights.scale, 1e-15)
        return
    assert weights.rotary_base is not None
    cos, sin = tables(weights.rotary_base, weights.d_head, [LAST])
    half = attention.cos.shape[-1] // 2
    mine = np.concatenate([cos.mid[0, :half], sin.mid[0, :half]])
    theirs = np.concatenate([attention.cos[0, 0, :half].numpy(), attention.sin[0, 0, :half].numpy()])
    gain = np.linalg.norm(theirs) / half**0.5
    np.testing.assert_allclose(gain * mine, theirs, rtol=0, atol=1e-5)
    still = slice(half, weights.d_head // 2)
    assert (cos.mid[0, still] == 1.0).all()
    assert (sin.mid[0, still] == 0.0).all()
    holds(weights.scale, attention.weights.scale * gain**2, 1e-15 if abs(gain - 1) < 1e-6 else 1e-14, 1e-6)


@pytest.mark.parametrize("name", READ)
def test_every_family_is_read_as_the_adapters_read_it(name: str, tmp_path: Path) -> None:
    directory = save(name, tmp_path / "model")
    expected, blocks = torch_blocks(directory), load_blocks(directory, 0)
    assert len(blocks) == len(expected)
    for stored, read in zip(expected, blocks, strict=True):
        same_block(stored, read)
    assert len(load_blocks(directory, 1)) == len(blocks) - 1


@pytest.mark.parametrize("case", ["indirect_object", "refusal", "unlearning"])
def test_the_bundled_models_are_read(case: str) -> None:
    expected = torch_blocks(CASES / case)
    for first in range(len(expected) + 1):
        blocks = load_blocks(CASES / case, first)
        assert len(blocks) == len(expected) - first
        for stored, read in zip(expected[first:], blocks, strict=True):
            same_block(stored, read)


def test_a_narrow_model_is_read_exactly(tmp_path: Path) -> None:
    directory = save("gemma2", tmp_path / "model", dtype=torch.bfloat16)
    stored = load_file(directory / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(load_blocks(directory, 1)[0].mlp.up, stored.double().numpy())


def test_the_scale_contains_the_exact_one(tmp_path: Path) -> None:
    """1 / sqrt(24), compared in integers: low^2 * 24 <= 1 <= high^2 * 24."""
    from fractions import Fraction

    scale = load_blocks(save("gemma2", tmp_path / "model"), 0)[0].attention.scale
    low, high = Fraction(float(scale.low)), Fraction(float(scale.high))
    assert low * low * 24 < 1 < high * high * 24


@pytest.mark.parametrize("name", UNREAD)
def test_other_rotary_types_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="rope_parameters"):
        load_blocks(save(name, tmp_path / "model"), 0)


@pytest.mark.parametrize("first", [-1, 4])
def test_a_block_that_does_not_exist(first: int, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not exist in a model of 3 blocks"):
        load_blocks(save("llama", tmp_path / "model"), first)


CONFIG_MUTANTS: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ("gpt2", {"activation_function": "relu"}, "activation_function"),
    ("gpt2", {"activation_function": ["gelu"]}, "activation_function"),
    ("gpt2", {"scale_attn_weights": 1}, "scale_attn_weights"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": None}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"n_head": 3}, "n_head"),
    ("gpt2", {"n_head": True}, "n_head"),
    ("gpt2", {"num_attention_heads": 2}, "num_attention_heads"),
    ("gpt2", {"hidden_size": 64}, "hidden_size"),
    ("gpt2", {"layer_norm_epsilon": 0.0}, "layer_norm_epsilon"),
    ("gpt2", {"layer_norm_epsilon": None}, "layer_norm_epsilon"),
    ("gpt2", {"n_layer": 2}, "speaks of 2 blocks"),
    ("gpt2", {"n_layer": 3.0}, "n_layer"),
    ("gpt2", {"quantization_config": {"bits": 8}}, "quantised"),
    ("gpt2", {"auto_map": {"AutoModel": "x.Y"}}, "own code"),
    ("gpt2", {"model_type": "gpt_neox"}, "num_hidden_layers"),
    ("gpt2", {"model_type": "gptj"}, "gptj"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"hidden_act": "relu"}, "hidden_act"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("llama", {"num_key_value_heads": 0}, "num_key_value_heads"),
    ("llama", {"num_key_value_heads": None}, "k_proj.weight has shape"),
    ("llama", {"head_dim": 7}, "head_dim"),
    ("llama", {"head_dim": 16}, "q_proj.weight has shape"),
    ("llama", {"attention_bias": True}, "q_proj.bias is missing"),
    ("llama-bias", {"attention_bias": False}, "not modelled"),
    ("llama-bias", {"mlp_bias": False}, "not modelled"),
    ("llama", {"rope_theta": 500000.0}, "one number"),
    ("llama", {"rope_theta": 0.5, "rope_parameters": None}, "at least 1"),
    ("llama", {"rope_theta": "10000", "rope_parameters": None}, "positive number"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
    ("llama", {"rope_scaling": {"type": "dynamic"}}, "type"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters"),
    ("llama-linear", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "factor"),
    ("llama-linear", {"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor"),
    ("llama-linear", {"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, "rope_type"),
    ("llama-linear", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 2}}, "at most"),
    ("llama-rope3", {"rope_parameters": {**LLAMA3_ROPE, "high_freq_factor": 1.0}}, "high_freq_factor"),
    ("llama-rope3", {"rope_parameters": {**LLAMA3_ROPE, "low_freq_factor": None}}, "low_freq_factor"),
    ("llama-rope3", {"rope_parameters": {**LLAMA3_ROPE, "original_max_position_embeddings": 1.5}}, "original_max"),
    ("llama-rope3", {"rope_parameters": {**LLAMA3_ROPE, "rope_type": "longrope"}}, "rope_type"),
    ("llama-yarn", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}}, "at most"),
    ("llama-yarn", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 2}}, "beta"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("mistral", {"sliding_window": 0}, "sliding_window"),
    ("mistral", {"sliding_window": 4.0}, "sliding_window"),
    ("mistral", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("qwen2", {"use_mrope": True}, "use_mrope"),
    ("qwen2", {"use_sliding_window": False}, "layer_types"),
    ("qwen2", {"use_sliding_window": 1}, "use_sliding_window"),
    ("qwen2", {"layer_types": None, "max_window_layers": None}, "max_window_layers"),
    ("qwen2", {"sliding_window": None}, "layer_types"),
    ("phi3", {"attention_bias": True}, "attention_bias"),
    ("phi3", {"num_key_value_heads": 4}, "qkv_proj.weight has shape"),
    ("phi3-half", {"rope_parameters": {"partial_rotary_factor": 0.2}}, "even number"),
    ("phi3-half", {"rope_parameters": {"partial_rotary_factor": 0.0}}, "partial_rotary_factor"),
    ("phi3-half", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type"),
    ("phi3-half", {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "rope_type"),
    ("phi3-half", {"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
    ("phi3", {"auto_map": {"AutoModelForCausalLM": "modeling_other.Phi3ForCausalLM"}}, "own code"),
    ("gpt_neox-serial", {"use_parallel_residual": 1}, "use_parallel_residual"),
    ("gpt_neox-serial", {"attention_bias": True}, "query_key_value.bias is missing"),
    ("gpt_neox-serial", {"rotary_pct": 0.5}, "partial_rotary_factor"),
    (
        "gpt_neox-serial",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "original_max_position_embeddings": 1024,
            }
        },
        "entries turn",
    ),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
    ("gemma2", {"query_pre_attn_scalar": 2**60 + 1}, "query_pre_attn_scalar"),
    ("gemma2", {"attn_logit_softcapping": -1.0}, "attn_logit_softcapping"),
    ("gemma2", {"sliding_window": None}, "sliding_window"),
    ("gemma2", {"sliding_window": 0}, "sliding_window"),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ("gemma2", {"hidden_activation": None}, "hidden_activation"),
]


def configure(directory: Path, change: dict[str, Any], *, drop: tuple[str, ...] = ()) -> Path:
    path = directory / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))
    return directory


@pytest.mark.parametrize(("name", "change", "message"), CONFIG_MUTANTS)
def test_malformed_configurations(name: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    directory = save(name, tmp_path / "model")
    load_blocks(directory, 0)
    with pytest.raises(Rejected, match=message):
        load_blocks(configure(directory, change), 0)


GEMMA3_MUTANTS: list[tuple[dict[str, Any], str]] = [
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ({"rope_parameters": {"full": {"rope_theta": 1e4}}}, "rope_parameters"),
    ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_type"),
    ({"rope_parameters": {"full_attention": {"truncate": False}}}, "truncate"),
    ({"rope_theta": 1e6}, "rope_theta"),
    ({"rope_local_base_freq": 1e4}, "rope_local_base_freq"),
    ({"layer_types": ["full_attention"]}, "layer_types"),
    ({"head_dim": None}, "head_dim"),
]


@pytest.mark.parametrize(("change", "message"), GEMMA3_MUTANTS)
def test_malformed_configurations_of_gemma3(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    directory = save("gemma3_text", tmp_path / "model")
    load_blocks(directory, 0)
    with pytest.raises(Rejected, match=message):
        load_blocks(configure(directory, change), 0)


NEEDED = [
    ("gpt2", "n_head"),
    ("gpt2", "activation_function"),
    ("gpt2", "layer_norm_epsilon"),
    ("llama", "num_attention_heads"),
    ("llama", "rms_norm_eps"),
    ("gemma2", "attn_logit_softcapping"),
    ("gemma2", "query_pre_attn_scalar"),
    ("gemma2", "head_dim"),
    ("gemma2", "num_key_value_heads"),
    ("gemma2", "sliding_window"),
    ("mistral", "sliding_window"),
    ("mistral", "hidden_act"),
    ("qwen2", "hidden_size"),
]


@pytest.mark.parametrize(("name", "key"), NEEDED)
def test_a_missing_key_is_not_guessed(name: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=key):
        load_blocks(configure(save(name, tmp_path / "model"), {}, drop=(key,)), 0)


def test_what_older_exports_leave_out(tmp_path: Path) -> None:
    """Defaults of the families, as transformers fills them in; and the older place of the rotary base."""
    gpt2 = save("gpt2", tmp_path / "gpt2")
    configure(
        gpt2,
        {},
        drop=(
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "add_cross_attention",
            "reorder_and_upcast_attn",
        ),
    )
    llama = configure(
        save("llama", tmp_path / "llama"),
        {"rope_theta": 10000.0, "rope_scaling": None},
        drop=("rope_parameters", "head_dim", "attention_bias", "mlp_bias", "pretraining_tp"),
    )
    gemma = configure(save("gemma2", tmp_path / "gemma2"), {}, drop=("layer_types", "rope_parameters"))
    qwen2 = configure(save("qwen2", tmp_path / "qwen2"), {"rope_theta": 1e6}, drop=("layer_types", "rope_parameters"))
    gemma3 = configure(
        save("gemma3_text", tmp_path / "gemma3"),
        {"rope_local_base_freq": 50.0, "sliding_window_pattern": 2, "rope_theta": 2e5}
        | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        drop=("layer_types", "rope_parameters"),
    )
    pythia = configure(
        save("gpt_neox", tmp_path / "pythia"),
        {"rotary_pct": 0.5, "rotary_emb_base": 500},
        drop=("rope_parameters", "attention_bias"),
    )
    for directory in (gpt2, llama, gemma, qwen2, gemma3, pythia):
        for stored, read in zip(torch_blocks(directory), load_blocks(directory, 0), strict=True):
            same_block(stored, read)
    assert [block.attention.window for block in load_blocks(qwen2, 0)] == [None, 4, 4]
    assert [block.attention.window for block in load_blocks(gemma3, 0)] == [4, None, 4, None]
    base = configure(llama, {"rope_theta": 500000}, drop=("rope_scaling",))
    assert load_blocks(base, 0)[0].attention.rotary_base == 500000.0


Change = Callable[[dict[str, torch.Tensor]], Any]
GPT2_UP, LLAMA_UP = "transformer.h.1.mlp.c_fc.weight", "model.layers.1.mlp.up_proj.weight"


def replace(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensors: tensors.update({name: change(tensors[name]).contiguous()})


def put(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[5] = value
        return changed

    return change


TENSOR_MUTANTS: list[tuple[str, str, Change]] = [
    ("gpt2", "NaN or infinite", replace(GPT2_UP, put(float("nan")))),
    ("gpt2", "NaN or infinite", replace("transformer.h.2.ln_1.bias", put(float("inf")))),
    ("gpt2", "has shape", replace(GPT2_UP, lambda t: t.T)),
    ("gpt2", "has shape", replace("transformer.h.1.attn.c_attn.weight", lambda t: t[:, :64])),
    ("gpt2", "has shape", replace("transformer.h.1.attn.c_proj.weight", lambda t: t[None])),
    ("gpt2", "is missing", lambda tensors: tensors.pop("transformer.h.1.ln_2.bias")),
    ("gpt2", "twice", lambda tensors: tensors.update({GPT2_UP.removeprefix("transformer."): tensors[GPT2_UP].clone()})),
    ("gpt2", "not as a float", replace(GPT2_UP, lambda t: t.to(torch.int32))),
    ("llama", "NaN or infinite", replace(LLAMA_UP, put(float("-inf")))),
    ("llama", "has shape", replace(LLAMA_UP, lambda t: t[:-1])),
    ("llama", "has shape", replace("model.layers.2.input_layernorm.weight", lambda t: t[:-1])),
    ("llama", "is missing", lambda tensors: tensors.pop("model.layers.2.self_attn.o_proj.weight")),
    ("llama", "q_norm", lambda tensors: tensors.update({"model.layers.1.self_attn.q_norm.weight": torch.ones(8)})),
    ("llama", "q_norm", lambda tensors: tensors.update({"layers.1.self_attn.q_norm.weight": torch.ones(8)})),
    ("gemma2", "is missing", lambda tensors: tensors.pop("model.layers.1.pre_feedforward_layernorm.weight")),
    ("gemma2", "gate_proj.bias", lambda tensors: tensors.update({"model.layers.0.mlp.gate_proj.bias": torch.ones(48)})),
]


@pytest.mark.parametrize(("name", "message", "change"), TENSOR_MUTANTS)
def test_malformed_tensors(name: str, message: str, change: Change, tmp_path: Path) -> None:
    path = save(name, tmp_path / "model") / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(Rejected, match=message):
        load_blocks(path.parent, 0)


def test_masks_and_frequencies_of_older_exports_are_no_weights(tmp_path: Path) -> None:
    extra = {
        "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.1.attn.masked_bias": torch.tensor(-1e4)},
        "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
    }
    for name, tensors in extra.items():
        path = save(name, tmp_path / name) / "model.safetensors"
        before = load_blocks(path.parent, 0)
        save_file(load_file(path) | tensors, path)
        after = load_blocks(path.parent, 0)
        np.testing.assert_array_equal(after[0].mlp.up, before[0].mlp.up)
