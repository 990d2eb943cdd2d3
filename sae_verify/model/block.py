"""One transformer block, restricted to the last position of each prompt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from sae_verify.model.operations import Attention, GatedMlp, Mlp, Norm


@dataclass(frozen=True, eq=False)
class Block:
    """r' = r + post(attention(pre(r))), then r'' = r' + post(mlp(pre(r'))); a missing post norm is the identity.

    Attributes:
        attention_norm: before the attention.
        attention: with constant keys and values of the earlier positions.
        attention_post_norm: after the attention, before the sum (Gemma-2), or None.
        mlp_norm: before the feed-forward network.
        mlp: the feed-forward network.
        mlp_post_norm: after it, before the sum (Gemma-2), or None.
    """

    attention_norm: Norm
    attention: Attention
    attention_post_norm: Norm | None
    mlp_norm: Norm
    mlp: Mlp | GatedMlp
    mlp_post_norm: Norm | None

    def __call__(self, resid: Tensor) -> Tensor:
        """Map the residual stream (B, *, d) before the block to the one after it."""
        attended = self.attention(self.attention_norm(resid))
        if self.attention_post_norm is not None:
            attended = self.attention_post_norm(attended)
        middle = resid + attended
        written = self.mlp(self.mlp_norm(middle))
        if self.mlp_post_norm is not None:
            written = self.mlp_post_norm(written)
        return middle + written

    def select(self, indices: Tensor) -> Block:
        """Return the same block for the prompts `indices` (n,) int64."""
        return dataclasses.replace(self, attention=self.attention.select(indices))
