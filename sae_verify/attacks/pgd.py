"""Projected gradient ascent on the float64 tail, all prompts and restarts at once, and the smallest recovering radius.

Only the tail after the hook runs. The perturbation itself, not its gradient, is projected onto what is held, exactly,
in every step: every iterate is admissible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.attacks.closed_form import first_order, value_and_gradient, values
from sae_verify.attacks.projection import project_batch
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch


@dataclass(frozen=True)
class Pgd:
    """Settings of the ascent.

    Attributes:
        steps: gradient steps at each radius.
        restarts: random starts beside zero and the first-order attack.
        seed: of the random starts.
        precision: relative width at which the radius bisection stops.
        largest: times ||h||: the largest radius tried.

    """

    steps: int = 40
    restarts: int = 2
    seed: int = 0
    precision: float = 2e-4
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


def attack(batch: Batch, radii: Array, settings: Pgd, hint: Array | None = None) -> Attack:
    """Worst admissible perturbation found at each prompt's radius.

    Args:
        batch: the prompts.
        radii: (B,) absolute l2 radii.
        settings: steps and restarts.
        hint: (B, d) a further starting point.

    """
    generator = np.random.default_rng(settings.seed)
    width = batch.h.shape[1]
    starts = [first_order(batch, radii)] + ([hint] if hint is not None else [])
    noise = generator.normal(size=(settings.restarts, len(radii), width))
    noise *= radii[:, None] / np.linalg.norm(noise, axis=2, keepdims=True)
    start = np.stack([*starts, *noise], axis=1)  # (B, R, d)
    found = ascend(batch, radii, start, settings.steps)
    zero = values(batch, np.zeros((len(radii), 1, width)))[:, 0]
    still = found.value < zero  # zero is always admissible
    return Attack(np.where(still[:, None], 0.0, found.delta), np.where(still, zero, found.value))


def smallest_radius(
    batch: Batch,
    settings: Pgd,
    lower: Array,
    known: Attack,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:
    """Bisection for the smallest radius at which the ascent breaks the claim.

    Args:
        batch: B prompts.
        settings: steps, precision and the largest radius.
        lower: (B,) radii below which no recovery is expected, e.g. certified ones; zero if unknown. Only saves time.
        known: the attack at the problem's radius.
        tick: called once a round, for progress.

    Returns:
        radii (B,), inf where none was found, and the perturbations (B, d).

    """
    tau = np.array([instance.tau for instance in batch.instances])
    norms = np.array([instance.norm_h for instance in batch.instances])
    high = np.full(len(tau), np.inf)
    best = np.zeros((len(tau), batch.h.shape[1]))
    low = np.minimum(lower, settings.largest * norms)

    def record(rows: Array, found: Attack) -> None:
        for row, delta, value in zip(rows, found.delta, found.value, strict=True):
            length = float(np.linalg.norm(delta))
            if value > tau[row] and length < high[row]:
                high[row], best[row] = length, delta

    everything = np.arange(len(tau))
    record(everything, known)
    for _ in range(40):
        tick()
        limit = settings.largest * norms
        wide = np.where(np.isinf(high), low < limit * (1 - 1e-9), high - low > settings.precision * high)
        rows = np.flatnonzero(wide)
        if not rows.size:
            break
        guess = np.where(np.isinf(high), np.minimum(np.maximum(4 * low, 0.05 * norms), limit), 0.5 * (low + high))
        close = np.isfinite(high) & (low > 0) & (high - low > 4 * settings.precision * low)
        # A proven lower end is usually sharp: look just above it first.
        guess = np.where(close & (low == lower), low * (1 + 2 * settings.precision), guess)[rows]
        part = batch.select(rows.tolist())
        size = np.linalg.norm(best[rows], axis=1, keepdims=True)
        start = np.where(size > 0, best[rows] * guess[:, None] / np.maximum(size, 1e-300), 0.0)
        starts = np.stack([start, first_order(part, guess)], axis=1)
        found = ascend(part, guess, starts, settings.steps // 2)
        record(rows, found)
        failed = found.value <= tau[rows]
        low[rows] = np.where(failed, guess, low[rows])
    return high, best
