"""Standard SAE: z = relu(xt W_enc + b_enc)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ReLUSAE(SAE):
    """Standard SAE. Source: SAELens `standard`.

    Attributes:
        b_enc: (d_sae,) encoder bias.

    """

    b_enc: Tensor

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ("b_enc",)

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return a = xt W_enc + b_enc, shape (..., d_sae)."""
        return self._centred(x) @ self.W_enc + self.b_enc

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        return a.relu()

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        return -a  # zero as long as a_j <= 0
