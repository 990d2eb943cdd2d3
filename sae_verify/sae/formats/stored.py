"""An SAE as its files hold it: what every format's reader returns, and what becomes of it.

Nothing is widened or folded here, so a reader costs no more memory than its file, and a memory-mapped file hardly any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.sae.abs_topk import AbsTopKSAE
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.groupmax import GroupMaxSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.matching_pursuit import MatchingPursuitSAE
from sae_verify.sae.normalization import Identity, Normalization
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE
from sae_verify.sae.transcoder import Transcoder


@dataclass(frozen=True)
class Architecture:
    """What an architecture is made of.

    Attributes:
        kind: the class that computes it.
        vectors: names of its own tensors, each (d_sae,).
        settings: names of what else its constructor takes.

    """

    kind: type[SAE]
    vectors: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


ARCHITECTURES: dict[str, Architecture] = {
    "standard": Architecture(ReLUSAE, ("b_enc",)),
    "jumprelu": Architecture(JumpReLUSAE, ("b_enc", "threshold")),
    "topk": Architecture(TopKSAE, ("b_enc",), ("k", "rescale_by_decoder_norm")),
    "abstopk": Architecture(AbsTopKSAE, ("b_enc",), ("k", "rescale_by_decoder_norm")),
    "groupmax": Architecture(GroupMaxSAE, ("b_enc",), ("k",)),
    "gated": Architecture(GatedSAE, ("b_gate", "b_mag", "r_mag")),
    "matching_pursuit": Architecture(
        MatchingPursuitSAE, (), ("residual_threshold", "max_iterations", "stop_on_duplicate_support")
    ),
}
"""By SAELens name, where it has one."""

TRANSCODERS: dict[str, tuple[str, ...]] = {"standard": ("b_enc",), "jumprelu": ("b_enc", "threshold")}
TRANSCODERS |= {"topk": ("b_enc",), "groupmax": ("b_enc",)}
"""Tensors of each transcoder's encoder besides W_enc, by the encoder's architecture."""


def tensor_names(architecture: str) -> tuple[str, ...]:
    """Return the names of all tensors of an SAE of this architecture."""
    return ("W_enc", "W_dec", "b_dec", *ARCHITECTURES[architecture].vectors)


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """An SAE or a transcoder, as stored.

    Attributes:
        architecture: a key of `ARCHITECTURES`; for a transcoder of `TRANSCODERS`.
        tensors: under SAELens names and in its orientation, perhaps as transposed views; a constant threshold may be
            expanded.
        subtract_b_dec: whether b_dec is subtracted from the normalised input.
        settings: the rest of the constructor's arguments.
        normalization: N and Ninv.
        source: where it came from.
        transcoder: whether the output is another place than the input; then `W_skip` may be among the tensors.

    Raises:
        ShapeError: the tensors do not fit the biases.
        InputError: the two matrices have different dtypes.

    """

    architecture: str
    tensors: Mapping[str, Tensor]
    subtract_b_dec: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    normalization: Normalization = field(default_factory=Identity)
    source: Source = field(default_factory=Source)
    transcoder: bool = False

    def __post_init__(self) -> None:
        encoder, decoder = self.tensors["W_enc"], self.tensors["W_dec"]
        where = self.source.path
        if encoder.ndim != 2 or decoder.ndim != 2 or 0 in encoder.shape or 0 in decoder.shape:
            raise ShapeError(
                f"W_enc and W_dec in {where} have shapes {tuple(encoder.shape)} and {tuple(decoder.shape)}",
                rule="they are (d_in, d_sae) and (d_sae, d_out), none zero",
                remedy="a decoder with one more axis belongs to a cross-layer transcoder, which is not supported",
            )
        for name in self._vectors():
            length = self.tensors[name].numel()
            if length != self.d_sae and length == self.d_in:
                raise ShapeError(
                    f"W_enc has shape {tuple(encoder.shape)} and {name} {length} values in {where}",
                    rule="W_enc is (d_in, d_sae), as this format is read, and biases and thresholds of it have d_sae",
                    remedy="the matrices look transposed: export them the other way round",
                )
        for name, shape in (
            *((name, (self.d_sae,)) for name in self._vectors()),
            ("W_dec", (self.d_sae, decoder.shape[1] if self.transcoder else self.d_in)),
            ("b_dec", decoder.shape[1:]),
        ):
            if tuple(self.tensors[name].shape) != tuple(shape):
                raise ShapeError(
                    f"{name} has shape {tuple(self.tensors[name].shape)} in {where}",
                    rule=f"with W_enc of shape {tuple(encoder.shape)}, as this format is read, it is {tuple(shape)}",
                    remedy="transpose what is not, or check that the tensors belong to one SAE",
                )
        if encoder.dtype != decoder.dtype:
            raise InputError(
                f"W_enc is {encoder.dtype} and W_dec is {decoder.dtype} in {where}",
                rule="the two matrices of one SAE have one dtype",
                remedy="check that the tensors belong together, and export them alike",
            )

    def _vectors(self) -> tuple[str, ...]:
        return TRANSCODERS[self.architecture] if self.transcoder else ARCHITECTURES[self.architecture].vectors

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.tensors["W_enc"].shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.tensors["W_enc"].shape[1]

    def sae(self) -> SAE:
        """The SAE, its weights widened exactly to float32, or to float64 if one of them is.

        Raises:
            UnsupportedError: it is a transcoder.
            ShapeError, WeightsError, InputError: as the architecture.

        """
        if self.transcoder:
            raise UnsupportedError(
                f"{self.source.path} is a transcoder",
                rule="it predicts another place than it reads, so its input has no error term that could be clamped",
                remedy="load_transcoder loads it, to encode and to decode",
            )
        return ARCHITECTURES[self.architecture].kind(
            **widened(self.tensors),
            **self.settings,
            subtract_b_dec=self.subtract_b_dec,
            normalization=self.normalization,
            source=self.source,
        )

    def coder(self) -> Transcoder:
        """The transcoder, widened like an SAE; UnsupportedError if it is an SAE."""
        if not self.transcoder:
            raise UnsupportedError(f"{self.source.path} is an SAE, no transcoder", remedy="load it with load_sae")
        return Transcoder(
            **widened(self.tensors),
            **self.settings,
            subtract_b_dec=self.subtract_b_dec,
            activation=self.architecture,
            source=self.source,
        )


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Widen all tensors exactly to one dtype: float64 if one of them is, else float32."""
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors.values()) else torch.float32
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}
