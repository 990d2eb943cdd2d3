"""The threat drift(t) in numbers: how far the code of the features S may move, and what that leaves a perturbation.

Theorem: drift (features). With u the change of the code and ||u|| <= T,

    w_i . delta = u_i / gain_i                              for features that cannot turn off within T,
    w_j . delta <= room_j + share_j max(u_j, 0) / gain_j    for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.sae.base import SAE
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.topk import TopKSAE

CLEARLY = 1e-9
"""Relative: how far above T a value must be in floats to be called one that cannot turn off; the checker decides it in
exact reals. It costs tightness, never soundness."""
Array = NDArray[np.float64]
Point = Literal["x", "h"]


@dataclass(frozen=True, eq=False)
class Drift:
    """What drift(t) leaves at one point; n features, those that no ball of the radius reaches left out.

    Attributes:
        point: where. most: T, positive.
        features: (n,). normals: (n, d) encoder columns. gain: (n,) value for a unit of normal . delta.
        fixed: (n,) which cannot turn off. room: (n,) and share: (n,) of the others.
    """

    point: Point
    most: float
    features: NDArray[np.integer]
    normals: Array
    gain: Array
    fixed: NDArray[np.bool_]
    room: Array
    share: Array

    @property
    def others(self) -> NDArray[np.integer]:
        """Features with half-spaces."""
        return self.features[~self.fixed]

    def only(self, kept: NDArray[np.bool_]) -> Drift:
        """The same for some features."""
        return Drift(
            *(self.point, self.most, self.features[kept], self.normals[kept], self.gain[kept]),
            *(self.fixed[kept], self.room[kept], self.share[kept]),
        )

    def reached(self, radius: float) -> Drift:
        """The same without half-spaces that a ball of this radius does not reach."""
        far = self.room >= radius * np.linalg.norm(self.normals, axis=1) * (1.0 + 1e-9)
        return self.only(self.fixed | ~far)

    def least_move(self, delta: Array) -> float:
        """The least ||u|| with which delta, (d,), is allowed; infinite when there is none."""
        moved = self.normals @ delta - np.where(self.fixed, 0.0, self.room)
        needed = np.where(self.fixed, np.abs(moved), np.maximum(moved, 0.0)) * self.gain
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.linalg.norm(np.where(needed > 0, needed / self.share, 0.0)))

    def dual(self, g: Array, radius: float, equal: Array, upper: Array) -> float:
        """What multipliers prove of g . delta: nu . room + T ||share (mu, nu) / gain|| + r ||g - W (mu, nu)||."""
        weights = np.zeros(len(self.features))
        weights[self.fixed], weights[~self.fixed] = equal, upper
        rest = float(np.linalg.norm(g - weights @ self.normals))
        moved = self.most * float(np.linalg.norm(weights * self.share / self.gain))
        return float(upper @ self.room[~self.fixed]) + moved + radius * rest


def drift_at(sae: SAE, features: tuple[int, ...], y: Array, share: float, point: Point) -> Drift | None:
    """What drift(share) leaves at a residual y, (d,); None when nothing may move.

    Raises:
        UnsupportedError: the SAE's normalisation is not linear.
    """
    index = np.array(features, dtype=np.intp)
    tensor = torch.from_numpy(y)
    scale = sae.normalization.linear_scale("the held set 'drift'")
    active, room = (part.numpy()[index] for part in sae.active_and_slack(tensor))
    value = sae.encode(tensor).numpy()[index]
    most = share * float(np.linalg.norm(value))
    if most == 0.0:
        return None
    factor, least = np.ones(len(index)), np.zeros(len(index))
    if isinstance(sae, GatedSAE):
        factor = np.exp(sae.r_mag.numpy()[index])
    elif isinstance(sae, TopKSAE) and sae.rescale_by_decoder_norm:
        factor = np.linalg.norm(sae.W_dec.numpy()[index], axis=1)
    elif isinstance(sae, JumpReLUSAE):
        least = np.maximum(sae.threshold.numpy()[index], 0.0)
    fixed = active & (value > most * (1.0 + CLEARLY))
    # A feature that turns on has a value above its threshold at once.
    shares = np.where(active, 1.0, np.maximum(1.0 - least / most, 0.0))
    # Others may push a feature of a TopK out, so that being off is no half-space there.
    kept = fixed if isinstance(sae, TopKSAE) else np.ones(len(index), dtype=bool)
    normals = sae.W_enc.numpy().T[index]
    return Drift(point, most, index, normals, factor * scale, fixed, np.where(active, 0.0, room), shares).only(kept)
