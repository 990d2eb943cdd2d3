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

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar

from sae_verify.bounds.bound import Bound, Multipliers
from sae_verify.geometry.drift_worst_case import drift_worst_case
from sae_verify.geometry.held_cell import Array, Indices, within
from sae_verify.geometry.instance import Instance
from sae_verify.geometry.worst_case import LinearOptimum, project, worst_case

RAISE = 1e-11
"""Times ||w||: how far the searched level is raised, so that its check does not fail on rounding. Upward only."""
CONSTANT_ROUNDING = 2.0**-40
"""Times |beta| . |U_a - U_b|: what two ways to sum the constant may differ by, for up to 8192 terms."""
LARGEST = 1e3
"""Times ||h||: the largest radius that `certified` tries."""
FLAT = 1e-14
"""Times ||w||: a level below this is climbed as zero. This and the next five steer the search, no proof."""
STALLED = 1e-15
"""Times ||w|| rho: a gain of less tells nothing more."""
ON_SPHERE = 1e-9
"""Relative: how near to the radius a point counts as on the sphere."""
SHORT_STEP = (1e-6, 1e-12)
"""Of the point's length, of the radius: a shorter step is mostly rounding and is not prolonged."""
SETTLED = 1e-8
"""Relative: s and m that move by less have settled."""
RADIUS_PRECISION = 1e-10
"""Relative: how sharply the largest certified radius is sought."""
WALKS = 60
"""Conditional-gradient steps where the code may drift."""
WALKED = 1e-9
"""Relative to the gap: such a step that gains less ends the walk; its gap is second order in what is left."""
FAMILY = 8
"""Members of a one-against-all family that are tried; any one of them is a sound bound."""


