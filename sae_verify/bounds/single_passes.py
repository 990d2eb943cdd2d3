"""The largest radius that one pass proves: what passes over whole balls tell about where the next one should be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from scipy.optimize import brentq

from sae_verify.checker.tail.proof import Node

FASTER = 2.0
"""Power of the radius with which what a pass loses grows, at least: it is of second order near the centre."""
SAFELY = 0.995
"""Of the radius at which one pass is expected to prove the claim just so: where that is tried."""
SHORTER = 0.8
"""Factor to the next radius downwards where nothing else is known."""
NOTHING = 1e-300
"""A loss that is none; keeps quotients of the search finite. Nothing that is claimed depends on it."""


@dataclass(frozen=True)
class Passes:
    """What single passes found: the bracket of the radius that one of them proves, and what the last two lost.

    Attributes:
        guess: where the linear model breaks the claim. high: no proof is sought from there on. low, proof: proved.
        losses: radius and loss in units of the margin, the latest last.
    """

    guess: float
    high: float
    low: float = 0.0
    proof: Node | None = None
    losses: tuple[tuple[float, float], ...] = ()

    def after(self, radius: float, lost: float, proof: Node | None) -> Passes:
        """The same, knowing one pass more."""
        losses = (*self.losses[-1:], (radius, lost))
        if proof is None:
            return replace(self, high=min(self.high, radius), losses=losses)
        return replace(self, low=radius, proof=proof, losses=losses)

    def losing(self, share: float) -> float:
        """Where a pass is expected to lose this share of the margin, by a power law between what two of them lost."""
        radius, lost = self.losses[-1]
        if not NOTHING < lost < np.inf:
            return 0.5 * radius if lost > 0 else self.guess
        return radius * (share / lost) ** (1 / self._power)

    @property
    def _power(self) -> float:
        (r, a), (s, b) = self.losses[0], self.losses[-1]
        if r == s or not (NOTHING < a < np.inf and NOTHING < b < np.inf):
            return FASTER
        return max(float(np.log(a / b) / np.log(r / s)), FASTER)

    @property
    def next(self) -> float:
        """The radius to try: where the linear model and the loss are expected to use up the margin."""
        radius, lost = self.losses[-1]
        if not lost < np.inf:
            return 0.5 * radius

        def used(r: float) -> float:
            return r / self.guess + lost * (r / radius) ** self._power - 1.0

        expected = self.high if used(self.high) <= 0 else cast(float, brentq(used, 0.0, self.high))
        if expected * SAFELY < self.high:
            return max(expected * SAFELY, 0.1 * radius)
        return 0.5 * (self.low + self.high) if self.low > 0 else SHORTER * self.high
