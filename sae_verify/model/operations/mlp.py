"""Feed-forward networks, plain and gated."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sae_verify.model.operations.activation import Activation
from sae_verify.model.operations.linear import Linear


@dataclass(frozen=True, eq=False)
class Mlp:
    """down(activation(up(y))): GPT-2.

    Attributes:
        activation: applied to each of the n neurons.
        up: (n, d).
        down: (d, n).
    """

    activation: Activation
    up: Linear
    down: Linear

    def __call__(self, y: Tensor) -> Tensor:
        """Map y (..., d) to (..., d)."""
        return self.down(self.activation(self.up(y)))


@dataclass(frozen=True, eq=False)
class GatedMlp:
    """down(activation(gate(y)) * up(y)): Llama, Gemma.

    Attributes:
        activation: applied to each of the n gates.
        gate: (n, d).
        up: (n, d).
        down: (d, n).
    """

    activation: Activation
    gate: Linear
    up: Linear
    down: Linear

    def __call__(self, y: Tensor) -> Tensor:
        """Map y (..., d) to (..., d)."""
        return self.down(self.activation(self.gate(y)) * self.up(y))
