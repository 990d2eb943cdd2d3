"""The exact map from the residual stream at the hook, at each prompt's last positions, to the logits at the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.errors import ShapeError
from sae_verify.model.agreement import Agreement
from sae_verify.model.block import Block, Remainder
from sae_verify.model.operations import Linear, Norm
from sae_verify.model.several import Several


@dataclass(frozen=True, eq=False)
class Tail:
    """Blocks after the hook, final norm and unembedding, in float64, with what other positions give held constant.

    The arithmetic is that of the stored weights. The keys and values of the earlier positions are computed in float64
    from the block inputs that the real run showed, so they carry the rounding of the run up to there.

    A residual has d entries for each of the last `positions` positions, which may be perturbed: one position after
    another, the last one last. With one position it is the residual stream there.

    Attributes:
        blocks: the blocks that run after the hook, in order, first the rest of one that the hook is inside of; empty
            when the hook is after the last. `Several` for more positions than one.
        final_norm: before the unembedding.
        unembed: (V, d) float64.
        unembed_bias: (V,) float64, or None.
        base: (B, positions d) float64, the edited state at the hook and these positions: the defended state h.
        agreement: how it compared with the real model; None only for a tail that was not compared.
        positions: how many of each prompt's last positions a residual speaks of.
    """

    blocks: tuple[Block | Remainder | Several, ...]
    final_norm: Norm
    unembed: Tensor
    unembed_bias: Tensor | None
    base: Tensor
    agreement: Agreement | None = None
    positions: int = 1

    def hidden(self, resid: Tensor) -> Tensor:
        """Map the residual stream (B, *, positions d) at the hook to the output of the final norm (B, *, d).

        Differentiable. Extra dimensions after the batch are variants (restarts) of the same prompt.

        Raises:
            ShapeError: the batch or the width differs from `base`.
        """
        batch, width = self.base.shape
        if resid.ndim < 2 or resid.shape[0] != batch or resid.shape[-1] != width:
            raise ShapeError(
                f"the residual has shape {tuple(resid.shape)}",
                rule=f"it must be ({batch}, ..., {width}): prompts first, width last",
                remedy="use tail.select for fewer prompts",
            )
        resid = resid.to(torch.float64)
        if self.positions > 1:
            return self.final_norm(self._last(resid.unflatten(-1, (self.positions, -1))))
        for block in self.blocks:
            resid = block(resid)
        return self.final_norm(resid)

    def _last(self, resid: Tensor) -> Tensor:
        """The last position's residual stream (B, *, d) after the blocks, from (B, *, positions, d)."""
        if not self.blocks:
            return resid[..., -1, :]
        *blocks, final = self.blocks
        for block in blocks:
            resid = block(resid)
        assert isinstance(final, Several)
        return final.last(resid)

    def __call__(self, resid: Tensor) -> Tensor:
        """Map the residual stream (B, *, positions d) to logits (B, *, V), before any final soft-cap."""
        return self.head(self.hidden(resid))

    @property
    def head(self) -> Linear:
        """The unembedding as a map (..., d) to (..., V)."""
        return Linear(self.unembed, self.unembed_bias)

    def value_and_grad(self, resid: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden(resid) . rows and its gradient in the residual.

        Args:
            resid: (B, *, positions d).
            rows: (B, K, d) readout rows, already contracted with `unembed` (any bias is the caller's).

        Returns:
            values (B, *, K) and gradients (B, *, K, positions d), both detached. Cost: K forward and backward passes a
            variant.
        """
        batch, width, count = resid.shape[0], resid.shape[-1], rows.shape[1]
        extra = resid.shape[1:-1]
        leaf = resid.detach().to(torch.float64).unsqueeze(-2)  # (B, *, 1, d)
        leaf = leaf.expand(batch, *extra, count, width).clone().requires_grad_()  # (B, *, K, d)
        with torch.enable_grad():
            hidden = self.hidden(leaf)
            values = (hidden * rows.reshape(batch, *(1,) * len(extra), count, -1)).sum(-1)  # (B, *, K)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), gradient

    def with_agreement(self, agreement: Agreement) -> Tail:
        """Return the same tail with the figures of its comparison."""
        return dataclasses.replace(self, agreement=agreement)

    def select(self, indices: Tensor | Sequence[int]) -> Tail:
        """Return the tail of the prompts `indices` (n,); weights are shared, not copied."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.base.device)
        return dataclasses.replace(
            self,
            blocks=tuple(block.select(chosen) for block in self.blocks),
            base=self.base[chosen],
            agreement=None if self.agreement is None else self.agreement.select(chosen),
        )