@dataclass(frozen=True, eq=False)
class _Level:
    """Evidence at one level t: `excess` <= 0 proves readout - constant <= t; it falls with t at the rate `rho`."""

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
    rounding: float

    @classmethod
    def of(cls, instance: Instance, against: int | None) -> _Search:
        """The search for one member."""
        shift = np.abs(instance.row(against)) @ np.abs(instance.final_norm.shift)
        return cls(instance, *instance.functional(against), CONSTANT_ROUNDING * float(shift))

    @cached_property
    def zh(self) -> Array:
        return self.instance.final_norm.centre(self.instance.h)

    @cached_property
    def size(self) -> float:
        return float(np.linalg.norm(self.w))

    @property
    def zone(self) -> float:
        """Levels nearer to zero are avoided: summed in another order, the constant may have either sign."""
        return RAISE * self.size + self.rounding

    @property
    def d_epsilon(self) -> float:
        return len(self.w) * self.instance.final_norm.epsilon

    def at(self, delta: Array) -> tuple[Array, float]:
        """The final residual z and rho at delta."""
        z = self.instance.final_norm.centre(self.instance.h + delta)
        return z, float(np.sqrt(z @ z + self.d_epsilon))

    def worst(self, slope: Array, radius: float) -> LinearOptimum:
        """The linear worst case over what is held and the ball."""
        cell = self.instance.outer
        if cell.drift is not None:
            return drift_worst_case(cell.drift, slope, radius)
        return worst_case(cell, slope, radius)

    def noise(self, radius: float) -> float:
        """What rounding in a check of the excess, and of the level itself, may amount to on a ball of this radius."""
        relative = 4 * len(self.w) * 2.0**-53 * self.size + 2.0**-48 * abs(self.constant) + self.rounding
        return relative * (self.at(np.zeros_like(self.w))[1] + radius)

    def climb(self, t: float, radius: float, delta: Array) -> Array:
        """The maximiser of w.z - t rho over cell and ball, t >= 0, from delta: each step ascends a concave function."""
        cell, norm = self.instance.outer, self.instance.final_norm
        if t <= FLAT * self.size:
            return self.worst(self.w, radius).delta
        if cell.drift is not None:
            return self.walk(t, radius, delta)
        best, shortest, before = -np.inf, np.inf, delta
        for _ in range(200):
            z, rho = self.at(delta)
            value = float(self.w @ z) - t * rho
            # rho <= (rho^2 + s^2) / 2s at s = rho leaves a projection; the mean of delta does not enter rho.
            target = (rho / t) * self.w - self.zh
            if norm.centred:
                target = target + delta.mean()
            moved = self.further(t, radius, delta, project(cell, target, radius))
            moved = self.further(t, radius, before, moved)  # straight across a zigzag
            step = float(np.linalg.norm(moved - delta))
            if value <= best + STALLED * self.size * rho:
                # Values tell no more. Off the sphere the proof needs delta itself: go on while steps get shorter.
                if step >= shortest or np.linalg.norm(delta) >= radius * (1.0 - ON_SPHERE):
                    break
                shortest = step
            best, before, delta = max(best, value), delta, moved
        return delta

    def walk(self, t: float, radius: float, delta: Array) -> Array:
        """The same by conditional gradients, with the best point of each segment, where projecting is dear."""
        for _ in range(WALKS):
            z, rho = self.at(delta)
            slope = self.instance.final_norm.centre(self.w - (t / rho) * z)
            step = self.worst(slope, radius).delta - delta
            along = self.instance.final_norm.centre(step)
            gain = float(slope @ step)
            if gain <= WALKED * self.size * (rho + radius):
                break
            share = minimize_scalar(
                lambda s: t * self.at(delta + s * step)[1] - s * float(self.w @ along),  # noqa: B023 - used at once
                bounds=(0.0, 1.0),
                method="bounded",
                options={"xatol": WALKED},
            )
            delta = delta + float(share.x) * step
        return delta

    def further(self, t: float, radius: float, start: Array, end: Array) -> Array:
        """The best point of the ray from start through end in cell and ball: rho is flat along z; steps are short."""
        cell, step = self.instance.outer, end - start
        if np.linalg.norm(step) <= max(SHORT_STEP[0] * np.linalg.norm(end), SHORT_STEP[1] * radius):
            return end  # mostly rounding, which a long step would blow up
        step = cell.free_part(step)
        along, here = self.instance.final_norm.centre(step), self.at(start)
        a, b, c = float(along @ along), float(along @ here[0]), here[1] ** 2
        gain = float(self.w @ along)
        most = _ball_exit(start, step, radius)
        if not (a > 0 and most > 1):
            return end
        room = t * t * a - gain * gain
        spread = max(a * c - b * b, 0.0)
        length = (gain * np.sqrt(spread / room) - b) / a if room > 0 else np.copysign(np.inf, gain)
        if length <= 1:
            return end
        for half in cell.half_spaces:
            speed = half.sign * (half.normals @ step)
            rising = (speed > 0) & np.isfinite(half.slack)
            left = half.slack[rising] - half.sign * (half.normals[rising] @ start)
            most = min(most, float(np.min(left / speed[rising], initial=np.inf)))
        return start + max(1.0, min(length, most)) * step

    def level(self, t: float, radius: float, start: Array) -> _Level:
        """Evidence for level t."""
        return self._above(t, radius, start) if t >= 0 else self._below(t, radius, start)

    def _above(self, t: float, radius: float, start: Array) -> _Level:
        """Theorem final-norm (a)."""
        if t > self.size:  # the cap: this q leaves nothing
            delta, rho, q = start, self.at(start)[1], self.w / t
        else:
            delta = self.climb(t, radius, start)
            z, rho = self.at(delta)
            q = z / rho * (1.0 - 2.0**-50)
        slope = self.instance.final_norm.centre(self.w - t * q)
        q0 = np.sqrt(max(0.0, 1.0 - float(q @ q)))
        at_centre = float(slope @ self.zh) - t * q0 * np.sqrt(self.d_epsilon)
        optimum = self.worst(slope, radius)
        return _Level(t, at_centre + optimum.dual, delta, optimum, q, None, None, rho)

    def _below(self, t: float, radius: float, start: Array) -> _Level:
        """Theorem final-norm (b), with the least excess over s and m: a convex problem in 1/s and m/s.

        On the sphere s = rho and m = mean of delta are fixed points. Where the maximiser jumps, cutting planes decide.
        """
        centred, d = self.instance.final_norm.centred, len(start)
        fixed = float(self.zh @ self.zh) + radius**2 + self.d_epsilon
        m, s = (float(start.mean()) if centred else 0.0), self.at(start)[1]
        best: _Level | None = None
        seen: list[Array] = []
        for step in range(40):
            slope = self.w - (t / s) * (self.zh - m)
            optimum = self.worst(slope, radius)
            excess = float(self.w @ self.zh) - t * (fixed + d * m * m + s * s) / (2 * s) + optimum.dual
            rate = (fixed + d * m * m + s * s + 2 * float((self.zh - m) @ optimum.delta)) / (2 * s)
            if best is None or excess < best.excess:
                best = _Level(t, excess, optimum.delta, optimum, None, s, m if centred else None, rate)
            seen.append(optimum.delta)
            mean = float(optimum.delta.mean()) if centred else 0.0
            square = fixed + d * mean * mean + 2 * float((self.zh - mean) @ optimum.delta)
            aim = float(np.sqrt(max(square, self.d_epsilon)))
            if abs(aim - s) + np.sqrt(d) * abs(mean - m) <= SETTLED * s:
                break
            if step < 8:
                s, m = aim, mean
                continue
            s, m, least = _cheapest(self.w, self.zh, -t, fixed, np.stack(seen), centred)
            if least >= best.excess - 0.01 * RAISE * self.size * best.rho:
                break
        assert best is not None
        return best

    def least_level(self, radius: float) -> _Level:
        """The smallest level that this method proves, raised by RAISE; never above the cap.

        `excess` is convex and falls, so Newton's method from below does not overshoot. A bracket guards against
        rounding, and against kinks, where it is slow.
        """
        lift = RAISE * self.size
        delta = np.zeros_like(self.w)
        z, rho = self.at(delta)
        noise = self.noise(radius)
        # Just above ||w||, where q = w / t proves the cap: q0 has to pay for the rounding.
        share = noise / max(self.size, 1e-300)
        top = self.size * (1.0 + 1e-12 + 2 * share**2 / max(self.d_epsilon, 1e-300)) + lift
        t = float(self.w @ z) / rho
        low, proven = -np.inf, None
        for count in range(100):
            found = self.level(t, radius, delta)
            step = (found.excess + noise) / found.rho
            if step <= -0.5 * lift:
                if proven is None or t < proven.t:
                    proven = found
                if step >= -2 * lift:
                    break
            else:
                low, delta = max(low, t), found.delta
            newton = t + step + lift
            slow = count >= 8
            if proven is None:
                t = t + (step + lift) * 2.0 ** (count - 8) if slow else newton
            elif proven.t - low <= 2 * lift:
                break
            elif low < newton < proven.t and not (slow and count % 2):
                t = newton
            else:
                t = 0.5 * (max(low, -self.size) + proven.t)
            t = min(t, top)
        if proven is None:
            proven = self.level(top, radius, delta)
        return self.level(self.zone, radius, proven.delta) if abs(proven.t) < self.zone else proven

    def bound(self, found: _Level, radius: float, against: int | None, value: float | None = None) -> Bound:
        """The evidence in the form that certificates are written from."""
        if value is None:
            value = float(found.t + self.constant + 4 * np.spacing(abs(self.constant) + abs(found.t)))
        return Bound(
            method="final-norm",
            theorem="final-norm",
            radius=radius,
            value=value,
            against=against,
            multipliers=Multipliers(found.optimum.equal, self.named(found.optimum)),
            tangent=found.tangent,
            secant=found.secant,
            mean=found.mean,
        )

    def named(self, optimum: LinearOptimum) -> tuple[tuple[Indices, Array], ...]:
        """Multipliers of half-spaces by feature."""
        if self.instance.outer.drift is not None:
            return optimum.upper
        halves = self.instance.outer.half_spaces
        return tuple((half.named(rows), weights) for half, (rows, weights) in zip(halves, optimum.upper, strict=True))

    def claim(self) -> tuple[float, float]:
        """(t, value): the level to prove for the claim, and the bound to record, at most tau and of the same side."""
        tau = self.instance.tau
        t = tau - self.constant
        if self.zone > 0 and abs(t) <= self.zone:
            return -self.zone, min(tau, self.constant - self.zone)
        lower = t - 4 * np.spacing(abs(self.constant) + abs(t))
        return (max(lower, 0.0) if t >= 0 else lower), tau

    def largest_radius(self) -> tuple[_Level, float] | None:
        """The largest radius at which the claim's level is proven, with the evidence."""
        t = self.claim()[0]
        tried: dict[float, _Level] = {}
        reach = self.at(np.zeros_like(self.w))[1]

        def excess(radius: float) -> float:
            if radius not in tried:
                nearest = min(tried, key=lambda known: abs(known - radius), default=None)
                start = np.zeros_like(self.w) if nearest is None else tried[nearest].delta
                tried[radius] = self.level(t, radius, start)
            return tried[radius].excess + RAISE * self.size * (reach + radius) + self.noise(radius)

        if excess(0.0) > 0:
            return None
        low, high = 0.0, 0.05 * self.instance.norm_h
        while excess(high) <= 0 and high < LARGEST * self.instance.norm_h:
            low, high = high, min(4 * high, LARGEST * self.instance.norm_h)
        if excess(high) > 0:
            brentq(excess, low, high, xtol=RADIUS_PRECISION * high, rtol=np.float64(RADIUS_PRECISION))
        radius = max(radius for radius in list(tried) if excess(radius) <= 0)
        return tried[radius], radius


