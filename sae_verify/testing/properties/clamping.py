"""What the statements about clamps share: the code that a clamp writes, and how long what it writes is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.problem import Clamp, ClampKind
from sae_verify.sae.base import SAE
from sae_verify.testing.rounding import lengths

Clamped = Callable[[SAE, Clamp, torch.Tensor], torch.Tensor]

DELTA_FORM: tuple[ClampKind, ...] = ("set", "scale", "set-if-active", "add")
"""Kinds that keep the error term."""
CLAMPS = 6
"""Clamps tried in one attempt."""


def after_clamp(setting: Clamp, code: Array) -> Array:
    """The code that a clamp writes, by the definition of its kind, (m,)."""
    new = code.copy()
    for feature, value in zip(setting.features, setting.values, strict=True):
        z = code[feature]
        new[feature] = {
            "add": z + value,
            "scale": z * value,
            "set-if-active": value if z != 0 else z,
        }.get(setting.kind, value)
    return new


def written_lengths(sae: SAE, features: Sequence[int]) -> Array:
    """What a unit of each code writes, in length, before the normalisation's factor, (n,)."""
    some = list(features)
    units = sae._decoder_units(torch.ones(sae.d_sae, dtype=torch.float64)).numpy()[some]
    return lengths(sae).decoder[some] * units


def shown(setting: Clamp, x: Array) -> dict[str, object]:
    """A clamp at a residual as a witness."""
    return {"clamp": setting.kind, "features": list(setting.features), "values": list(setting.values), "x": x}
