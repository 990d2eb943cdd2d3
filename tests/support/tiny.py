"""Tiny random models and SAEs on disk, small enough that a test can certify dozens of problems in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig

from sae_verify.sae import SAE, GatedSAE, JumpReLUSAE, Normalization, ReLUSAE, Source, TopKSAE, save_sae

FAMILIES = ("gpt2", "llama", "gemma2")
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")


def tiny_model(
    directory: Path,
    family: str = "llama",
    *,
    d: int = 8,
    layers: int = 1,
    vocabulary: int = 20,
    seed: int = 0,
    tied: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a random model whose every part matters: gains, biases and a large epsilon are far from their defaults.

    Args:
        directory: created.
        family: gpt2 (LayerNorm), llama (RMSNorm) or gemma2 (RMSNorm with a unit offset).
        d: width, a multiple of 4.
        layers: number of blocks.
        vocabulary: number of tokens.
        seed: of the weights.
        tied: whether the unembedding is the embedding; None takes the family's default.
        dtype: that is stored.

    Returns:
        The directory.
    """
    ties: dict[str, Any] = {} if tied is None else {"tie_word_embeddings": tied}
    if family == "gpt2":
        config: Any = GPT2Config(
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
    else:
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
        config = LlamaConfig(**common) if family == "llama" else Gemma2Config(**common, sliding_window=4)
    generator = torch.Generator().manual_seed(seed)
    module = AutoModelForCausalLM.from_config(config)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = parameter.ndim == 1 and "bias" not in name and family != "gemma2"
        parameter.data = 0.3 * noise + 1.0 if gain else (0.3 if parameter.ndim == 1 else d**-0.5) * noise
    module.to(dtype).save_pretrained(directory)
    return directory


def tiny_sae(
    directory: Path,
    architecture: str = "jumprelu",
    *,
    d: int = 8,
    m: int = 24,
    k: int = 4,
    hook: str = "blocks.0.hook_resid_post",
    seed: int = 0,
    normalization: Normalization | None = None,
    subtract: bool = True,
    bias: float = -0.6,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a random SAE in SAELens format.

    Args:
        directory: created.
        architecture: relu, jumprelu, topk, topk-rescaled or gated.
        d: width of the residual stream.
        m: number of features.
        k: for TopK.
        hook: recorded in the metadata.
        seed: of the weights.
        normalization: None for none.
        subtract: whether b_dec is subtracted from the input.
        bias: mean of the encoder's biases; the lower, the fewer features are on.
        dtype: that is stored.

    Returns:
        The directory.
    """
    return save_sae(
        random_sae(
            architecture,
            d=d,
            m=m,
            k=k,
            hook=hook,
            seed=seed,
            normalization=normalization,
            subtract=subtract,
            bias=bias,
            dtype=dtype,
        ),
        directory,
    )


def random_sae(
    architecture: str,
    *,
    d: int,
    m: int,
    k: int,
    hook: str,
    seed: int,
    normalization: Normalization | None,
    subtract: bool,
    bias: float,
    dtype: torch.dtype,
) -> SAE:
    """The same in memory."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    common: dict[str, Any] = {
        "W_enc": rand(d, m) * d**-0.5,
        "W_dec": rand(m, d) * d**-0.5,
        "b_dec": 0.3 * rand(d),
        "subtract_b_dec": subtract,
        "source": Source(hook_name=hook),
    }
    if normalization is not None:
        common["normalization"] = normalization
    offset = 0.3 * rand(m) + bias
    if architecture == "gated":
        return GatedSAE(**common, b_gate=offset, b_mag=0.3 * rand(m) + 0.5, r_mag=0.3 * rand(m))
    if architecture == "relu":
        return ReLUSAE(**common, b_enc=offset)
    if architecture == "jumprelu":
        return JumpReLUSAE(**common, b_enc=offset, threshold=0.4 * rand(m) + 0.2)  # some are negative
    return TopKSAE(**common, b_enc=offset, k=k, rescale_by_decoder_norm=architecture == "topk-rescaled")
