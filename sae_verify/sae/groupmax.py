"""GroupMax SAE: the features lie in k groups of neighbours, and each group keeps its largest positive one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae_verify.errors import InputError
from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GroupMaxSAE(SAE):
    """GroupMax SAE. Source: EleutherAI sparsify, `activation: groupmax`.

    A tie within a group goes to the lowest index (upstream too, on a CPU); `ties` says where that decided.

    Attributes:
        b_enc: (d_sae,) encoder bias.
        k: how many groups, each of d_sae / k neighbouring features; at most one of a group is on.

    Raises:
        InputError: k does not divide d_sae.

    """

    held_sets: ClassVar[tuple[str, ...]] = ("free", "preactivations", "unreachable")
    held_limits: ClassVar[str] = "GroupMax features compete within their groups, which held cells do not model"

    b_enc: Tensor
    k: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1 or self.d_sae % self.k:
            raise InputError(f"k is {self.k!r}", rule=f"it must be an integer that divides d_sae = {self.d_sae}")

    @classmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        return ("b_enc",)

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return a = xt W_enc + b_enc, shape (..., d_sae)."""
        return self._centred(x) @ self.W_enc + self.b_enc

    def ties(self, x: Tensor) -> Tensor:
        """Return how many features share the first place of their group with another, shape (...,)."""
        groups = self._groups(self.pre_activations(x))
        top = groups.amax(dim=-1, keepdim=True)
        tied = (groups == top).sum(dim=-1)  # (..., k)
        return torch.where((tied > 1) & (top[..., 0] > 0), tied, 0).sum(dim=-1)

    def _groups(self, a: Tensor) -> Tensor:
        """Return (..., k, d_sae / k)."""
        return a.unflatten(-1, (self.k, -1))

    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        groups = self._groups(a)
        top = groups == groups.amax(dim=-1, keepdim=True)
        first = top & (top.cumsum(dim=-1) == 1)
        return (groups.relu() * first).flatten(-2)

    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        # Zero as long as a_j is at most the group's largest, or at most 0.
        groups = self._groups(a)
        return (groups.amax(dim=-1, keepdim=True).relu() - groups).flatten(-2)
