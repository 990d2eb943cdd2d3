"""LayerNorm and RMSNorm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """gain * z / sqrt(mean(z^2) + epsilon) + bias with z = x - mean(x).

    Attributes:
        gain: (d,) float64.
        bias: (d,) float64.
        epsilon: added to the mean square, in squared units of x.
    """

    gain: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise x (..., d) over its last axis."""
        return functional.layer_norm(x, self.gain.shape, self.gain, self.bias, self.epsilon)


@dataclass(frozen=True, eq=False)
class RMSNorm:
    """gain * x / sqrt(mean(x^2) + epsilon).

    Attributes:
        gain: (d,) float64; where the architecture stores gain - 1 (Gemma), the one has been added.
        epsilon: added to the mean square, in squared units of x.
    """

    gain: Tensor
    epsilon: float

    @classmethod
    def from_stored(cls, weight: Tensor, epsilon: float, *, unit_offset: bool = False) -> RMSNorm:
        """Build it from the stored weight (d,): the gain is the weight, or 1 + weight with `unit_offset`."""
        gain = weight.detach().to(torch.float64)
        return cls(gain + 1.0 if unit_offset else gain, epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise x (..., d) over its last axis."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.gain


Norm = LayerNorm | RMSNorm
