"""What TopK and AbsTopK share: a feature is on if its score ranks among the k first."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sae_verify.errors import InputError, WeightsError
from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RankedSAE(SAE, abc.ABC):
    """An SAE that keeps k features; the code is in units of the score.

    The score of feature j is a_j, or a_j norm(W_dec[j]) when rescaling. Ties at the cut-off go to the lowest index (the
    upstream rule is unspecified); `ties` says where that decided.

    Attributes:
        b_enc: (d_sae,) encoder bias.
        k: how many features can be on, 1 to d_sae.
        rescale_by_decoder_norm: SAELens `rescale_acts_by_decoder_norm`.

    Raises:
        InputError: k is out of range.
        WeightsError: rescaling with a zero decoder row, which the decoder divides by.

    """

    b_enc: Tensor
    k: int
    rescale_by_decoder_norm: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= self.d_sae:
            raise InputError(f"k is {self.k!r}", rule=f"it must be an integer from 1 to d_sae = {self.d_sae}")
        if not isinstance(self.rescale_by_decoder_norm, bool):
            raise InputError(
                f"rescale_by_decoder_norm is {self.rescale_by_decoder_norm!r}", rule="it must be True or False"
            )
        norms = self._row_norms
        bad = torch.nonzero((norms == 0) | ~torch.isfinite(norms)).flatten().tolist()
        if self.rescale_by_decoder_norm and bad:
            raise WeightsError(
                f"W_dec has {len(bad)} rows of norm zero (or beyond the float range), the first is row {bad[0]}",
                rule="rescaling by the decoder norm divides by it",
                remedy="remove these features, or give the rows a direction",
            )

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ("b_enc",)

    @cached_property
    def _row_norms(self) -> Tensor:
        """Norms of the decoder rows, (d_sae,); ones when the format does not rescale."""
        if not self.rescale_by_decoder_norm:
            return torch.ones_like(self.b_enc)
        return torch.linalg.vector_norm(self.W_dec, dim=-1)

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return a = xt W_enc + b_enc, shape (..., d_sae), before rescaling by decoder norms."""
        return self._centred(x) @ self.W_enc + self.b_enc

    def scores(self, x: Tensor) -> Tensor:
        """Return a_j, or a_j norm(W_dec[j]) when rescaling; shape (..., d_sae)."""
        return self.pre_activations(x) * self._row_norms

    def ties(self, x: Tensor) -> Tensor:
        """Return how many features share the k-th place while not all of them fit, shape (...,)."""
        rank = self._rank(self.scores(x))
        kth = self._kth(rank)  # (..., 1)
        tied = (rank == kth).sum(dim=-1)
        return torch.where(((rank >= kth).sum(dim=-1) > self.k) & (kth[..., 0] > 0), tied, 0)

    @abc.abstractmethod
    def _rank(self, scores: Tensor) -> Tensor:
        """What scores are ranked by, (..., d_sae)."""

    def _kth(self, rank: Tensor) -> Tensor:
        return rank.topk(self.k, dim=-1).values[..., -1:]

    def _selected(self, rank: Tensor) -> Tensor:
        """The k first, bool (..., d_sae); ties go to the lowest index."""
        kth = self._kth(rank)  # (..., 1)
        above, tied = rank > kth, rank == kth  # (..., d_sae)
        room = self.k - above.sum(dim=-1, keepdim=True)  # (..., 1) tied features that still fit
        return above | (tied & (tied.cumsum(dim=-1) <= room))

    def _decoder_units(self, z: Tensor) -> Tensor:
        return z / self._row_norms
