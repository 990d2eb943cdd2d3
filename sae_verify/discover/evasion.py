"""Recovery perturbations that evade a monitor: still admissible, still recovering, as quiet as can be found.

From a perturbation that recovers, steps go down the loudest detectors along directions that do not lower the readout,
and up the readout where it has fallen below the claim; each is projected onto the held cell and the ball. What is found
counts once the real model has replayed it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_verify.attacks import project_batch, replay
from sae_verify.attacks.closed_form import value_and_gradient
from sae_verify.attacks.radius import MARGIN
from sae_verify.discover.monitor import Monitor
from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch

SHARPNESS = 8.0
"""Of the soft maximum over detectors: the loudest leads, its neighbours are not forgotten."""


@dataclass(frozen=True, eq=False)
class Evasion:
    """Perturbations made to be quiet, (B,) and (B, d), all replayed.

    Attributes:
        delta: the quietest recovering perturbation found, or the one that the search started from.
        excess: of the loudest detector there: 1 is the threshold.
        before: the same at the start.
        recovered: whether the replay breaks the claim with everything held.
        evaded: recovered, and below every threshold.
    """

    delta: Array
    excess: Array
    before: Array
    recovered: NDArray[np.bool_]
    evaded: NDArray[np.bool_]


def seen(batch: Batch, delta: Array, at: str = "h") -> Array:
    """What the monitor sees: h + delta after the clamp, or x + delta before it; (B, d)."""
    if at not in ("h", "x"):
        raise InputError(f"at is {at!r}", rule="it must be 'h' or 'x'")
    if batch.problem.threat.positions > 1:
        raise UnsupportedError(
            f"{batch.problem.threat.positions} perturbed positions",
            rule="a monitor reads one position",
            remedy="use a threat model with positions=1",
        )
    return np.stack([i.h if at == "h" else i.x for i in batch.instances]) + delta


def evade(batch: Batch, monitor: Monitor, start: Array, radii: Array, *, at: str = "h", steps: int = 120) -> Evasion:
    """Make recovering perturbations quiet.

    Args:
        batch: B prompts.
        monitor: calibrated on states at `at`.
        start: (B, d) admissible perturbations, best recovering ones: `Attack.delta`.
        radii: (B,) absolute l2 radii.
        at: what the monitor reads, see `seen`.
        steps: of the search.
    """
    if start.shape != tuple(batch.h.shape) or radii.shape != (len(start),):
        raise ShapeError(f"start {start.shape}, radii {radii.shape}", rule=f"they must be {tuple(batch.h.shape)}, (B,)")
    tau = np.array([instance.tau for instance in batch.instances]) + MARGIN
    delta = start.copy()
    best, quietest = start.copy(), np.full(len(start), np.inf)
    before = _loudest(monitor, seen(batch, start, at))
    for length in np.geomspace(0.3, 0.003, steps):
        value, rise = (part[:, 0] for part in value_and_gradient(batch, delta[:, None]))
        noise, fall = _noise(monitor, seen(batch, delta, at))
        better = (value > tau) & (noise < quietest)
        best[better], quietest[better] = delta[better], noise[better]
        up = _unit(rise)
        down = -_unit(fall)
        lowering = np.minimum((down * up).sum(axis=1, keepdims=True), 0.0)
        along = _unit(down - lowering * up)  # quieter, and the readout no lower to first order
        step = np.where((value > tau)[:, None], along, _unit(up + 0.3 * along))
        moved = delta + radii[:, None] * length * step
        delta = project_batch(batch, moved[:, None], radii)[:, 0]
    shown = replay(batch, best)
    excess = _loudest(monitor, seen(batch, best, at))
    recovered = np.array([r.held and r.value > i.tau for r, i in zip(shown, batch.instances, strict=True)])
    return Evasion(best, excess, before, recovered, recovered & (excess <= 1.0))


def _loudest(monitor: Monitor, states: Array) -> Array:
    with torch.no_grad():
        return monitor.excess(torch.from_numpy(states)).amax(dim=1).numpy()


def _noise(monitor: Monitor, states: Array) -> tuple[Array, Array]:
    """The loudest detector's excess, (B,), and the gradient of the soft maximum, (B, d)."""
    leaf: Tensor = torch.from_numpy(states).requires_grad_()
    with torch.enable_grad():
        excess = monitor.excess(leaf)  # (B, 4)
        soft = torch.logsumexp(SHARPNESS * excess, dim=1) / SHARPNESS
        (gradient,) = torch.autograd.grad(soft.sum(), leaf)
    return excess.detach().amax(dim=1).numpy(), gradient.numpy()


def _unit(v: Array) -> Array:
    return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
