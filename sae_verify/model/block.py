"""One transformer block, or what is left of it after a hook inside, at one position of each prompt, mostly the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.model.hook_point import Site
from sae_verify.model.operations import Attention, GatedMlp, Mlp, Norm, Shown


@dataclass(frozen=True, eq=False)
class Block:
    """r' = r + post(attention(pre(r))), then r'' = r' + post(mlp(pre(r'))); a missing post norm is the identity.

    With `parallel` both read r, and r'' = r + attention(pre(r)) + mlp(pre(r)).

    Attributes:
        attention_norm: before the attention.
        attention: with constant keys and values of the earlier positions.
        attention_post_norm: after the attention, before the sum (Gemma-2), or None.
        mlp_norm: before the feed-forward network.
        mlp: the feed-forward network.
        mlp_post_norm: after it, before the sum (Gemma-2), or None.
        parallel: the feed-forward network reads the stream before the attention (GPT-NeoX).
    """

    attention_norm: Norm
    attention: Attention
    attention_post_norm: Norm | None
    mlp_norm: Norm
    mlp: Mlp | GatedMlp
    mlp_post_norm: Norm | None
    parallel: bool = False

    def __call__(self, resid: Tensor, others: Sequence[Shown] = ()) -> Tensor:
        """Map the residual stream (B, *, d) before the block to the one after it; `others` as for the attention."""
        middle = resid + self.attended(resid, others)
        return middle + self.written(resid if self.parallel else middle)

    def attended(self, resid: Tensor, others: Sequence[Shown] = ()) -> Tensor:
        """What the attention adds to the residual stream (B, *, d)."""
        attended = self.attention(self.attention_norm(resid), others)
        return attended if self.attention_post_norm is None else self.attention_post_norm(attended)

    def written(self, resid: Tensor) -> Tensor:
        """What the feed-forward network, reading (..., d), adds to the residual stream."""
        written = self.mlp(self.mlp_norm(resid))
        return written if self.mlp_post_norm is None else self.mlp_post_norm(written)

    def select(self, indices: Tensor) -> Block:
        """Return the same block for the prompts `indices` (n,) int64."""
        return dataclasses.replace(self, attention=self.attention.select(indices))


@dataclass(frozen=True, eq=False)
class Remainder:
    """What is left of a block after a hook inside it, as a map from the state there to the stream after the block.

    With m = constant + state it is m, or m + post(mlp(pre(m))) where the feed-forward network is still to come.

    Attributes:
        constant: (B, d) float64, what the rest of the block has added up at the last position.
        block: whose feed-forward network reads m, or None where it does not.
    """

    constant: Tensor
    block: Block | None

    @classmethod
    def after(cls, site: Site, block: Block, resid: Tensor) -> Remainder:
        """What is left of `block` after `site`, with the residual stream (B, d) before the block."""
        if site == "hook_resid_mid":
            return cls(torch.zeros_like(resid), block)
        if site == "hook_attn_out":
            return cls(resid + block.written(resid), None) if block.parallel else cls(resid, block)
        assert site == "hook_mlp_out"  # the other sites are not inside a block
        return cls(resid + block.attended(resid), None)

    def __call__(self, state: Tensor) -> Tensor:
        """Map the state at the hook (B, *, d) to the residual stream after the block."""
        batch, width = self.constant.shape
        middle = state + self.constant.reshape(batch, *(1,) * (state.ndim - 2), width)
        return middle if self.block is None else middle + self.block.written(middle)

    def select(self, indices: Tensor) -> Remainder:
        """Return the same for the prompts `indices` (n,) int64."""
        return Remainder(self.constant[indices], None if self.block is None else self.block.select(indices))
