"""A plain Hugging Face model that its user holds, taken as it was loaded, sharing its weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.model import Model, load_model
from sae_verify.model.adapters import adapter_for
from sae_verify.model.adapters.options import check_options
from sae_verify.model.load import DTYPES

Files = str | Path | Literal[False] | None
"""Where a model's files are: a directory or hub id; None to ask the model; False for none."""


def wrap_plain(module: Any, path: Files = None, tokenizer: Any = None) -> Model:
    """A `Model` with the weights of `module`, which is left alone: no hook, mode or setting of it is changed.

    The architecture is built anew around the same tensors, so hooks, patched methods and the attention implementation
    of `module` have no part in it.

    Args:
        module: a transformers causal language model of a supported architecture, on one device and in one dtype.
        path: its files, needed for certificates. They are loaded once, and every weight is compared.
        tokenizer: None takes the one beside the files.

    Raises:
        InputError: hooks of the user's; weights or settings that differ from the files; files that cannot be found.
        UnsupportedError: an architecture, configuration or device placement that is not modelled.
    """
    dtype, device = _placed(module)
    adapter = adapter_for(module.config.model_type)
    adapter.check(module.config)
    check_options(module.config.to_dict(), module.config)
    _check_untouched(module)
    stored, exactly, found = None, False, tokenizer
    named = getattr(module.config, "_name_or_path", "") if path is None else path
    if named is not False:
        if not named:
            raise InputError(
                "the model does not say which files it was loaded from",
                rule="a certificate speaks of stored weights",
                remedy="save it with save_pretrained and pass path=DIRECTORY, or pass path=False: it can then be run "
                "and attacked, but not certified",
            )
        reference = load_model(named, dtype=dtype, device=device)
        _check_same(module, reference)
        stored, exactly = reference.path, reference.stored_exactly
        found = reference.tokenizer if tokenizer is None else tokenizer
    return Model(_rebuilt(module), found, adapter, stored, exactly)


def _placed(module: Any) -> tuple[torch.dtype, torch.device]:
    """The one dtype and device of all weights."""
    dtypes = {weight.dtype for weight in module.parameters()}
    devices = {weight.device for weight in module.parameters()}
    if len(dtypes) != 1 or len(devices) != 1 or torch.device("meta") in devices or not dtypes <= set(DTYPES):
        raise UnsupportedError(
            f"the model's weights have dtypes {sorted(map(str, dtypes))} on {sorted(map(str, devices))}",
            rule=f"they are on one device, loaded, and of one dtype, one of {', '.join(map(str, DTYPES))}",
            remedy="load it with device_map=None and one dtype",
        )
    return dtypes.pop(), devices.pop()


def _check_untouched(module: nn.Module) -> None:
    """Refuse hooks of the user's: what they do would silently not be certified."""
    for name, part in module.named_modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for hook in hooks.values():
                if not str(getattr(hook, "__module__", "")).startswith(("transformers.", "accelerate.")):
                    raise InputError(
                        f"{name or 'the model'} has a forward hook, {getattr(hook, '__qualname__', hook)}",
                        rule="a verdict is about the model itself; what hooks change is not part of it",
                        remedy="remove the hook, and describe the intervention as a clamp",
                    )


def _check_same(module: nn.Module, reference: Model) -> None:
    """Refuse weights or settings that are not those of the files."""
    mine, stored = _weights(module), _weights(reference.module)
    odd = sorted(mine.keys() ^ stored.keys())
    if odd:
        raise InputError(
            f"the model has other weights than {reference.path}: {', '.join(odd[:5])} ({len(odd)} in all)",
            rule="it must be the model of these files",
            remedy="merge adapters (merge_and_unload), save it with save_pretrained and pass path=DIRECTORY",
        )
    changed = [name for name, weight in mine.items() if not torch.equal(weight, stored[name])]
    if changed:
        raise InputError(
            f"{', '.join(changed[:5])} ({len(changed)} weights in all) are not those in {reference.path}",
            rule="a certificate speaks of the stored weights, bit for bit in the model's dtype",
            remedy="save the model with save_pretrained and pass path=DIRECTORY, or pass path=False to only attack it",
        )
    settings = [_settings(part.config) for part in (module, reference.module)]
    differ = sorted(
        key for key in settings[0].keys() | settings[1].keys() if settings[0].get(key) != settings[1].get(key)
    )
    if differ:
        raise InputError(
            f"the model's configuration and {reference.path}'s differ in {', '.join(differ[:5])}",
            rule="they must be the same model",
            remedy="save the model with save_pretrained and pass path=DIRECTORY",
        )


_NO_ALGEBRA = frozenset(
    """
    _name_or_path transformers_version dtype torch_dtype architectures use_cache _attn_implementation
    attn_implementation output_hidden_states output_attentions return_dict pad_token_id bos_token_id eos_token_id
    attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop id2label label2id problem_type
    """.split()  # noqa: SIM905 - readable, at this length
)
"""Settings that change no logit of a model in eval mode."""


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _NO_ALGEBRA}


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters(remove_duplicate=False)}


def _rebuilt(module: Any) -> nn.Module:
    """The same architecture around the same tensors, with eager attention and without gradients."""
    config = copy.deepcopy(module.config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        new: Any = type(module)(config)
    mine = dict(module.named_parameters(remove_duplicate=False))
    shared: dict[int, nn.Parameter] = {}  # tied weights stay one parameter
    for name, weight in mine.items():
        parent, _, leaf = name.rpartition(".")
        kept = shared.setdefault(id(weight), nn.Parameter(weight.detach(), requires_grad=False))
        setattr(_part(new, parent, name), leaf, kept)
    for name, buffer in module.named_buffers():
        parent, _, leaf = name.rpartition(".")
        setattr(_part(new, parent, name), leaf, buffer.detach().clone())  # rotary tables may be changed in a run
    left = [name for name, tensor in (*new.named_parameters(), *new.named_buffers()) if tensor.is_meta]
    if left or _weights(new).keys() != mine.keys():
        raise UnsupportedError(
            f"the model's parts are not those of its class: {', '.join(left[:5]) or 'it has more weights'}",
            rule="it must be an unmodified transformers model",
            remedy="merge adapters (merge_and_unload), or save it with save_pretrained and load that",
        )
    return new.eval()


def _part(module: nn.Module, path: str, name: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise UnsupportedError(
            f"the model has {name}, which its class has not",
            rule="it must be an unmodified transformers model",
            remedy="merge adapters (merge_and_unload), or save it with save_pretrained and load that",
        ) from None
