"""Matryoshka SAEs: the first features of the dictionary are a dictionary of their own (arXiv 2503.17547).

The whole of one runs as its activation says (JumpReLU with one threshold, as a rule); `nested` cuts it down.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.sae.base import SAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.relu import ReLUSAE

Kind = TypeVar("Kind", bound=SAE)


def nested(sae: Kind, width: int) -> Kind:
    """Return the SAE of the first `width` features, with the same biases of the input.

    Raises:
        InputError: width is not from 1 to d_sae.
        UnsupportedError: features compete for their places, so that the first ones alone would act differently.

    """
    if not isinstance(sae, (JumpReLUSAE, ReLUSAE)):
        raise UnsupportedError(
            f"the first features of a {type(sae).__name__}", rule="only features that do not compete can be cut out"
        )
    if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= sae.d_sae:
        raise InputError(f"width is {width!r}", rule=f"it must be an integer from 1 to d_sae = {sae.d_sae}")
    vectors = {name: t[:width] for name, t in sae.tensors().items() if name not in ("W_enc", "W_dec", "b_dec")}
    source = dataclasses.replace(sae.source, format="memory", path=None)
    return dataclasses.replace(sae, W_enc=sae.W_enc[:, :width], W_dec=sae.W_dec[:width], source=source, **vectors)