@dataclass(frozen=True)
class FinalNormBound:
    """Exact on the last layer up to 1e-9 while the ball is active. Cost: tens of linear worst cases."""

    name = "final-norm"

    def applies(self, instance: Instance) -> bool:
        """When nothing but the final norm follows the hook."""
        return instance.blocks_after == 0

    def bound(self, instance: Instance, radius: float) -> Bound:
        """The least proven bound at this radius."""
        instance = replace(instance, outer=within(instance.outer, radius))
        choices = []
        for against in instance.members(FAMILY):
            search = _Search.of(instance, against)
            choices.append(search.bound(search.least_level(radius), radius, against))
        return min(choices, key=lambda choice: choice.value)

    def certified(self, instance: Instance) -> Bound | None:
        """The claim at the largest radius."""
        choices = []
        for against in instance.members(FAMILY):
            search = _Search.of(instance, against)
            found = search.largest_radius()
            if found is not None:
                level, radius = found
                choices.append((radius, search, level, against))
        if not choices:
            return None
        radius, search, level, against = max(choices, key=lambda choice: choice[0])
        return search.bound(level, radius, against, search.claim()[1])


def _ball_exit(start: Array, step: Array, radius: float) -> float:
    """The largest length with ||start + length * step|| <= radius, for a start within the ball."""
    a, b = float(step @ step), float(start @ step)
    c = min(float(start @ start) - radius**2, 0.0)
    return (np.sqrt(b * b - a * c) - b) / a if a > 0 else np.inf


