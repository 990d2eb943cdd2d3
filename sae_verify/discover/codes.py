"""Codes of many prompts as one matrix: at the last position, or pooled over each prompt's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.subject import Subject, chunks, residuals, words
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.problem import Prompt

Over = Literal["last", "max", "mean"]
"""The last position, or the largest or mean activation over the prompt's words (special tokens left out)."""


def codes(subject: Subject, prompts: Sequence[Prompt], over: Over = "last") -> Array:
    """Activations of every feature on every prompt, (prompts, d_sae) float64.

    Raises:
        InputError: `over` is unknown, or a prompt has no word. PromptError, TokenError: as `encode_prompts`.
    """
    if over not in get_args(Over):
        raise InputError(f"over is {over!r}", rule=f"it must be one of {', '.join(get_args(Over))}")
    encoded = subject.prompts(prompts)
    found = []
    for (_, some), resid in zip(chunks(encoded), residuals(subject, encoded), strict=True):
        rows = torch.arange(len(some))
        if over == "last":
            found.append(subject.sae.encode(resid[rows, some.last]))
            continue
        shown = words(subject, some)  # (n, T)
        if not bool(shown.any(dim=1).all()):
            raise InputError("a prompt has special tokens only", rule="pooling is over words", remedy="use over='last'")
        found.append(_pooled(subject.sae.encode(resid), shown, over))
    return torch.cat(found).double().numpy()


def _pooled(code: Tensor, shown: Tensor, over: str) -> Tensor:
    """(n, d_sae) from codes (n, T, d_sae) at the positions shown (n, T)."""
    if over == "max":
        return code.masked_fill(~shown[..., None], -torch.inf).amax(dim=1)
    return (code * shown[..., None]).sum(dim=1) / shown.sum(dim=1, keepdim=True)


def firing(code: Array) -> Array:
    """Share of the rows on which each feature is on, (d_sae,)."""
    return np.asarray((code != 0).mean(axis=0))
