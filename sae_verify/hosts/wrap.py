"""A language model that the user already holds, in whichever library, as a `Model` to certify."""

from __future__ import annotations

from typing import Any

from sae_verify.errors import InputError
from sae_verify.hosts.lens import wrap_bridge, wrap_hooked
from sae_verify.hosts.plain import Files, wrap_plain
from sae_verify.model import Model

HOSTS = {
    "Hugging Face transformers": "PreTrainedModel",
    "TransformerLens": "HookedTransformer, TransformerBridge",
    "SAELens": "HookedSAETransformer, SAETransformerBridge",
    "nnsight": "LanguageModel, TransformersModel",
}
"""Supported classes by library, none of which is imported unless the user has."""


def wrap_model(held: Any, *, path: Files = None, tokenizer: Any = None) -> Model:
    """Take a model that is already in memory.

    What is certified is always the Hugging Face model of the files: the held one must be it, weight for weight. The
    run keeps its dtype and device. A Hugging Face or nnsight model shares its memory; for the others the files are
    loaded beside it.

    Args:
        held: a transformers causal language model, TransformerLens `HookedTransformer` or `TransformerBridge`, SAELens
            `HookedSAETransformer`, nnsight `LanguageModel`, or what `load_model` gave.
        path: directory or hub id of its files; None takes what the model itself says. False: no files (only for Hugging
            Face and nnsight models); it can be run and attacked, but not certified.
        tokenizer: None takes the model's own, or the one beside the files.

    Raises:
        InputError: not such a model; no files; weights that were changed or rewritten since they were loaded.
        UnsupportedError: an architecture or configuration that is not modelled.
    """
    if isinstance(held, Model):
        return held
    classes = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(held).__mro__}
    if ("transformer_lens", "HookedTransformer") in classes:
        return wrap_hooked(held, path, tokenizer)
    if ("transformer_lens", "TransformerBridge") in classes:
        return wrap_bridge(held, path, tokenizer)
    if ("nnsight", "NNsight") in classes or ("nnsight", "Envoy") in classes:
        return wrap_plain(_within(held), path, tokenizer or getattr(held, "tokenizer", None))
    if ("transformers", "PreTrainedModel") in classes:
        return wrap_plain(held, path, tokenizer)
    raise InputError(
        f"the model is a {type(held).__module__}.{type(held).__qualname__}",
        rule=f"models are taken from {', '.join(HOSTS)}",
        remedy="pass the Hugging Face model within it",
    )


def _within(held: Any) -> Any:
    """The Hugging Face model that nnsight traces; loaded, if it was not yet."""
    if getattr(held, "dispatched", True) is False:
        raise InputError(
            "nnsight has not loaded the weights yet",
            rule="weights are compared with the files",
            remedy="make it with dispatch=True, or call model.dispatch()",
        )
    return held._module
