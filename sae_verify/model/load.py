"""Loading a Hugging Face causal language model: safetensors only, no remote code, nothing left at random."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_verify.errors import FileFormatError, InputError, UnsupportedError, WeightsError
from sae_verify.model.adapters import adapter_for
from sae_verify.model.adapters.options import check_options
from sae_verify.model.huggingface import optional
from sae_verify.model.language_model import Model
from sae_verify.model.model_files import read_config, resolve_directory, stored_dtypes

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_STORED = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_IGNORED = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Ends of stored names that are no weights: causal masks and frequency tables of older exports."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_model(
    path_or_id: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Model:
    """Load a causal language model of a supported architecture, ready to run.

    Args:
        path_or_id: directory with config.json and safetensors, or a hub id.
        dtype: float64, float32, bfloat16 or float16; what a run computes in. A float64 run stays in float64 also
            where the Hugging Face code drops to float32.
        device: where the weights are put.

    Raises:
        InputError: neither a directory nor an obtainable hub id; unknown dtype.
        FileFormatError: config or safetensors missing, truncated or incomplete; UnsafeFileError if only pickles.
        WeightsError: a weight is NaN or infinite in this dtype.
        UnsupportedError: architecture or configuration not modelled, or an optional package is missing.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype}", rule=f"a model runs in {', '.join(map(str, DTYPES))}")
    transformers = optional("transformers")
    directory = resolve_directory(path_or_id)
    raw_config = read_config(directory)
    adapter = adapter_for(raw_config.get("model_type"))
    own = raw_config.get("auto_map")
    names = [str(value).rpartition("--")[2] for value in own.values()] if isinstance(own, dict) else [""]
    built_in = all(name in adapter.own_code for name in names)  # "repository--file.Class", or without the first
    for key in ("auto_map", "quantization_config"):
        if raw_config.get(key) and not (key == "auto_map" and built_in):
            raise UnsupportedError(
                f"{directory / 'config.json'} has {key}",
                rule="models with their own code or quantised weights are not modelled",
                remedy="use a plain checkpoint of the architecture",
            )
    stored = stored_dtypes(directory)
    config = _read_config(transformers, directory)
    adapter.check(config)
    check_options(raw_config, config)
    module = _read_module(transformers, directory, dtype).to(device)
    _check_finite(module, dtype)
    module.eval()
    module.requires_grad_(False)
    return Model(
        module=module,
        tokenizer=_read_tokenizer(transformers, directory),
        adapter=adapter,
        path=directory,
        stored_exactly=all(
            kind in _STORED and torch.promote_types(_STORED[kind], dtype) == dtype
            for kind in {kind for name, kind in stored.items() if not name.endswith(_IGNORED)}
        ),
    )


def _read_config(transformers: Any, directory: Path) -> Any:
    """Return the configuration with the architecture's defaults filled in."""
    try:
        return transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the validator's own error types differ between versions
        raise FileFormatError(
            f"{directory / 'config.json'} is refused by transformers: {error}",
            rule="it must be a valid configuration of its model_type",
            remedy="export the model again with save_pretrained",
        ) from error


def _read_module(transformers: Any, directory: Path, dtype: torch.dtype) -> nn.Module:
    modern = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56)
    try:
        with _no_progress_bar(transformers):
            module, report = transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **{"dtype" if modern else "torch_dtype": dtype},
            )
    except Exception as error:  # the loader's own error types differ between versions
        raise FileFormatError(
            f"{directory} cannot be loaded: {error}",
            rule="config.json and the safetensors must describe one model",
            remedy="export it again with save_pretrained",
        ) from error
    missing = sorted(map(str, report["missing_keys"]))
    unused = sorted(name for name in map(str, report["unexpected_keys"]) if not name.endswith(_IGNORED))
    unfit = sorted(map(str, report.get("mismatched_keys") or ()))
    for names, problem in (
        (missing, "lack"),
        (unused, "have, unused by the model,"),
        (unfit, "have a wrong shape for"),
    ):
        if names:
            raise FileFormatError(
                f"the safetensors in {directory} {problem} {', '.join(names[:5])} ({len(names)} in all)",
                rule="they must hold exactly the model's weights",
                remedy="check that config.json belongs to them",
            )
    return module


@contextlib.contextmanager
def _no_progress_bar(transformers: Any) -> Iterator[None]:
    """Hide 'Loading weights', and leave the process-wide settings of both packages as they were."""
    logging, hub = transformers.utils.logging, optional("huggingface_hub").utils
    shown, hub_shown = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    if not shown:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if not hub_shown:
            hub.disable_progress_bars()


def _check_finite(module: nn.Module, dtype: torch.dtype) -> None:
    for name, weight in module.named_parameters():
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise WeightsError(
                f"{name} has {bad} of {weight.numel()} values that are NaN or infinite in {dtype}",
                rule="weights must be finite",
                remedy="check the download, or load in a wider dtype",
            )


def _read_tokenizer(transformers: Any, directory: Path) -> Any:
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception
        raise FileFormatError(
            f"the tokenizer in {directory} cannot be loaded: {error}",
            rule="tokenizer files must be complete, and their optional packages installed",
            remedy="download them again, or remove them and give prompts as token ids",
        ) from error
