"""A clamp applied to residuals, in the delta form `h = x + (z' - z) W_dec`, which keeps the error term."""

from __future__ import annotations

import torch
from torch import Tensor

from sae_verify.errors import UnsupportedError
from sae_verify.problem import Clamp
from sae_verify.sae.base import SAE


def clamped(sae: SAE, clamp: Clamp, x: Tensor) -> Tensor:
    """The defended state of each position.

    Args:
        sae: the SAE, in the dtype to compute in.
        clamp: kind, features and values; its positions are not looked at here.
        x: residuals, (..., d_in).

    Returns:
        h, (..., d_in), in the SAE's dtype.

    Raises:
        UnsupportedError: it is no SAE but a transcoder.

    """
    if not isinstance(sae, SAE):
        raise UnsupportedError(
            f"a clamp on a {type(sae).__name__}",
            rule="the error term is what an SAE leaves of its own input, and a transcoder predicts another place",
            remedy="use an SAE of the residual stream",
        )
    code = sae.encode(x)  # (..., d_sae)
    index = torch.tensor(clamp.features, dtype=torch.long, device=code.device)
    values = torch.tensor(clamp.values, dtype=code.dtype, device=code.device)
    z = code[..., index]  # (..., n)
    if clamp.kind == "add":
        new = z + values
    elif clamp.kind == "scale":
        new = z * values
    elif clamp.kind == "set-if-active":
        new = torch.where(z != 0, values, z)
    else:  # set, drop-error
        new = values.expand_as(z)
    if clamp.kind == "drop-error":
        return sae.decode(code.index_copy(-1, index, new), x)
    change = torch.zeros_like(code).index_copy(-1, index, new - z)
    return x.to(code.dtype) + sae.write(change, x)


def clamp_positions(clamp: Clamp, lengths: Tensor, width: int) -> Tensor:
    """Where the clamp acts in a right-padded batch: bool, (prompts, width)."""
    place = torch.arange(width, device=lengths.device)  # (width,)
    if clamp.positions == "all":
        return torch.ones(len(lengths), width, dtype=torch.bool, device=lengths.device)
    if clamp.positions == "last":
        return place == (lengths - 1)[:, None]
    chosen = torch.tensor(clamp.positions, device=lengths.device)
    return torch.isin(place, chosen).expand(len(lengths), width)


def apply_clamp(sae: SAE, clamp: Clamp, x: Tensor, lengths: Tensor) -> Tensor:
    """The clamp on a batch of residuals, (prompts, width, d), at its positions; x elsewhere, in x's dtype."""
    where = clamp_positions(clamp, lengths, x.shape[1])
    return torch.where(where[..., None], clamped(sae, clamp, x).to(x.dtype), x)
