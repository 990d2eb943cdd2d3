"""A block at the last p positions of each prompt at once, all of which may be perturbed.

Each of them attends to the unperturbed positions before it, whose keys and values are constants, and to the perturbed
ones, whose keys and values move: a perturbation of an early position reaches the later ones within the blocks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.model.block import Block, Remainder
from sae_verify.model.operations import Shown


@dataclass(frozen=True, eq=False)
class Several:
    """One block, or what is left of it, from the residual streams (B, *, p, d) to those after it.

    Attributes:
        parts: the block as seen from each position, in order, or what is left of it there: after a hook inside it no
            position sees another, so each remainder is its own.
    """

    parts: tuple[Block | Remainder, ...]

    @classmethod
    def made(cls, blocks: tuple[Block, ...], lengths: Tensor) -> Several:
        """From the block at each of the last p positions, which take the positions before them for constants.

        Args:
            blocks: one a position, in order.
            lengths: (B,) int64, of the prompts.
        """
        first = lengths - len(blocks)
        return cls(
            tuple(dataclasses.replace(block, attention=block.attention.before(first)) for block in blocks),
        )

    def __call__(self, resid: Tensor) -> Tensor:
        """Map the residual streams (B, *, p, d) before the block to those after it."""
        shown = self._shown(resid)
        return torch.stack([self._at(resid, place, shown) for place in range(len(self.parts))], -2)

    def last(self, resid: Tensor) -> Tensor:
        """The same for the last position alone: (B, *, d)."""
        return self._at(resid, len(self.parts) - 1, self._shown(resid))

    def select(self, indices: Tensor) -> Several:
        """Return the same block for the prompts `indices` (n,) int64."""
        return Several(tuple(part.select(indices) for part in self.parts))

    def _shown(self, resid: Tensor) -> list[Shown]:
        """What every position but the last shows to those after it."""
        rows = [(part, resid[..., place, :]) for place, part in enumerate(self.parts[:-1])]
        return [part.attention.shown(part.attention_norm(row)) for part, row in rows if isinstance(part, Block)]

    def _at(self, resid: Tensor, place: int, shown: list[Shown]) -> Tensor:
        part, row = self.parts[place], resid[..., place, :]
        if isinstance(part, Remainder):
            return part(row)
        window = part.attention.weights.window
        return part(row, shown[0 if window is None else max(0, place - window + 1) : place])
