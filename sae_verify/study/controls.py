"""What a recovery has to be compared with: random perturbations, other tokens, and the model without its clamp."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sae_verify.attacks import Pgd, attack, smallest_radius
from sae_verify.attacks.closed_form import values
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import Clamp, LogitDifference, Problem, Readout
from sae_verify.study.ladder import with_threat

DRAWS = 256


def random_shares(batch: Batch, radii: Array, factors: Sequence[float], seed: int, draws: int = DRAWS) -> Array:
    """How often random directions recover: shares, (B, factors), of the float64 tail.

    Directions are uniform in the null space of what is held (its half-spaces are ignored, in the adversary's favour),
    with length factor * radius.

    Args:
        batch: the prompts under one threat model.
        radii: (B,) absolute; NaN rows give NaN.
        factors: multiples of the radius.
        seed: of the draws.
        draws: directions a prompt and factor.

    """
    noise = np.random.default_rng(seed).normal(size=(len(radii), draws, batch.h.shape[1]))
    for row, instance in zip(noise, batch.instances, strict=True):
        row[:] = instance.inner.free_part(row)
    noise /= np.maximum(np.linalg.norm(noise, axis=2, keepdims=True), 1e-300)
    tau = np.array([instance.tau for instance in batch.instances])
    shares = [
        (values(batch, np.nan_to_num(factor * radii)[:, None, None] * noise) > tau[:, None]).mean(axis=1)
        for factor in factors
    ]
    return np.where(np.isfinite(radii)[:, None], np.stack(shares, axis=1), np.nan)


def other_token(problem: Problem, batch: Batch, settings: Pgd, seed: int) -> Array:
    """Radius, (B,), at which an arbitrary other token overtakes the clamped model's first choice; nothing is held.

    The token is drawn among those that are neither part of the readout nor the first choice.
    """
    generator = np.random.default_rng(seed)
    readouts: list[Readout] = []
    for instance in batch.instances:
        first = instance.ranking[0]
        barred = {first, instance.readout.positive, instance.readout.negative}
        choices = [token for token in range(problem.model.d_vocab) if token not in barred]
        readouts.append(LogitDifference(int(generator.choice(choices)), first))
    return _radius(dataclasses.replace(with_threat(problem, "free"), readout=readouts), settings)


def unclamped(problem: Problem, batch: Batch, settings: Pgd) -> Array:
    """Radius, (B,), at which a perturbation takes the behaviour away from the model without a clamp; nothing is held.

    Measured where the clamp would act, in units of length; the readout is reversed.
    """
    nothing = Clamp.add({problem.clamp.features[0]: 0.0})
    readouts: list[Readout] = []
    for instance in batch.instances:
        rival = instance.readout.negative
        if rival is None:
            rival = next(token for token in instance.ranking if token != instance.readout.positive)
        readouts.append(LogitDifference(rival, instance.readout.positive))
    return _radius(dataclasses.replace(with_threat(problem, "free"), clamp=nothing, readout=readouts), settings)


def _radius(problem: Problem, settings: Pgd) -> Array:
    """Shortest perturbation found, (B,), in absolute units; inf where none was."""
    batch = prepare(problem)
    norms = np.array([instance.norm_h for instance in batch.instances])
    top = attack(batch, norms, settings)
    return smallest_radius(batch, settings, np.zeros(len(norms)), top)[0]
