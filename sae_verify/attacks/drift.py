"""The threat drift(t) for a search: which perturbations move the code of S by at most t times its length, in float64.

The set is no polyhedron, and need not be convex: features turn on and off. A point that drifts too far is drawn towards
one that does not drift at all, as far as it has to be.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch

MARGIN = 1e-9
"""Relative: how far below the allowed drift float64 has to see it; inward only."""
ROUNDINGS = 32.0
"""Times d u ||h|| ||W_S||: what rounding may amount to in a proof that the drift is within its limit; inward only."""
HALVINGS = 18
"""Of the segment between a perturbation that drifts too far and one that does not drift at all."""


def _features(batch: Batch) -> torch.Tensor:
    return torch.tensor(list(batch.problem.held_features), dtype=torch.long)


def _point(batch: Batch) -> torch.Tensor:
    """Where the drift is limited, (B, d)."""
    if batch.problem.threat.at == "h":
        return batch.h
    return torch.from_numpy(np.stack([instance.x for instance in batch.instances]))


def drift_of(batch: Batch, delta: Array) -> Array:
    """||E_S(y + delta) - E_S(y)|| in float64, (B, R) for delta (B, R, d)."""
    at, index = _point(batch), _features(batch)
    before = batch.sae.encode(at)[:, None, index]  # (B, 1, n)
    after = batch.sae.encode(at[:, None] + torch.from_numpy(delta))[..., index]
    return (after - before).norm(dim=-1).numpy()


def share_of_code(batch: Batch, share: float) -> Array:
    """share ||E_S(y)||, (B,)."""
    return share * batch.sae.encode(_point(batch))[:, _features(batch)].norm(dim=-1).numpy()


def allowed_drift(batch: Batch) -> Array:
    """t ||E_S(y)||, (B,), of the batch's own threat."""
    return share_of_code(batch, batch.problem.threat.drift or 0.0)


def safe_drift(batch: Batch) -> Array:
    """What a search allows, (B,): `allowed_drift` less what rounding in a proof may amount to; maybe negative."""
    at, index = _point(batch), _features(batch)
    weight = batch.sae.W_enc[:, index].norm() * batch.sae.normalization.linear_scale("the held set 'drift'")
    size = at.norm(dim=-1) * weight + batch.sae.b_dec.norm() * batch.sae.W_enc[:, index].norm()
    return allowed_drift(batch) * (1.0 - MARGIN) - ROUNDINGS * batch.sae.d_in * 2.0**-53 * size.numpy()


def keeps(batch: Batch, delta: Array) -> NDArray[np.bool_]:
    """Which of (B, R, d) drift by no more than that, or not at all."""
    moved = drift_of(batch, delta)
    return (moved <= safe_drift(batch)[:, None]) | ~delta.any(axis=2)


def drawn_in(batch: Batch, delta: Array, anchor: Array) -> Array:
    """Each of (B, R, d), or the last point on the way to it from its anchor, which does not drift, that is allowed."""
    limit = safe_drift(batch)[:, None]
    good = drift_of(batch, delta) <= limit
    if good.all():
        return delta
    low, high = np.zeros(good.shape), np.ones(good.shape)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        inside = drift_of(batch, anchor + middle[..., None] * (delta - anchor)) <= limit
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(good[..., None], delta, anchor + low[..., None] * (delta - anchor))
