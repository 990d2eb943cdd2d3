"""An affine map on the last axis."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x W^T + b.

    Attributes:
        weight: (out, in) float64.
        bias: (out,) float64, or None.
    """

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        return functional.linear(x, self.weight, self.bias)
