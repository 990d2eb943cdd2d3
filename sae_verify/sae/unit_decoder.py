"""The same SAE with decoder rows of length one, and codes in units to match."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import torch

from sae_verify.errors import UnsupportedError, WeightsError
from sae_verify.sae.base import SAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.relu import ReLUSAE

Kind = TypeVar("Kind", bound=SAE)


def unit_decoder(sae: Kind) -> Kind:
    """Return d_j / |d_j| for every decoder row, with column, bias and threshold of its encoder times |d_j|.

    The reconstruction stays, up to rounding; codes are then the lengths of what they write. It is an SAE in memory:
    save it before a certificate speaks of it.

    Raises:
        UnsupportedError: features compete, or a gate has units of its own.
        WeightsError: a decoder row is zero.

    """
    if not isinstance(sae, (ReLUSAE, JumpReLUSAE)):
        raise UnsupportedError(f"unit decoder rows of a {type(sae).__name__}", rule="only relu and jumprelu scale so")
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)  # (d_sae,)
    if bool((norms == 0).any()):
        raise WeightsError(f"W_dec has {int((norms == 0).sum())} rows of length zero", rule="they have no direction")
    vectors = {name: t * norms for name, t in sae.tensors().items() if name in ("b_enc", "threshold")}
    source = dataclasses.replace(sae.source, format="memory", path=None, notes=(*sae.source.notes, "unit decoder rows"))
    return dataclasses.replace(sae, W_enc=sae.W_enc * norms, W_dec=sae.W_dec / norms[:, None], source=source, **vectors)
