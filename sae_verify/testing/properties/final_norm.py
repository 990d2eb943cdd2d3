"""final-norm: no perturbation that keeps the code moves a readout through the final norm beyond the bound.

The norm's gain and the two unembedding rows are drawn at random, so that no model is needed; the cell is the SAE's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.bounds import Bound, FinalNormBound
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.instance import FinalNorm, Instance, TokenReadout
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.testing.inputs import readout
from sae_verify.testing.properties.admissible import climb, exits, place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.properties.linear_dual import rounding_of
from sae_verify.testing.rounding import gamma, norm, wide

RAYS = 4
"""Directions along which the attack goes out."""
ASCENTS = 6
"""Steps along the readout's own gradient."""


def bounded(instance: Instance, radius: float) -> Bound:
    """The package's bound."""
    return FinalNormBound().bound(instance, radius)


@dataclass(frozen=True)
class FinalNormProperty:
    """See the module.

    Attributes:
        cells, bound: the code under test.
    """

    cells: Cells = held_cell
    bound: Callable[[Instance, float], Bound] = bounded
    name: str = "final-norm"
    statement: str = "no perturbation that keeps the code moves a readout through the final norm beyond the bound"
    reads: str = "readout reached above its lowest possible value, against the bound above it"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The code held at x, which is the state before the final norm, and a radius of any size."""
        at = place(wide(sae), x)
        cell = self.cells(at.sae, ErrorBall(1.0, held="code"), (), x, x, "outer")
        instance = last_layer(x, cell, readout(at.sae, x, rng, "random" if rng.random() < 0.5 else None), rng, at.size)
        radius = at.size * 10.0 ** rng.uniform(-3, 1)
        found = self.bound(instance, radius)
        w, constant = instance.functional(None)
        size, noise = norm(w), gamma(8 * len(x)) * (norm(w) + abs(constant) + norm(instance.final_norm.shift))

        def value(deltas: Array) -> Array:
            return through_norm(instance, x + deltas, w) + constant

        zero = np.zeros_like(x)
        rays = at.free(np.vstack([w[None], -x[None], rng.standard_normal((RAYS - 2, len(x)))]))
        starts = list(exits(at, zero, rays, radius).good[:, None] * rays)
        delta = zero
        for _ in range(ASCENTS):  # linear worst cases along the gradient are where a concave function's maximum is
            delta = _step(instance, w, x, delta, radius, at.held.rest)
            starts.append(delta)
        best_delta, reached, tried = climb(at, value, np.stack(starts), radius, rng)
        least = constant - size  # nothing is below
        square = norm(instance.final_norm.centre(x + best_delta)) ** 2
        rho = float(np.sqrt(square + len(x) * instance.final_norm.epsilon))
        # What is proven is that linear functions stay below, which the norm divides by rho; so are their roundings.
        longest = norm(x) + radius
        terms = 4.0 * size * longest * (1.0 + (0.0 if found.secant is None else longest / found.secant))
        extra = noise + gamma(8 * len(x)) * terms / rho
        if found.multipliers is not None:
            slope = 2.0 * w  # at least as long as any of them
            extra += (
                rounding_of(at, cell, slope, best_delta, radius, found.multipliers.equal, found.multipliers.upper) / rho
            )
        best = Strongest()
        best.offer(
            reached - least,
            found.value - least + extra,
            lambda: {"w": w, "constant": constant, "radius": radius, "bound": found.value, "x": x, "delta": best_delta},
            tried,
        )
        return best.attempt()


def _step(instance: Instance, w: Array, x: Array, delta: Array, radius: float, free: Callable[[Array], Array]) -> Array:
    """The point of the ball, within the equalities, that is farthest along the readout's gradient at delta."""
    z = instance.final_norm.centre(x + delta)
    square = float(z @ z) + len(x) * instance.final_norm.epsilon
    slope = free(instance.final_norm.centre(w / np.sqrt(square) - (w @ z) * z / square**1.5))
    length = norm(slope)
    return slope * (radius / length) if length > 0 else delta


def through_norm(instance: Instance, states: Array, w: Array) -> Array:
    """w . P h / rho at states h before the final norm, (n, d) to (n,)."""
    z = instance.final_norm.centre(states)
    rho = np.sqrt((z * z).sum(axis=-1) + states.shape[-1] * instance.final_norm.epsilon)
    return z @ w / rho


def last_layer(x: Array, cell: HeldCell, g: Array, rng: np.random.Generator, size: float) -> Instance:
    """A last-layer question with a random norm; its readout's row is g or close to it."""
    d = len(x)
    centred = bool(d > 1 and rng.random() < 0.5)
    gain = 1.0 + 0.3 * rng.standard_normal(d)
    shift = 0.3 * rng.standard_normal(d) if centred else np.zeros(d)
    epsilon = float(rng.choice([1e-5, 1e-2])) * size**2 / d
    return Instance(
        index=0,
        tokens=(0,),
        x=x,
        h=x,
        norm_h=norm(x),
        norm_e=1.0,
        radius=1.0,
        outer=cell,
        inner=cell,
        readout=TokenReadout(0, 1),
        tau=0.0,
        base=0.0,
        defended=0.0,
        blocks_after=0,
        final_norm=FinalNorm(centred, gain, shift, epsilon),
        unembedding=np.stack([g, np.zeros(d)]),
        ranking=(0, 1),
    )
