"""error-kept: h - D(z') = x - D(z): the error term survives every clamp but `drop-error`, which leaves D(z') alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import clamped
from sae_verify.testing.inputs import clamp
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.clamping import CLAMPS, DELTA_FORM, Clamped, after_clamp, shown, written_lengths
from sae_verify.testing.rounding import TINY, gamma, norm, wide


@dataclass(frozen=True)
class ErrorKeptProperty:
    """See the module.

    Attributes:
        apply: the code under test.
    """

    apply: Clamped = clamped
    name: str = "error-kept"
    statement: str = "the error term h - D(z') after a clamp is the error term x - D(z) before it"
    reads: str = "change of the error term, in units of what rounding explains"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Clamps of every kind but drop-error at x; for drop-error h is D(z') itself."""
        sae, best = wide(sae), Strongest()
        point = torch.from_numpy(x)
        z = sae.encode(point)
        factor = sae.normalization.output_scale(point[None])[0]
        if not bool(torch.isfinite(z).all() and torch.isfinite(factor).all()):
            return best.attempt("the SAE gives no finite code at this residual")
        error = sae.error(point).numpy()
        for i in range(CLAMPS):
            setting = clamp(sae, x, rng, DELTA_FORM if i else ("drop-error",))
            new = torch.from_numpy(after_clamp(setting, z.numpy()))
            h, plain = self.apply(sae, setting, point).numpy(), sae.decode(new, point).numpy()
            left = norm(h - plain - (error if setting.kind != "drop-error" else 0.0))
            codes = np.abs(z.numpy()) + np.abs(new.numpy())
            written = float(codes @ written_lengths(sae, range(sae.d_sae)) + 2.0 * float(sae.b_dec.norm())) * float(
                factor
            )
            allowed = gamma(sae.d_sae) * (2.0 * norm(x) + 2.0 * written) + TINY
            best.offer(left, allowed, lambda setting=setting: shown(setting, x))
        return best.attempt()
