"""Residuals to test at, from a language model's own prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.held_cell import Array
from sae_verify.model import Model, encode_prompts, run
from sae_verify.sae.base import SAE

MOST = 64
"""Residuals that are kept: the last positions first, then others at random."""


def prompt_residuals(
    sae: SAE, model: Model, prompts: Sequence[str | Sequence[int]], rng: np.random.Generator, *, hook: str | None = None
) -> Array:
    """Residuals at a hook point and all positions of some prompts, (n <= MOST, d) float64.

    Args:
        sae: that reads them.
        model: that makes them; one forward pass.
        prompts: texts, or lists of token ids.
        rng: of their order.
        hook: hook point; None takes the SAE's metadata.

    Raises:
        InputError: there is no hook point, or a prompt is refused. ShapeError: SAE and model differ in width.
    """
    named = hook or sae.source.hook_name
    if named is None:
        raise InputError("the SAE names no hook point", remedy="give one, for example blocks.6.hook_resid_post")
    tokens = encode_prompts(model, prompts)
    with torch.no_grad():
        resid = run(model, tokens, model.hook_point(named)).resid.double().cpu()  # (B, T, d)
    if resid.shape[-1] != sae.d_in:
        raise ShapeError(f"the SAE has width {sae.d_in} and the model {resid.shape[-1]}", rule="they must be equal")
    end = tokens.lengths.cpu() - 1
    last = resid[torch.arange(len(resid)), end].numpy()
    others = resid[torch.arange(resid.shape[1]) < end[:, None]].numpy()  # (n, d)
    return np.concatenate([rng.permutation(last), rng.permutation(others)])[:MOST]
