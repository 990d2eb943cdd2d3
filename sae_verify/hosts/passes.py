"""Which token of which prompt each column of a forward pass is, also in generation with a cache and with padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sae_verify.errors import UnsupportedError


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass.

    Attributes:
        place: (B, T) int64, position of each column among the real tokens of its row, cached ones included; -1 for
            padding.
        cached: positions that the cache already held.
    """

    place: Tensor
    cached: int


def watch_passes(body: nn.Module, tell: Callable[[Pass], None]) -> RemovableHandle:
    """Call `tell` at the start of every forward pass of a Hugging Face decoder, until the handle is removed.

    Raises (in the pass):
        UnsupportedError: the attention mask does not say what is padding.
    """
    signature = inspect.signature(body.forward)

    def pre_hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell(_read(signature.bind_partial(*args, **kwargs).arguments))

    return body.register_forward_pre_hook(pre_hook, with_kwargs=True)


def _read(arguments: dict[str, Any]) -> Pass:
    arguments = {**arguments, **arguments.get("kwargs", {})}
    tokens = arguments.get("input_ids")
    shown = arguments.get("inputs_embeds") if tokens is None else tokens
    assert shown is not None  # else the model itself refuses
    batch, width = shown.shape[:2]
    cached = _cached(arguments.get("past_key_values"))
    mask, ids = arguments.get("attention_mask"), arguments.get("position_ids")
    columns = torch.arange(width, device=shown.device)  # (T,)
    if mask is None:
        return Pass((columns + cached).expand(batch, width), cached)
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape == (batch, cached + width):
        real = mask.to(device=shown.device, dtype=torch.int64) != 0
        place = real.cumsum(1) - 1
        return Pass(place.masked_fill(~real, -1)[:, cached:], cached)
    if isinstance(ids, Tensor) and ids.ndim == 2 and ids.shape[1] == width:
        # generate() with a compiled or static cache: the mask is worked out already. Its padding is on the left, so
        # that positions count up to the last column.
        place = ids[:, -1:].to(shown.device) - columns.flip(0)
        return Pass(torch.where(place >= 0, place, -1).expand(batch, width), cached)
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise UnsupportedError(
        f"the attention mask is {shape} for {cached} cached and {width} new tokens of {batch} prompts",
        rule="clamp and perturbation are put at positions, which a mask of shape (prompts, tokens so far) tells",
        remedy="pass the tokenizer's attention_mask, of all tokens so far, or position_ids",
    )


def _cached(cache: Any) -> int:
    """Tokens that a cache holds: an object of newer releases, tuples of keys and values in older ones."""
    if cache is None:
        return 0
    if isinstance(cache, tuple):
        return int(cache[0][0].shape[-2])
    return int(cache.get_seq_length())
