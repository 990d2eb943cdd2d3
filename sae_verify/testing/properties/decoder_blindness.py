"""decoder-blindness: a clamp on S moves the residual within the span of the decoder rows of S, and nowhere else.

With S all features: the part of the residual that is orthogonal to every decoder row is out of the features' reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.subspace import Subspace, complement
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import clamped
from sae_verify.testing.inputs import clamp
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.clamping import CLAMPS, DELTA_FORM, Clamped, after_clamp, shown, written_lengths
from sae_verify.testing.rounding import TINY, gamma, lengths, norm, span, wide

SMALL = 1e-6
"""Singular values up to this share of the largest count as zero, as the package's `complement` is told: what a code of
length c writes there may be SMALL c times the largest."""


@dataclass(frozen=True)
class DecoderBlindnessProperty:
    """See the module.

    Attributes:
        apply, orthogonal: the code under test.
    """

    apply: Clamped = clamped
    orthogonal: Callable[[SAE, Sequence[int]], Subspace] = complement
    name: str = "decoder-blindness"
    statement: str = "a clamp on S moves the residual within span D_S; no code moves the part orthogonal to the rows"
    reads: str = "movement where there should be none, in units of what rounding explains"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Clamps of every kind but drop-error at x, and random codes."""
        sae, best = wide(sae), Strongest()
        point = torch.from_numpy(x)
        z = sae.encode(point).numpy()
        factor = float(sae.normalization.output_scale(point[None])[0, 0])
        if not np.isfinite(z).all() or not np.isfinite(factor):
            return best.attempt("the SAE gives no finite code at this residual")
        rows = sae.W_dec.numpy()
        for _ in range(CLAMPS):
            setting = clamp(sae, x, rng, DELTA_FORM)
            some = sorted(setting.features)
            effect = self.apply(sae, setting, point).numpy() - x
            change = np.abs(after_clamp(setting, z) - z)[some]
            written = float(change @ written_lengths(sae, some)) * factor
            outside = norm(span(rows[some]).rest(effect))
            allowed = gamma(len(x) + len(some)) * (norm(x) + 2.0 * written) + span(rows[some]).rounding * written + TINY
            best.offer(outside, allowed, lambda setting=setting: shown(setting, x))
            beside = self.orthogonal(sae, some)
            missing = len(x) - len(some) - beside.dimension  # directions that no clamp on S can move
            best.offer(2.0 * missing, 1.0, lambda setting=setting: shown(setting, x) | {"claim": "out of reach"})
            stored = lengths(sae).decoder[some]
            units = written_lengths(sae, some) / np.where(stored > 0, stored, 1.0)
            lost = SMALL * norm(change * units) * float(stored.max(initial=0.0)) * np.sqrt(len(some)) * factor
            best.offer(norm(effect @ beside.basis), allowed + lost, lambda setting=setting: shown(setting, x))
        return best.attempt()
