"""JumpReLU SAE: z = relu(a) where a > threshold, else 0. BatchTopK SAEs run as this with a constant threshold."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class JumpReLUSAE(SAE):
    """JumpReLU SAE. Source: SAELens `jumprelu`, Gemma Scope; arXiv 2407.14435.

    Attributes:
        b_enc: (d_sae,) encoder bias.
        threshold: (d_sae,) a feature is on iff a > threshold (strict) and a > 0; a negative threshold acts as 0.

    """

    b_enc: Tensor
    threshold: Tensor

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ("b_enc", "threshold")

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return a = xt W_enc + b_enc, shape (..., d_sae)."""
        return self._centred(x) @ self.W_enc + self.b_enc

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        return a.relu() * (a > self.threshold)

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        return self.threshold.clamp(min=0) - a  # zero as long as a_j <= max(threshold_j, 0)
