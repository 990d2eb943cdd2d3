"""Self-attention as seen from one position of each prompt, usually the last.

The keys and values of the positions before it do not depend on it, so they are constants. The position contributes its
query, its own key and its own value; where others before it are perturbed, too, their keys and values are given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from sae_verify.model.operations.linear import Linear
from sae_verify.model.operations.norm import Norm

Shown = tuple[Tensor, Tensor]
"""Key and value of one position for those after it, (B, n_kv_heads, R, 1, d_head) each, over R variants."""


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """The stored part of an attention: projections and the shape of the score.

    The score of key k for query q is cap(scale * q.k), with cap(s) = c tanh(s / c) or the identity. Query head
    `h` reads key-value head `h // (n_heads // n_kv_heads)`.

    Attributes:
        query: (n_heads * d_head, d).
        key: (n_kv_heads * d_head, d).
        value: (n_kv_heads * d_head, d).
        output: (d, n_heads * d_head).
        n_heads: query heads.
        n_kv_heads: key-value heads; it divides n_heads.
        scale: multiplies q.k.
        softcap: c, or None.
        window: a position sees itself and the window - 1 before it; None means all before it.
        query_norm: norm of each query head over d_head, before the rotation; or None.
        key_norm: the same for keys.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    n_heads: int
    n_kv_heads: int
    scale: float
    softcap: float | None = None
    window: int | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.query.weight.shape[0] // self.n_heads

    def queries(self, y: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """Rotated queries of y (B, n, d), shape (B, n, n_heads, d_head); cos, sin as for `rotate`."""
        return self._heads(self.query(y), self.n_heads, self.query_norm, cos, sin)

    def keys(self, y: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """Rotated keys of y (B, n, d), shape (B, n, n_kv_heads, d_head); cos, sin as for `rotate`."""
        return self._heads(self.key(y), self.n_kv_heads, self.key_norm, cos, sin)

    def values(self, y: Tensor) -> Tensor:
        """Values of y (B, n, d), shape (B, n, n_kv_heads, d_head)."""
        return self.value(y).unflatten(-1, (self.n_kv_heads, self.d_head))

    def _heads(self, y: Tensor, heads: int, norm: Norm | None, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        split = y.unflatten(-1, (heads, self.d_head))  # (B, n, heads, d_head)
        if norm is not None:
            split = norm(split)
        return split if cos is None or sin is None else rotate(split, cos, sin)

    def at_last(self, y: Tensor, lengths: Tensor, cos: Tensor | None = None, sin: Tensor | None = None) -> Attention:
        """Fix the keys and values of every position before each prompt's last.

        Args:
            y: (B, T, d) float64, the normed input of the attention at every position, right-padded.
            lengths: (B,) int64, number of real positions of each prompt.
            cos: (T, r) rotation table of the first r entries of each head, or None for no rotation.
            sin: (T, r).
        """
        past = y.shape[1] - 1
        position = torch.arange(past, device=y.device)  # (P,)
        last = (lengths - 1)[:, None]  # (B, 1)
        visible = position < last  # (B, P)
        if self.window is not None:
            visible &= position > last - self.window
        hidden = ~visible[:, None, :, None]  # (B, 1, P, 1)
        past_tables = (None, None) if cos is None or sin is None else (cos[:past], sin[:past])
        own_tables = (None, None) if cos is None or sin is None else (cos[last], sin[last])  # (B, 1, r)
        keys = self.keys(y[:, :past], *past_tables).transpose(1, 2)  # (B, n_kv_heads, P, d_head)
        values = self.values(y[:, :past]).transpose(1, 2)
        return Attention(
            weights=self,
            keys=keys.masked_fill(hidden, 0.0).contiguous(),
            values=values.masked_fill(hidden, 0.0).contiguous(),
            visible=visible,
            cos=own_tables[0],
            sin=own_tables[1],
        )


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention output at one position, the last unless said otherwise, as a function of the normed input there.

    Attributes:
        weights: the stored part.
        keys: (B, n_kv_heads, P, d_head) float64, constant; zero where not visible. P = T - 1.
        values: (B, n_kv_heads, P, d_head) float64, constant; zero where not visible.
        visible: (B, P) bool, which earlier positions it attends to, at constant keys.
        cos: (B, 1, r) rotation at the position, or None.
        sin: (B, 1, r), or None.
    """

    weights: AttentionWeights
    keys: Tensor
    values: Tensor
    visible: Tensor
    cos: Tensor | None
    sin: Tensor | None

    def __call__(self, y: Tensor, others: Sequence[Shown] = ()) -> Tensor:
        """Map y (B, *, d), the normed input at the position, to the attention output (B, *, d).

        Args:
            y: the normed input.
            others: what earlier positions that are not constant show to this one; extra dimensions as those of y.
        """
        weights = self.weights
        flat = y.reshape(y.shape[0], -1, y.shape[-1])  # (B, R, d)
        batch, variants = flat.shape[:2]
        kv_heads, group, d_head = weights.n_kv_heads, weights.n_heads // weights.n_kv_heads, weights.d_head
        query = weights.queries(flat, self.cos, self.sin)  # (B, R, H, d_head)
        query = query.unflatten(2, (kv_heads, group)).transpose(1, 2)  # (B, Hkv, R, G, d_head)
        moving = [*others, self.shown(flat)]  # the own one last
        stacked = query.reshape(batch, kv_heads, variants * group, d_head)
        past_scores = (stacked @ self.keys.mT).unflatten(2, (variants, group))  # (B, Hkv, R, G, P)
        moving_scores = [(query * key).sum(-1, keepdim=True) for key, _ in moving]  # (B, Hkv, R, G, 1) each
        scores = torch.cat([past_scores, *moving_scores], -1) * weights.scale  # (B, Hkv, R, G, P + M)
        if weights.softcap is not None:
            scores = weights.softcap * torch.tanh(scores / weights.softcap)
        if self._unseen is not None:
            scores = scores.masked_fill(functional.pad(self._unseen, (0, len(moving))), -torch.inf)
        pattern = scores.softmax(-1)
        past = self.keys.shape[2]
        past_pattern = pattern[..., :past].reshape(batch, kv_heads, variants * group, -1)
        mixed = (past_pattern @ self.values).unflatten(2, (variants, group))  # (B, Hkv, R, G, d_head)
        for place, (_, value) in enumerate(moving, start=past):
            mixed = mixed + pattern[..., place : place + 1] * value
        merged = mixed.transpose(1, 2).reshape(batch, variants, -1)  # (B, R, H * d_head)
        return weights.output(merged).reshape(y.shape)

    def shown(self, y: Tensor) -> Shown:
        """Key and value of the position, from its normed input y (B, *, d)."""
        flat = y.reshape(y.shape[0], -1, y.shape[-1])  # (B, R, d)
        key, value = self.weights.keys(flat, self.cos, self.sin), self.weights.values(flat)
        return key.transpose(1, 2).unsqueeze(3), value.transpose(1, 2).unsqueeze(3)

    def before(self, first: Tensor) -> Attention:
        """Return the same with constants of the positions before `first` (B,) int64 alone."""
        visible = self.visible & (torch.arange(self.visible.shape[1], device=first.device) < first[:, None])
        hidden = ~visible[:, None, :, None]
        keys, values = self.keys.masked_fill(hidden, 0.0), self.values.masked_fill(hidden, 0.0)
        return dataclasses.replace(self, keys=keys, values=values, visible=visible)

    @cached_property
    def _unseen(self) -> Tensor | None:
        """Constant positions that this one does not attend to, (B, 1, 1, 1, P) bool; None if it attends to all."""
        return None if bool(self.visible.all()) else ~self.visible[:, None, None, None]

    def select(self, indices: Tensor) -> Attention:
        """Return the same attention for the prompts `indices` (n,) int64."""
        return dataclasses.replace(
            self,
            keys=self.keys[indices],
            values=self.values[indices],
            visible=self.visible[indices],
            cos=None if self.cos is None else self.cos[indices],
            sin=None if self.sin is None else self.sin[indices],
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first r entries of each head, halves of them paired: x cos + (-x2, x1) sin.

    Args:
        x: (B, n, heads, d_head).
        cos: (n, r), or (B, 1, r) for one position a prompt; r is at most d_head.
        sin: as cos.
    """
    width = cos.shape[-1]
    turned, kept = x[..., :width], x[..., width:]
    first, second = turned.chunk(2, -1)
    turned = turned * cos.unsqueeze(-2) + torch.cat([-second, first], -1) * sin.unsqueeze(-2)
    return turned if kept.shape[-1] == 0 else torch.cat([turned, kept], -1)
