"""Matching pursuit: features are picked one after another, each for what is left of the input (arXiv 2506.05239)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae_verify.errors import InputError, UnsupportedError, WeightsError
from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MatchingPursuitSAE(SAE):
    """Matching pursuit SAE. Source: SAELens `matching_pursuit`.

    The encoder is the decoder: W_enc = W_dec^T. With r = xt at first, a step picks i = argmax_j r . d_j (the lowest
    index of several), adds v = max(r . d_i, 0) to z_i and takes v d_i from r. It stops when |r| is below
    `residual_threshold`, when a step turns no feature on (if `stop_on_duplicate_support`), or after
    `max_iterations` steps. The output is z W_dec, plus b_dec if that was subtracted.

    No held set is supported: what keeps the code is a union of pieces, one for each order of picking, and a norm
    decides when picking stops.

    Attributes:
        residual_threshold: at least 0; in units of the normalised input.
        max_iterations: at least 1; None stands for d_in.
        stop_on_duplicate_support: whether a step that turns nothing on is the last one.

    Raises:
        WeightsError: W_enc is not W_dec^T.
        InputError: a setting is out of range.

    """

    held_sets: ClassVar[tuple[str, ...]] = ()
    held_limits: ClassVar[str] = (
        "for matching pursuit, what keeps the code is a union of pieces with curved borders, one an order of picking"
    )

    residual_threshold: float
    max_iterations: int | None = None
    stop_on_duplicate_support: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not torch.equal(self.W_enc, self.W_dec.T):
            raise WeightsError("W_enc differs from the transpose of W_dec", rule="matching pursuit has tied weights")
        if not self.residual_threshold >= 0:
            raise InputError(f"residual_threshold is {self.residual_threshold!r}", rule="it must be at least 0")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise InputError(f"max_iterations is {self.max_iterations!r}", rule="it must be at least 1, or None")

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ()

    def pre_activations(self, x: Tensor) -> Tensor:
        """Refuse: each step has products of its own."""
        raise UnsupportedError("pre-activations of a matching pursuit SAE", rule="each step of it has its own")

    def encode(self, x: Tensor) -> Tensor:
        """Return the code z of x (..., d_in), shape (..., d_sae). Cost: a pass over the decoder for each step."""
        xt = self._centred(x)
        residual = xt.reshape(-1, self.d_in).clone()  # (n, d_in)
        rows = torch.arange(len(residual))
        z = torch.zeros(len(residual), self.d_sae, dtype=self.dtype)
        done = torch.zeros(len(residual), dtype=torch.bool)
        for _ in range(self.max_iterations or self.d_in):
            picked = (residual @ self.W_dec.T).relu().argmax(dim=1)  # (n,)
            atoms = self.W_dec[picked]  # (n, d_in)
            value = torch.where(done, 0.0, (residual * atoms).sum(dim=1).relu())  # (n,)
            new = (z[rows, picked] == 0) & (value != 0)
            z[rows, picked] += value
            residual = residual - value[:, None] * atoms
            if self.stop_on_duplicate_support:
                done = done | ~new
            if self.residual_threshold > 0:
                done = done | (torch.linalg.vector_norm(residual, dim=1) < self.residual_threshold)
            if done.all():
                break
        return z.reshape(*xt.shape[:-1], self.d_sae)

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Return D(z), shape (..., d_in); b_dec is added only if it was subtracted."""
        y = self._code(z) @ self.W_dec
        return self.normalization.inverse(y + self.b_dec if self.subtract_b_dec else y, self._input(x))

    def active_and_slack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: see the class."""
        raise UnsupportedError("the slack of a matching pursuit SAE", rule=self.held_limits)

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        return self.encode(x)  # it does not go through pre-activations

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        return self.active_and_slack(x)[1]  # which refuses
