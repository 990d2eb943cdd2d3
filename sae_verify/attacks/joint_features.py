"""What is held at several layers as a function of the one perturbation: its Jacobian, null space and violation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae_verify.attacks.joint import Joint, Kept
from sae_verify.geometry.held_cell import Array

RANK = 1e-9
"""Relative singular value below which rows of the Jacobian count as dependent."""


def displacements(joint: Joint, delta: Array) -> list[Array]:
    """Displacement of what is held at every layer in float64, (B, R, d) each, for delta (B, R, d)."""
    with torch.no_grad():
        return [one.numpy() for one in joint.displacements(torch.from_numpy(delta))]


def pull_back(joint: Joint, delta: Array, rows: Sequence[Array]) -> Array:
    """Gradients in delta of linear functions of the later layers' displacements, (B, R, K, d).

    Args:
        joint: the layers.
        delta: (B, R, d).
        rows: one array a later layer, (B, R, K_l, d); K is the sum of all K_l, in this order.

    Cost: K forward and backward passes through the blocks between the hooks, in one batch.
    """
    counts = [some.shape[2] for some in rows]
    if not sum(counts):
        return np.zeros((*delta.shape[:2], 0, delta.shape[2]))
    leaf = torch.from_numpy(delta)[:, :, None].expand(-1, -1, sum(counts), -1).clone().requires_grad_()
    with torch.enable_grad():
        later = joint.displacements(leaf)[1:]  # (B, R, K, d) each
        places = np.cumsum([0, *counts])
        terms = [
            (moved[:, :, start:end] * torch.tensor(some)).sum()
            for moved, some, start, end in zip(later, rows, places, places[1:], strict=False)
        ]
        (gradient,) = torch.autograd.grad(torch.stack(terms).sum(), leaf)
    return gradient.numpy()


def feature_jacobian(joint: Joint, delta: Array) -> Array:
    """Jacobian of the joint map from delta to everything that keeps its value, at delta (B, d): (B, n, d).

    Rows are orthonormal combinations of the encoder columns that are held as equalities, first layer first; a prompt
    with fewer has zero rows.
    """
    basis = [
        np.broadcast_to(one.kept.basis[:, None], (len(delta), 1, *one.kept.basis.shape[1:])) for one in joint.later
    ]
    return np.concatenate([joint.first.basis, pull_back(joint, delta[:, None], basis)[:, 0]], axis=1)


def null_space(joint: Joint, delta: Array) -> list[Array]:
    """Orthonormal basis, (d, k), of the directions in which nothing held moves to first order; one a prompt."""
    found = []
    for rows in feature_jacobian(joint, delta):
        _, sigma, right = np.linalg.svd(rows)
        rank = int((sigma > RANK * max(float(sigma.max(initial=0.0)), 1e-300)).sum())
        found.append(right[rank:].T)
    return found


def violation(kept: Kept, moved: Array) -> Array:
    """How far displacements (B, R, d) leave what is held at a layer, (B, R): 0 where they keep it.

    The largest of |w . D| / (||w|| ||D||) over rows that are held as equalities, and of what half-spaces are exceeded
    by, in the same units. Without the search's margins: the cells as they are.
    """
    size = np.maximum(np.linalg.norm(moved, axis=2), 1e-300)  # (B, R)
    worst = np.zeros(size.shape)
    for b, cell in enumerate(kept.cells):
        if cell.equal.size:
            length = np.maximum(np.linalg.norm(cell.equal, axis=1), 1e-300)
            worst[b] = np.maximum(worst[b], (np.abs(moved[b] @ cell.equal.T) / length).max(axis=1) / size[b])
        for half in cell.half_spaces:
            length = np.maximum(np.linalg.norm(half.normals, axis=1), 1e-300)
            over = (half.sign * (moved[b] @ half.normals.T) - half.slack) / length
            worst[b] = np.maximum(worst[b], over.max(axis=1, initial=0.0) / size[b])
    return worst
