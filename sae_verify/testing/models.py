"""Tiny random transformers of every supported architecture, whose every part matters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sae_verify.errors import InputError
from sae_verify.model import Model, load_model
from sae_verify.model.huggingface import optional

FAMILIES = ("gpt2", "llama", "gemma2")


def write_model(
    directory: str | Path,
    family: str = "llama",
    *,
    d: int = 8,
    layers: int = 1,
    vocabulary: int = 20,
    seed: int = 0,
    tied: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a random model in Hugging Face's format; gains, biases and a large epsilon are far from their defaults.

    Args:
        directory: created.
        family: gpt2 (LayerNorm), llama (RMSNorm) or gemma2 (RMSNorm with a unit offset, soft-caps, sliding window).
        d: width, a multiple of 4.
        layers: number of blocks.
        vocabulary: number of tokens; there is no tokenizer, prompts are lists of token ids.
        seed: of the weights.
        tied: whether the unembedding is the embedding; None takes the family's default.
        dtype: that is stored.

    Raises:
        InputError: an unknown family or width. UnsupportedError: transformers is not installed.
    """
    if family not in FAMILIES or d < 4 or d % 4:
        raise InputError(
            f"family {family!r}, d {d}", rule=f"one of {', '.join(FAMILIES)}, and a positive multiple of 4"
        )
    transformers = optional("transformers")
    ties: dict[str, Any] = {} if tied is None else {"tie_word_embeddings": tied}
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": d,
        "intermediate_size": 2 * d,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": d // 2,
        "max_position_embeddings": 32,
        "rms_norm_eps": 0.01,
        **ties,
    }
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=32,
            n_embd=d,
            n_layer=layers,
            n_head=2,
            layer_norm_epsilon=0.01,
            bos_token_id=0,
            eos_token_id=0,
            **ties,
        )
    elif family == "llama":
        config = transformers.LlamaConfig(**common)
    else:
        config = transformers.Gemma2Config(**common, sliding_window=4)
    generator = torch.Generator().manual_seed(seed)
    module = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = parameter.ndim == 1 and "bias" not in name and family != "gemma2"
        parameter.data = 0.3 * noise + 1.0 if gain else (0.3 if parameter.ndim == 1 else d**-0.5) * noise
    module.to(dtype).save_pretrained(directory)
    return Path(directory)


@cache
def tiny_model(family: str = "llama", d: int = 8, layers: int = 1, seed: int = 0, tied: bool | None = None) -> Model:
    """The same, loaded; the same object on every call, its files in a temporary directory that lives as long as it.

    Raises:
        InputError, UnsupportedError: as `write_model`.
    """
    folder = TemporaryDirectory(prefix="sae_verify_tiny_")
    model = load_model(write_model(folder.name, family, d=d, layers=layers, seed=seed, tied=tied))
    _FOLDERS.append(folder)
    return model


_FOLDERS: list[TemporaryDirectory[str]] = []
"""Removed when the process ends."""
