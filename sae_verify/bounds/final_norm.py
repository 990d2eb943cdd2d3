"""Exact worst case through the final norm and the unembedding, over a held cell and a ball.

Theorem: final-norm. With z = P(h + delta), rho = sqrt(||z||^2 + d eps0) and readout = w.z / rho + constant:

- level t >= 0: rho >= q.z + q0 sqrt(d eps0) for every unit (q, q0), so readout - constant <= t if
  max (w - t q).z <= t q0 sqrt(d eps0); tight at q = z*/rho*, because w.z - t rho is concave.
- level t < 0: rho <= (rho^2 + s^2) / 2s for every s > 0, tight at s = rho* when the worst case is on the sphere; with a
  LayerNorm, ||P delta||^2 <= r^2 - 2 m sum(delta) + d m^2 for every m, tight at the mean of delta*.

Both leave a linear function of delta, bounded over cell and ball by theorem linear-dual. The search below climbs to a
stationary point, takes q or s there, and finds the least level by Newton's method; the checker proves the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from sae_verify.bounds.bound import Bound, Multipliers
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Instance
from sae_verify.geometry.worst_case import LinearOptimum, project, worst_case

RAISE = 1e-11
"""Times ||w||: how far the searched level is raised, so that its check does not fail on rounding. Upward only."""
LARGEST = 1e3
"""Times ||h||: the largest radius that `certified` tries."""
FAMILY = 8
"""Members of a one-against-all family that are tried; any one of them is a sound bound."""


@dataclass(frozen=True, eq=False)
class _Level:
    """Evidence at one level t: `excess` <= 0 proves readout - constant <= t."""

    t: float
    excess: float
    delta: Array
    optimum: LinearOptimum
    tangent: Array | None
    secant: float | None
    mean: float | None
    rho: float


@dataclass(frozen=True, eq=False)
class _Search:
    """One member of the readout on one instance."""

    instance: Instance
    w: Array
    constant: float

    @property
    def zh(self) -> Array:
        return self.instance.final_norm.centre(self.instance.h)

    @property
    def d_epsilon(self) -> float:
        return len(self.w) * self.instance.final_norm.epsilon

    def at(self, delta: Array) -> tuple[Array, float]:
        """Z and rho at delta."""
        z = self.instance.final_norm.centre(self.instance.h + delta)
        return z, float(np.sqrt(z @ z + self.d_epsilon))

    def climb(self, t: float, radius: float, delta: Array) -> Array:
        """A maximiser of w.z - t rho over cell and ball, from delta: each step ascends."""
        cell, norm = self.instance.outer, self.instance.final_norm
        best = -np.inf
        for _ in range(200):
            z, rho = self.at(delta)
            value = float(self.w @ z) - t * rho
            if value <= best + 1e-15 * (abs(best) + rho):
                break
            best = value
            if t > 0:
                # rho <= (rho^2 + s^2) / 2s at s = rho leaves a projection; the mean of delta does not enter rho.
                target = (rho / t) * self.w - self.zh
                if norm.centred:
                    target = target + delta.mean()
                delta = project(cell, target, radius)
            else:
                delta = worst_case(cell, self.w - (t / rho) * z, radius).delta
        return delta

    def level(self, t: float, radius: float, start: Array) -> _Level:
        """Evidence for level t."""
        delta = self.climb(t, radius, start)
        z, rho = self.at(delta)
        if t >= 0:
            q = z / rho * (1.0 - 2.0**-50)
            slope = self.instance.final_norm.centre(self.w - t * q)
            q0 = np.sqrt(max(0.0, 1.0 - float(q @ q)))
            at_centre = float(slope @ self.zh) - t * q0 * np.sqrt(self.d_epsilon)
            optimum = worst_case(self.instance.outer, slope, radius)
            return _Level(t, at_centre + optimum.dual, delta, optimum, q, None, None, rho)
        mean = float(delta.mean()) if self.instance.final_norm.centred else None
        slope = self.w - (t / rho) * (self.zh - (mean or 0.0))
        squares = float(self.zh @ self.zh) + radius**2 + self.d_epsilon + rho**2 + len(delta) * (mean or 0.0) ** 2
        at_centre = float(self.w @ self.zh) - t * squares / (2 * rho)
        optimum = worst_case(self.instance.outer, slope, radius)
        return _Level(t, at_centre + optimum.dual, delta, optimum, None, rho, mean, rho)

    def least_level(self, radius: float) -> _Level:
        """The smallest level that this method proves, raised by RAISE."""
        lift = RAISE * float(np.linalg.norm(self.w))
        delta = np.zeros_like(self.w)
        z, rho = self.at(delta)
        t = float(self.w @ z) / rho
        for _ in range(60):
            found = self.level(t, radius, delta)
            delta = found.delta
            step = found.excess / found.rho
            if -3 * lift <= step <= -0.5 * lift:
                return found
            # excess falls with t at about the rate rho; aim just above the root.
            t += step + lift
        while found.excess > -0.5 * lift * found.rho:
            t += abs(found.excess) / found.rho + lift
            found = self.level(t, radius, delta)
        return found

    def bound(self, found: _Level, radius: float, against: int | None) -> Bound:
        """The evidence in the form that certificates are written from."""
        return Bound(
            method="final-norm",
            theorem="final-norm",
            radius=radius,
            value=found.t + self.constant + 4 * np.spacing(abs(self.constant) + abs(found.t)),
            against=against,
            multipliers=Multipliers(found.optimum.equal, found.optimum.upper),
            tangent=found.tangent,
            secant=found.secant,
            mean=found.mean,
        )

    def largest_radius(self) -> tuple[_Level, float] | None:
        """The largest radius at which the claim's level is proven, with the evidence."""
        t = self.instance.tau - self.constant
        t -= 4 * np.spacing(abs(self.constant) + abs(t))
        slack = RAISE * float(np.linalg.norm(self.w)) * self.at(np.zeros_like(self.w))[1]
        deltas = {0.0: np.zeros_like(self.w)}

        def excess(radius: float) -> float:
            nearest = min(deltas, key=lambda known: abs(known - radius))
            found = self.level(t, radius, deltas[nearest])
            deltas[radius] = found.delta
            return found.excess + slack

        if excess(0.0) > 0:
            return None
        high = LARGEST * self.instance.norm_h
        radius = high
        if excess(high) > 0:
            near = 0.05 * self.instance.norm_h
            while excess(near) <= 0:
                near *= 4
            radius = float(brentq(excess, 0.0, min(near, high), xtol=1e-9 * near, rtol=1e-9))
        for _ in range(40):
            found = self.level(t, radius, deltas[min(deltas, key=lambda known: abs(known - radius))])
            if found.excess + 0.5 * slack <= 0:
                return found, radius
            radius *= 1.0 - 1e-9
        return None


@dataclass(frozen=True)
class FinalNormBound:
    """Exact on the last layer up to 1e-9 while the ball is active. Cost: tens of linear worst cases."""

    name = "final-norm"

    def applies(self, instance: Instance) -> bool:
        """When nothing but the final norm follows the hook."""
        return instance.blocks_after == 0

    def bound(self, instance: Instance, radius: float) -> Bound:
        """The least proven bound at this radius."""
        choices = []
        for against in instance.members(FAMILY):
            search = _Search(instance, *instance.functional(against))
            choices.append(search.bound(search.least_level(radius), radius, against))
        return min(choices, key=lambda choice: choice.value)

    def certified(self, instance: Instance) -> Bound | None:
        """The claim at the largest radius."""
        choices = []
        for against in instance.members(FAMILY):
            search = _Search(instance, *instance.functional(against))
            found = search.largest_radius()
            if found is not None:
                level, radius = found
                choices.append((radius, search, level, against))
        if not choices:
            return None
        radius, search, level, against = max(choices, key=lambda choice: choice[0])
        return search.bound(level, radius, against)
