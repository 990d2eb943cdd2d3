"""Transcoders: a sparse code of one place that predicts another, with or without a linear skip connection.

They can be loaded, encoded and decoded. They are no SAEs: nothing reconstructs the input, so no perturbation is an
error term that a clamp leaves alone, and `certify` refuses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import InputError, ShapeError
from sae_verify.sae.base import SAE, Source, check_finite
from sae_verify.sae.groupmax import GroupMaxSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE

ACTIVATIONS = ("standard", "jumprelu", "topk", "groupmax")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Transcoder:
    """y = E(x) W_dec + b_dec [+ x W_skip^T]. Source: SAELens transcoders, Gemma Scope, EleutherAI sparsify.

    Attributes:
        activation: `standard`, `jumprelu`, `topk` or `groupmax`: the encoder, as in the SAEs of these names.
        W_enc: (d_in, d_sae). b_enc: (d_sae,).
        W_dec: (d_sae, d_out). b_dec: (d_out,).
        W_skip: (d_out, d_in), or None. The skip connection reads x itself.
        threshold: (d_sae,), of jumprelu.
        k: of topk and groupmax.
        subtract_b_dec: must be False: b_dec lies in the output's space.
        source: where it came from; `source.hook_name` is what is read.

    Raises:
        ShapeError, WeightsError, InputError: as an SAE.

    """

    activation: str
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    W_skip: Tensor | None = None
    threshold: Tensor | None = None
    k: int | None = None
    subtract_b_dec: bool = False
    source: Source = field(default_factory=Source)
    _encoder: SAE = field(init=False)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation is {self.activation!r}", rule=f"it is one of {', '.join(ACTIVATIONS)}")
        if self.subtract_b_dec:
            raise InputError("subtract_b_dec is True", rule="a transcoder's b_dec lies in the space of its output")
        d_in, d_sae = self.W_enc.shape
        if self.W_dec.ndim != 2 or self.W_dec.shape[0] != d_sae or self.b_dec.shape != self.W_dec.shape[1:]:
            raise ShapeError(
                f"W_dec and b_dec have shapes {tuple(self.W_dec.shape)} and {tuple(self.b_dec.shape)}",
                rule=f"they are ({d_sae}, d_out) and (d_out,)",
                remedy="transpose what is not, or check that the tensors belong together",
            )
        if self.W_skip is not None and tuple(self.W_skip.shape) != (self.d_out, d_in):
            raise ShapeError(f"W_skip has shape {tuple(self.W_skip.shape)}", rule=f"it is ({self.d_out}, {d_in})")
        object.__setattr__(self, "_encoder", self._make_encoder())

    def _make_encoder(self) -> SAE:
        """An SAE with this encoder; its own decoder, a view that takes no memory, is never asked."""
        for name, tensor in (("W_dec", self.W_dec), ("b_dec", self.b_dec), ("W_skip", self.W_skip)):
            if tensor is not None:
                check_finite(f"{name} in {self.source.path or 'memory'}", tensor)
        common: dict[str, Any] = {
            "W_enc": self.W_enc,
            "W_dec": self.W_enc.T,
            "b_dec": torch.zeros(self.d_in, dtype=self.W_enc.dtype),
            "b_enc": self.b_enc,
            "subtract_b_dec": False,
            "source": self.source,
        }
        if self.activation == "standard":
            return ReLUSAE(**common)
        if self.activation == "jumprelu":
            if self.threshold is None:
                raise InputError("threshold is missing", rule="a jumprelu transcoder has one")
            return JumpReLUSAE(**common, threshold=self.threshold)
        if self.k is None:
            raise InputError("k is missing", rule=f"a {self.activation} transcoder has one")
        if self.activation == "topk":
            return TopKSAE(**common, k=self.k, rescale_by_decoder_norm=False)
        return GroupMaxSAE(**common, k=self.k)

    def __repr__(self) -> str:
        skip = "" if self.W_skip is None else ", skip"
        place = self.source.path or self.source.format
        return f"Transcoder({self.activation}{skip}, {self.d_in} x {self.d_sae} x {self.d_out}, {self.dtype}, {place})"

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Width of the output."""
        return self.W_dec.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of every weight."""
        return self.W_enc.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Return the code of x (..., d_in), shape (..., d_sae)."""
        return self._encoder.encode(x)

    def ties(self, x: Tensor) -> Tensor:
        """Return how many features share a place at the cut-off, (...,); see `SAE.ties`."""
        return self._encoder.ties(x)

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the prediction, (..., d_out), from the code and, where there is a skip connection, from x."""
        y = z.to(self.dtype) @ self.W_dec + self.b_dec
        return y if self.W_skip is None else y + x.to(self.dtype) @ self.W_skip.T
