"""Options of config.json that nothing here reads: off, known to change no logit, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sae_verify.errors import UnsupportedError

_HARMLESS = frozenset(
    """
    _attn_implementation attn_implementation cache_implementation do_sample early_stopping flash_attn
    gradient_checkpointing is_llama_config length_penalty max_length max_new_tokens min_length model_max_length n_ctx
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences prefix repetition_penalty summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params temperature
    tokenizer_class top_k top_p torch_dtype dtype transformers_version typical_p use_cache use_flash_attn
    unsloth_fixed unsloth_version architectures auto_map model_type
    """.split()  # noqa: SIM905 - readable, at this length
)
"""Change how tokens are chosen, how fast or where the model runs, or nothing."""

_OLDER = frozenset(
    """
    hidden_act hidden_activation partial_rotary_factor rope_local_base_freq rope_scaling rope_theta rotary_emb_base
    rotary_pct sliding_window_pattern
    """.split()  # noqa: SIM905 - readable, at this length
)
"""Older names, which transformers reads into today's settings."""


def check_options(raw: Mapping[str, Any], config: Any) -> None:
    """Refuse what the architecture's own code does not read either, unless it is off.

    An option that today's code ignores was meant for another one: the model that would run is not the one that was
    trained.

    Args:
        raw: config.json.
        config: what transformers made of it.

    Raises:
        UnsupportedError: names the key.
    """
    read = set(_HARMLESS | _OLDER | set(getattr(type(config), "attribute_map", {})))
    for kind in type(config).__mro__:
        if kind is not object:
            read |= set(inspect.signature(kind).parameters) | set(getattr(kind, "__annotations__", {}))
    for key, value in raw.items():
        if key not in read and not key.startswith("_") and value not in (None, False, 0, "", [], {}):
            raise UnsupportedError(
                f"config.json has {key} = {str(value)[:80]!r}, which transformers ignores for {config.model_type}",
                rule="an option that is ignored may change what the model was trained to compute",
                remedy="remove it from config.json if it changes nothing, or use a newer transformers",
            )
