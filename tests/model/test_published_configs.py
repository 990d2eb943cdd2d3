"""Settings as published checkpoints have them (of older releases, too) are taken, and read alike by both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from sae_verify.checker.files import Tensor
from sae_verify.checker.model import _FAMILIES, ModelFiles
from sae_verify.checker.tail.config import Settings
from sae_verify.checker.tail.rotary import Rotary
from sae_verify.model.adapters import ADAPTERS
from sae_verify.model.adapters.decoder import Decoder
from sae_verify.model.adapters.options import check_options

NOISE: dict[str, Any] = {
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_LIKE: dict[str, Any] = {
    **NOISE,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "vocab_size": 32000,
}
GEMMA_LIKE: dict[str, Any] = {
    **NOISE,
    "attention_bias": False,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "vocab_size": 256000,
    "cache_implementation": "hybrid",
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 2": {
        **LLAMA_LIKE,
        "model_type": "llama",
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rope_scaling": None,
    },
    "Llama 3.1": {
        **LLAMA_LIKE,
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    },
    "Mistral 7B v0.1": {
        **LLAMA_LIKE,
        "model_type": "mistral",
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
    "Mistral 7B v0.3": {
        **LLAMA_LIKE,
        "model_type": "mistral",
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "Qwen2.5 0.5B": {
        **LLAMA_LIKE,
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "max_window_layers": 21,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "DeepSeek-R1 distilled into Qwen2.5": {
        **LLAMA_LIKE,
        "model_type": "qwen2",
        "max_window_layers": 28,
        "rope_theta": 10000,
        "sliding_window": 4096,
        "use_mrope": False,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    },
    "Qwen3": {
        **LLAMA_LIKE,
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 128,
        "max_window_layers": 32,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    "Phi-3 mini": {
        **LLAMA_LIKE,
        "model_type": "phi3",
        "attention_bias": False,
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "num_key_value_heads": 32,
        "hidden_size": 3072,
        "original_max_position_embeddings": 4096,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 2047,
        "tie_word_embeddings": False,
    },
    "Gemma-2 2B": {
        **GEMMA_LIKE,
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    "Gemma-3 1B": {
        **GEMMA_LIKE,
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "Pythia": {
        **NOISE,
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": 50304,
    },
}


def settings_of(raw: dict[str, Any]) -> Settings:
    """What the checker reads, without weights."""
    family = _FAMILIES[raw["model_type"]]
    nothing = Tensor("F32", (0,), np.zeros(0, np.uint8))
    names = [f"{family['prefix']}layers.{layer}.x" for layer in range(raw["num_hidden_layers"])]
    return Settings.read(ModelFiles(Path(), raw, dict.fromkeys(names, nothing), family))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_taken(name: str, tmp_path: Path) -> None:
    raw = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = AutoConfig.from_pretrained(tmp_path)
    adapter = ADAPTERS[raw["model_type"]]
    adapter.check(config)
    check_options(raw, config)
    settings = settings_of(raw)
    rope = config.rope_parameters
    for layer in range(config.num_hidden_layers):
        kind = config.layer_types[layer] if "full_attention" in rope else None
        expected = rope[kind] if kind else rope
        base = settings.rotary[layer]
        assert (base.base if isinstance(base, Rotary) else base) == expected["rope_theta"]
        if isinstance(adapter, Decoder):
            assert settings.windows[layer] == adapter.window(config, layer)
    assert settings.d_head == (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    assert settings.n_kv_heads == getattr(config, "num_key_value_heads", config.num_attention_heads)
    if name == "Llama 3.1":
        assert settings.rotary[0] == Rotary(500000.0, 128, "llama3", 8.0, 1.0, 4.0, 8192.0)
    if name == "Pythia":
        assert settings.rotary[0] == Rotary(10000.0, 16)
        assert settings.parallel
