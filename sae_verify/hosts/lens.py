"""TransformerLens models, and those of SAELens, which are the same: certified as the Hugging Face model that they are.

Both libraries may rewrite weights (fold norms, centre what is written) so that the residual stream, and what an SAE
reads of it, is another one. So the weights are compared with the files, bit for bit, and the logits on a probe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.hosts.plain import Files
from sae_verify.model import Model, encode_prompts, load_model

_CONVERSIONS = {
    "gpt2": "convert_gpt2_weights",
    "gpt_neox": "convert_neox_weights",
    "llama": "convert_llama_weights",
    "mistral": "convert_mistral_weights",
    "qwen2": "convert_qwen2_weights",
    "qwen3": "convert_qwen3_weights",
    "phi3": "convert_phi3_weights",
    "gemma2": "convert_gemma_weights",
    "gemma3_text": "convert_gemma_weights",
}
"""TransformerLens's own functions from a Hugging Face model to its weights, by architecture."""

_PROBE = 48
"""Tokens that are compared."""

_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Differences of logits, in units of the largest, that other orders of the same operations may show."""


def wrap_hooked(held: Any, path: Files = None, tokenizer: Any = None) -> Model:
    """The Hugging Face model that a `HookedTransformer` (or `HookedSAETransformer`) is, loaded from its files.

    Raises:
        InputError: no files; rewritten weights, or SAEs that are switched on; logits that differ.
        UnsupportedError: an architecture that is not modelled.
    """
    config = held.cfg
    if getattr(held, "acts_to_saes", None) or getattr(held, "_acts_to_saes", None):
        raise InputError(
            "the model runs with SAEs spliced in", rule="a verdict is about the model itself", remedy="reset_saes()"
        )
    if str(config.normalization_type).endswith("Pre"):
        raise _rewritten(
            "its norms are folded into the next weights", f"normalization_type {config.normalization_type}"
        )
    reference = _reference(
        path, [config.tokenizer_name, config.model_name], config.dtype, _device(held), tokenizer or held.tokenizer
    )
    converted = _converted(reference, config)
    mine = held.state_dict()
    for name, weight in converted.items():
        if name in mine and not torch.equal(mine[name].to(weight.dtype), weight.to(mine[name].device)):
            what = "centred: what is written to the residual stream has mean zero" if _centred(mine) else "other ones"
            raise _rewritten(f"its weights are {what}", name)
    _same_logits(reference, held)
    return reference


def wrap_bridge(held: Any, path: Files = None, tokenizer: Any = None) -> Model:
    """The same for a `TransformerBridge` (or `SAETransformerBridge`).

    Raises:
        InputError, UnsupportedError: as `wrap_hooked`.
    """
    if getattr(held, "_acts_to_saes", None):
        raise InputError(
            "the model runs with SAEs spliced in", rule="a verdict is about the model itself", remedy="reset_saes()"
        )
    inner = held.original_model
    names = [getattr(inner.config, "_name_or_path", ""), held.cfg.model_name]
    dtype = next(inner.parameters()).dtype
    reference = _reference(path, names, dtype, _device(inner), tokenizer or held.tokenizer)
    twin = type(held).boot_transformers(
        str(reference.path),
        hf_model=_copy(reference),
        tokenizer=reference.tokenizer,
        dtype=dtype,
        device=_device(inner),
    )
    mine, theirs = held.state_dict(), twin.state_dict()
    for name, weight in theirs.items():
        if name not in mine or not torch.equal(mine[name].to(weight.device), weight):
            raise _rewritten("its weights are not those of the files", name)
    _same_logits(reference, held)
    return reference


def _copy(reference: Model) -> Any:
    """The bridge takes the module apart; it gets one of its own."""
    assert reference.path is not None  # it was loaded from there
    return load_model(reference.path, dtype=reference.dtype, device=reference.device).module


def _reference(path: Files, names: list[Any], dtype: torch.dtype, device: torch.device, tokenizer: Any) -> Model:
    if path is False:
        raise InputError(
            "path is False", rule="this model is compared with its Hugging Face files", remedy="pass path=DIRECTORY"
        )
    named = next((name for name in names if name), None) if path is None else path
    if named is None:
        raise InputError(
            "the model does not say which Hugging Face files it was loaded from",
            rule="a certificate speaks of stored weights",
            remedy="pass path=, a directory or hub id",
        )
    loaded = load_model(named, dtype=dtype, device=device)
    return Model(loaded.module, tokenizer, loaded.adapter, loaded.path, loaded.stored_exactly)


def _converted(reference: Model, config: Any) -> dict[str, Tensor]:
    """What TransformerLens makes of the files."""
    from transformer_lens.pretrained import weight_conversions  # pyright: ignore[reportMissingImports]

    name = _CONVERSIONS.get(reference.family)
    convert = None if name is None else getattr(weight_conversions, name, None)
    if convert is None:
        raise UnsupportedError(
            f"this TransformerLens has no HookedTransformer for {reference.family}",
            rule="its weights are compared with the files",
            remedy="use TransformerBridge, or the Hugging Face model itself",
        )
    with torch.no_grad():
        return {key: value.detach() for key, value in convert(reference.module, config).items()}


def _centred(weights: dict[str, Tensor]) -> bool:
    """Whether the rows of the embedding have mean zero."""
    embedding = weights["embed.W_E"].double()
    return bool(embedding.mean(-1).abs().max() < 1e-4 * embedding.abs().mean())


def _rewritten(what: str, where: str) -> InputError:
    return InputError(
        f"this model is not the Hugging Face model: {what} ({where})",
        rule="an SAE reads, and a certificate speaks of, the residual stream of the stored weights",
        remedy="load it with from_pretrained_no_processing (a bridge: without enable_compatibility_mode), or pass the "
        "Hugging Face model itself",
    )


def _same_logits(reference: Model, held: Any) -> None:
    """Compare the logits on random tokens: settings may differ where weights do not."""
    length = min(_PROBE, reference.max_length, int(held.cfg.n_ctx))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(reference.d_vocab, (2, length), generator=generator)
    prompts = encode_prompts(reference, tokens.tolist())
    with torch.no_grad():
        theirs = held(tokens.to(prompts.tokens.device), return_type="logits").double()
        module: Any = reference.module
        mine = module(input_ids=prompts.tokens, use_cache=False).logits.double()
    gap, size = float((mine - theirs.to(mine.device)).abs().max()), float(mine.abs().max())
    if not gap <= _CLOSE[reference.dtype] * size:
        raise InputError(
            f"with the same weights its logits differ from the Hugging Face model's by {gap:.3g} (of up to {size:.3g})",
            rule="it must compute the same function",
            remedy="use the Hugging Face model, or TransformerBridge; sliding windows and rotary settings are what "
            "HookedTransformer leaves out for some models",
        )


def _device(module: Any) -> torch.device:
    return next(iter(module.parameters())).device
