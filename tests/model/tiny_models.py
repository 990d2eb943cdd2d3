"""Tiny random models of each supported family, with every option that changes the algebra."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

V = 61

GPT2 = {
    "vocab_size": V,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GEMMA2 = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "max_position_embeddings": 64,
    "sliding_window": 4,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 2.0,
}
GEMMA3 = {
    **{key: value for key, value in GEMMA2.items() if "softcapping" not in key},
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    },
}
NEOX = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
"""The first block sees everything, the others four positions."""
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "gpt2": lambda: GPT2Config(**GPT2),
    "gpt2-erf-scaled": lambda: GPT2Config(
        **GPT2, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False
    ),
    "gpt2-unscaled": lambda: GPT2Config(**GPT2, scale_attn_weights=False, n_inner=40),
    "llama": lambda: LlamaConfig(**LLAMA),
    "llama-bias": lambda: LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "llama-rope3": lambda: LlamaConfig(**LLAMA, rope_parameters=LLAMA3_ROPE, hidden_act="gelu"),
    "llama-linear": lambda: LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}
    ),
    "llama-yarn": lambda: LlamaConfig(
        **LLAMA,
        head_dim=16,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "gemma2": lambda: Gemma2Config(**GEMMA2),
    "gemma2-uncapped": lambda: Gemma2Config(
        **{**GEMMA2, "attn_logit_softcapping": None, "final_logit_softcapping": None}, attention_bias=True
    ),
    "gemma3_text": lambda: Gemma3TextConfig(**GEMMA3),
    "gemma3_text-capped": lambda: Gemma3TextConfig(
        **GEMMA3, attention_bias=True, final_logit_softcapping=2.0, tie_word_embeddings=False
    ),
    "mistral": lambda: MistralConfig(**LLAMA, sliding_window=4, head_dim=16),
    "mistral-full": lambda: MistralConfig(**LLAMA, sliding_window=None, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**LLAMA, **SLIDING),
    "qwen2-tied": lambda: Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**LLAMA, **SLIDING, head_dim=16),
    "qwen3-bias": lambda: Qwen3Config(**LLAMA, head_dim=8, attention_bias=True, tie_word_embeddings=True),
    "phi3": lambda: Phi3Config(**LLAMA, sliding_window=4, pad_token_id=0),
    "phi3-partial": lambda: Phi3Config(
        **LLAMA,
        pad_token_id=0,
        tie_word_embeddings=True,
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.5, 2.0],
            "long_factor": [4.0, 8.0],
        },
    ),
    "phi3-half": lambda: Phi3Config(
        **LLAMA,
        pad_token_id=0,
        sliding_window=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**NEOX),
    "gpt_neox-serial": lambda: GPTNeoXConfig(
        **NEOX,
        use_parallel_residual=False,
        attention_bias=False,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    ),
}
FAMILIES = [name for name in CONFIGS if "-" not in name]
"""One of each architecture."""
WORDS = ["<unk>", "<s>", "Mary", "John", "gave", "a", "drink", "to", "."]


def save(name: str, directory: Path, *, dtype: torch.dtype = torch.float64, tokenizer: bool = False) -> Path:
    """Write a random model with weights large enough that every part matters."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(CONFIGS[name]())
    for parameter_name, parameter in module.named_parameters():
        scale = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        noise = torch.randn_like(parameter) * scale
        is_gain = parameter.ndim == 1 and "bias" not in parameter_name and "gemma" not in name
        parameter.data = noise + (1.0 if is_gain else 0.0)
    module.to(dtype).save_pretrained(directory)
    if tokenizer:
        save_tokenizer(directory)
    return directory


def save_tokenizer(directory: Path) -> None:
    """Write a word-level tokenizer of nine words."""
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
