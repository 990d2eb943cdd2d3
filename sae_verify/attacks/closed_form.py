"""The first-order attack in closed form: the worst case of the readout's linearisation at the defended state.

Theorem: linear-dual (the maximiser of g . delta over held cell and ball). No iteration; a starting point for PGD.
"""

from __future__ import annotations

import numpy as np
import torch

from sae_verify.attacks.projection import project_batch
from sae_verify.geometry.drift_worst_case import drift_worst_case
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.inside import inside
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.worst_case import worst_case


def value_and_gradient(batch: Batch, delta: Array) -> tuple[Array, Array]:
    """Readout of the float64 tail at h + delta and its gradient: (B, R) and (B, R, d) for delta (B, R, d)."""
    moved = (batch.h[:, None] + torch.from_numpy(delta)).requires_grad_()
    with torch.enable_grad():
        value = batch.readout(moved)
        (gradient,) = torch.autograd.grad(value.sum(), moved)
    return value.detach().numpy(), gradient.numpy()


def values(batch: Batch, delta: Array) -> Array:
    """Readout of the float64 tail at h + delta: (B, R) for delta (B, R, d)."""
    with torch.no_grad():
        return batch.readout(batch.h[:, None] + torch.from_numpy(delta)).numpy()


def first_order(batch: Batch, radii: Array) -> Array:
    """The admissible perturbation of each prompt that raises the linearised readout most, (B, d)."""
    zero = np.zeros((len(radii), 1, batch.h.shape[1]))
    _, gradient = value_and_gradient(batch, zero)
    return steepest(batch, gradient[:, 0], radii)


def steepest(batch: Batch, gradient: Array, radii: Array) -> Array:
    """The admissible perturbation of each prompt that raises a linear function most, (B, d), for gradients (B, d).

    Where the code may drift, one near the worst case of what a bound knows.
    """
    result = np.zeros(gradient.shape)
    for b, (instance, g, radius) in enumerate(zip(batch.instances, gradient, radii.tolist(), strict=True)):
        if instance.outer.drift is not None:
            result[b] = drift_worst_case(instance.outer.drift, g, radius).delta
        else:
            result[b] = inside(instance.inner, worst_case(instance.inner, g, radius).delta, radius)
    if batch.problem.threat.held == "drift":
        return project_batch(batch, result[:, None], radii)[:, 0]
    return result
