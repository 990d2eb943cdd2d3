"""TopK SAE: only the k largest scores survive, and of these only the positive ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sae_verify.sae.ranked import RankedSAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TopKSAE(RankedSAE):
    """TopK SAE. Source: SAELens `topk`; arXiv 2406.04093. Attributes and errors: `RankedSAE`."""

    def _rank(self, scores: Tensor) -> Tensor:
        return scores

    def cutoff(self, x: Tensor) -> Tensor:
        """Return the score that a feature must exceed to turn on, max(0, k-th largest score), shape (..., 1).

        With exactly k positive selected scores it is the smallest of them; with fewer it is 0.
        """
        return self._kth(self.scores(x)).relu()

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        scores = a * self._row_norms
        return scores.relu() * self._selected(scores)

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        # Zero as long as score_j <= cutoff. The difference comes before the division, so that it is never negative.
        scores = a * self._row_norms
        return (self._kth(scores).relu() - scores) / self._row_norms