def _cheapest(
    w: Array, zh: Array, weight: float, fixed: float, deltas: Array, centred: bool
) -> tuple[float, float, float]:
    """s, m and the excess of theorem final-norm (b) with cell and ball replaced by a few of their points, (n, d)."""
    d = len(w)
    unit = np.sqrt(fixed)
    # Unknowns: u = unit / s, n = sqrt(d) m / s, and the height of the planes a + b u + c n.
    a, b = w @ zh + deltas @ w, weight * (deltas @ zh) / unit
    c = -weight * deltas.sum(axis=1) / np.sqrt(d) if centred else np.zeros(len(deltas))

    def smooth(y: Array) -> tuple[float, Array]:
        u, n, height = y
        value = 0.5 * weight * unit * (u + (n * n + 1) / u) + height
        return value, np.array([0.5 * weight * unit * (1 - (n * n + 1) / u**2), weight * unit * n / u, 1.0])

    planes = {
        "type": "ineq",
        "fun": lambda y: y[2] - a - b * y[0] - c * y[1],
        "jac": lambda _: np.stack([-b, -c, np.ones_like(b)], axis=1),
    }
    start = np.array([1.0, 0.0, float(np.max(a + b))])
    limits = [(1e-3, 1e6), (None, None) if centred else (0.0, 0.0), (None, None)]
    options = {"ftol": 1e-15, "maxiter": 200}
    found = minimize(smooth, start, jac=True, method="SLSQP", bounds=limits, constraints=planes, options=options)
    u, n = max(float(found.x[0]), 1e-3), float(found.x[1])
    least = smooth(np.array([u, n, float(np.max(a + b * u + c * n))]))[0]
    return unit / u, n / u * unit / np.sqrt(d), float(least)
