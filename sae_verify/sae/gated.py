"""Gated SAE: a gate decides whether a feature is on, a magnitude along the same direction decides how much."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.errors import WeightsError
from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GatedSAE(SAE):
    """Gated SAE: z = [gate > 0] relu(magnitude). Source: SAELens `gated`; arXiv 2404.16014.

    gate = xt W_enc + b_gate, magnitude = xt (W_enc exp(r_mag)) + b_mag; both move along the same encoder column.

    Attributes:
        b_gate: (d_sae,) bias of the gate.
        b_mag: (d_sae,) bias of the magnitude.
        r_mag: (d_sae,) log of the magnitude's factor.

    Raises:
        WeightsError: exp(r_mag) is zero or infinite in the weights' dtype.

    """

    b_gate: Tensor
    b_mag: Tensor
    r_mag: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        factor = self.r_mag.exp()
        bad = int(((factor == 0) | ~torch.isfinite(factor)).sum())
        if bad:
            raise WeightsError(
                f"r_mag has {bad} of {self.d_sae} values whose exponential is zero or infinite in {self.dtype}",
                rule="exp(r_mag) must be a positive finite number",
                remedy="check the export of this SAE",
            )

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ("b_gate", "b_mag", "r_mag")

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the gate's pre-activation xt W_enc + b_gate, shape (..., d_sae)."""
        return self._centred(x) @ self.W_enc + self.b_gate

    def magnitudes(self, x: Tensor) -> Tensor:
        """Return xt (W_enc exp(r_mag)) + b_mag, shape (..., d_sae)."""
        return self._centred(x) @ (self.W_enc * self.r_mag.exp()) + self.b_mag

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        return self.magnitudes(x).relu() * (a > 0)

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        # Zero as long as the gate or the magnitude is not positive, so the wider of two parallel half-spaces.
        return torch.maximum(-a, -self.magnitudes(x) / self.r_mag.exp())
