"""Projected gradient ascent on the float64 tail, all prompts and restarts at once.

Only the tail after the hook runs. The perturbation itself, not its gradient, is projected onto what is held, exactly,
in every step: every iterate is admissible. A perturbation of several positions is one vector, and d its width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.attacks.closed_form import first_order, steepest, value_and_gradient, values
from sae_verify.attacks.drift import keeps
from sae_verify.attacks.projection import project_batch
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch

POLISH = 40
"""Conditional-gradient steps at most."""
FRACTIONS = np.array([1.0, 0.6, 0.3, 0.1, 0.03, 0.01])
"""How far along such a step the readout is tried."""


@dataclass(frozen=True)
class Pgd:
    """Settings of the ascent.

    Attributes:
        steps: gradient steps at each radius.
        restarts: random starts beside zero and the first-order attack.
        seed: of the random starts.
        largest: times ||h||: the largest radius tried.

    """

    steps: int = 24
    restarts: int = 2
    seed: int = 0
    largest: float = 2.0


@dataclass(frozen=True, eq=False)
class Attack:
    """The best perturbation of each prompt at its radius: delta (B, d), value (B,) of the float64 tail."""

    delta: Array
    value: Array


def step_lengths(steps: int) -> Array:
    """Lengths of the steps in units of the radius: long ones find the region, short ones settle on the sphere."""
    return np.geomspace(2.0, 0.1, steps)


def ascend(batch: Batch, radii: Array, start: Array, steps: int) -> Attack:
    """Projected gradient ascent from `start`, (B, R, d); the best iterate of each prompt."""
    delta = project_batch(batch, start, radii)
    here, gradient = value_and_gradient(batch, delta)
    best_value, best = here.max(axis=1), delta[np.arange(len(delta)), here.argmax(axis=1)]
    for length in step_lengths(steps):
        size = np.linalg.norm(gradient, axis=2, keepdims=True)
        move = gradient / np.maximum(size, 1e-300) * radii[:, None, None] * length
        delta = project_batch(batch, delta + move, radii)
        here, gradient = value_and_gradient(batch, delta)
        top = here.argmax(axis=1)
        better = here[np.arange(len(delta)), top] > best_value
        best_value = np.where(better, here.max(axis=1), best_value)
        best = np.where(better[:, None], delta[np.arange(len(delta)), top], best)
    return Attack(best, best_value)


def settle(batch: Batch, radii: Array, found: Attack) -> Attack:
    """Polish by conditional gradient: move towards the worst case of the linearisation, as far as the readout rises."""
    delta, value = found.delta.copy(), found.value.copy()
    moving = np.arange(len(delta))
    for _ in range(POLISH):
        part = batch.select(moving.tolist())
        _, gradient = value_and_gradient(part, delta[moving, None])
        step = steepest(part, gradient[:, 0], radii[moving]) - delta[moving]  # (n, d); what is between is admissible
        trial = delta[moving, None] + FRACTIONS[None, :, None] * step[:, None]  # (n, F, d)
        reached = values(part, trial)
        if batch.problem.threat.held == "drift":  # unless features turn on and off there
            reached = np.where(keeps(part, trial), reached, -np.inf)
        top = reached.argmax(axis=1)
        best = reached[np.arange(len(top)), top]
        better = best > value[moving]
        delta[moving[better]] = trial[np.arange(len(top)), top][better]
        worthwhile = best > value[moving] + 1e-9 * (1.0 + np.abs(value[moving]))
        value[moving] = np.maximum(value[moving], best)
        moving = moving[worthwhile]
        if not moving.size:
            break
    return Attack(delta, value)


def attack(batch: Batch, radii: Array, settings: Pgd, hint: Array | None = None) -> Attack:
    """Worst admissible perturbation found at each prompt's radius.

    Args:
        batch: the prompts.
        radii: (B,) absolute l2 radii.
        settings: steps and restarts.
        hint: (B, d) a further starting point.

    """
    batch = batch.within(radii)
    width = batch.h.shape[1]
    starts = [first_order(batch, radii)] + ([hint] if hint is not None else [])
    # Of each prompt its own, whatever others are in the batch.
    drawn = [np.random.default_rng((settings.seed, i.index)) for i in batch.instances]
    noise = np.stack([one.normal(size=(settings.restarts, width)) for one in drawn], axis=1)
    noise *= radii[:, None] / np.linalg.norm(noise, axis=2, keepdims=True)
    start = np.stack([*starts, *noise], axis=1)  # (B, R, d)
    found = settle(batch, radii, ascend(batch, radii, start, settings.steps))
    zero = values(batch, np.zeros((len(radii), 1, width)))[:, 0]
    still = found.value < zero  # zero is always admissible
    return Attack(np.where(still[:, None], 0.0, found.delta), np.where(still, zero, found.value))
