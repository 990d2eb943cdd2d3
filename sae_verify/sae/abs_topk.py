"""AbsTopK SAE: the k scores largest in magnitude survive with their sign, so that a code may be negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae_verify.errors import UnsupportedError
from sae_verify.sae.ranked import RankedSAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class AbsTopKSAE(RankedSAE):
    """AbsTopK SAE. Source: SAELens `abstopk`; arXiv 2510.00404. Attributes and errors: `RankedSAE`.

    A feature that is off stays off while its score lies between minus and plus the least magnitude selected, so the
    cell that keeps the code has two sides for each feature; held cells here have one.
    """

    held_sets: ClassVar[tuple[str, ...]] = ("free", "preactivations", "unreachable")
    held_limits: ClassVar[str] = "an AbsTopK feature turns on upwards and downwards, and held cells have one side"

    def _rank(self, scores: Tensor) -> Tensor:
        return scores.abs()

    def cutoff(self, x: Tensor) -> Tensor:
        """Return the magnitude that a score must exceed to turn on: the k-th largest, shape (..., 1)."""
        return self._kth(self.scores(x).abs())

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        scores = a * self._row_norms
        return torch.where(self._selected(scores.abs()), scores, 0.0)

    def active_and_slack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: one number a feature cannot say how far it may move."""
        raise UnsupportedError(
            "the slack of an AbsTopK SAE",
            rule="a feature that is off turns on upwards and downwards, each with a slack of its own",
        )

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        return self.active_and_slack(x)[1]  # which refuses
