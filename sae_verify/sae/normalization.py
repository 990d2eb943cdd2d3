"""What an SAE does to its input before the encoder, and undoes after the decoder.

Every normalisation acts on one position at a time (along the last axis) and keeps no state: the statistics that the
output needs are computed again from `x`. NaN in gives NaN out.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.errors import InputError, ShapeError, UnsupportedError


@dataclass(frozen=True)
class Normalization(abc.ABC):
    """The pair N (before the encoder) and its companion Ninv (after the decoder).

    Ninv is affine in its first argument: `Ninv(y; x) = output_scale(x) * y + shift(x)`.
    """

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return N(x), shape (..., d_in)."""

    @abc.abstractmethod
    def inverse(self, y: Tensor, x: Tensor) -> Tensor:
        """Return Ninv(y) with the statistics of x; both (..., d_in)."""

    @abc.abstractmethod
    def output_scale(self, x: Tensor) -> Tensor:
        """Return the factor that Ninv multiplies by, shape (..., 1), so that it broadcasts over d_in."""

    @abc.abstractmethod
    def linear_scale(self, what: str) -> float:
        """Return the constant s > 0 with N(x) = s x and Ninv(y) = y / s.

        Args:
            what: what the caller wants to compute, for the message.

        Raises:
            UnsupportedError: if N is not linear in x.

        """

    def check(self, d_in: int) -> None:
        """Raise ShapeError if the normalisation is undefined for vectors of length d_in."""
        del d_in


@dataclass(frozen=True)
class Identity(Normalization):
    """No normalisation (SAELens `none`; also `expected_average_only_in` once its scale is folded into the weights)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def inverse(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y."""
        del x
        return y

    def output_scale(self, x: Tensor) -> Tensor:
        """Return ones, shape (..., 1)."""
        return torch.ones_like(x[..., :1])

    def linear_scale(self, what: str) -> float:
        """Return 1."""
        del what
        return 1.0


@dataclass(frozen=True)
class InputScale(Normalization):
    """N(x) = s x and Ninv(y) = y / s with one constant s (SAELens `expected_average_only_in`, not folded).

    Attributes:
        scale: s, dimensionless, finite and positive.

    Raises:
        InputError: if s is not a finite positive number.

    """

    scale: float

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)):
            bad = True
        else:
            bad = not (math.isfinite(self.scale) and self.scale > 0)
        if bad:
            raise InputError(
                f"the input scale is {self.scale!r}",
                rule="it must be a finite positive number",
                remedy="give sqrt(d_in) / (mean norm of the activations), or 1.0 if it is folded into the weights",
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return s x."""
        return x * self.scale

    def inverse(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y / s."""
        del x
        return y / self.scale

    def output_scale(self, x: Tensor) -> Tensor:
        """Return 1 / s, shape (..., 1)."""
        return torch.ones_like(x[..., :1]) / self.scale

    def linear_scale(self, what: str) -> float:
        """Return s."""
        del what
        return float(self.scale)


@dataclass(frozen=True)
class LayerNorm(Normalization):
    """SAELens `layer_norm`: N(x) = (x - mu) / (sigma + 1e-5) and Ninv(y) = y sigma + mu.

    sigma is the unbiased standard deviation (divisor d_in - 1). The 1e-5 is the source format's and only on the input.
    Source: SAELens 6, `SAE._setup_activation_normalization`.
    """

    INPUT_EPSILON = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mu) / (sigma + 1e-5)."""
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / (self.output_scale(x) + self.INPUT_EPSILON)

    def inverse(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y sigma(x) + mu(x)."""
        return y * self.output_scale(x) + x.mean(dim=-1, keepdim=True)

    def output_scale(self, x: Tensor) -> Tensor:
        """Return sigma(x), unbiased, shape (..., 1)."""
        return (x - x.mean(dim=-1, keepdim=True)).std(dim=-1, keepdim=True)

    def linear_scale(self, what: str) -> float:
        """Refuse: the input is divided by its own standard deviation."""
        raise UnsupportedError(
            f"{what} of an SAE with layer_norm on its input",
            rule="it needs a normalisation that is linear in x; layer_norm divides by the standard deviation of x",
            remedy="use an SAE with normalize_activations none, or one with a constant input scale",
        )

    def check(self, d_in: int) -> None:
        """Raise ShapeError for d_in = 1, where the unbiased standard deviation is undefined."""
        if d_in < 2:
            raise ShapeError(f"d_in is {d_in} with layer_norm", rule="the unbiased deviation needs d_in of at least 2")


@dataclass(frozen=True)
class ConstantNormRescale(Normalization):
    """SAELens `constant_norm_rescale`: N(x) = x sqrt(d_in) / norm(x) and Ninv(y) = y norm(x) / sqrt(d_in).

    A zero x has no direction: it gives NaN, as in the source format.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x sqrt(d_in) / norm(x)."""
        return x / self.output_scale(x)

    def inverse(self, y: Tensor, x: Tensor) -> Tensor:
        """Return y norm(x) / sqrt(d_in)."""
        return y * self.output_scale(x)

    def output_scale(self, x: Tensor) -> Tensor:
        """Return norm(x) / sqrt(d_in), shape (..., 1)."""
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])

    def linear_scale(self, what: str) -> float:
        """Refuse: the input is divided by its own norm."""
        raise UnsupportedError(
            f"{what} of an SAE with constant_norm_rescale on its input",
            rule="it needs a normalisation that is linear in x; constant_norm_rescale divides by the norm of x",
            remedy="use an SAE with normalize_activations none, or one with a constant input scale",
        )
