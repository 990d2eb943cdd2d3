"""Weighted means under a softmax of scores that move: sum p'_j w_j, p'_j = p_j exp(c_j) / Z, Z = sum p_j exp(c_j).

The scores are centred, sum p_j c_j = 0, so Z >= 1, and the weights too, sum p_j w_j = 0. With L = sum p w (c + c^2/2),

    sum p' w - L = sum p w theta(c) / Z + L (1/Z - 1),    theta(c) = exp(c) - 1 - c - c^2/2,

and c = l + q + e is taken at its linear part l alone in the second-order term. Theorem: attention-remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import Array, gamma
from .crossed import Moves, crossed, linear, nonlinear
from .curves import Products
from .measure import ENTRIES, WHOLE, Measure, Measured
from .series import excess1, excess2, excess2_low, excess3
from .signless import Several, Signless
from .sizes import grow, length
from .taylor import Taylor

PIECES = 24
"""Into which a score's range is cut to bound theta(c) / (c Z)."""
MOVERS = (0, 1, 2)
"""How many of the keys that move most are treated as such; the best choice counts."""
MOST_SLIP = 0.01
"""Above it nothing is said: probabilities so small that they vanish in floats."""


@dataclass(frozen=True, eq=False)
class Softmax:
    """Scores that move and the pattern at their centre.

    Attributes:
        pattern: p (P,), floats near the softmax of the centre.
        scores: model of c (P,), centred so that p.c = 0 up to `slip`; its centre is zero.
        slip: bound of |p.c| and of |sum p - 1|.
    """

    pattern: Array
    scores: Taylor
    slip: float

    @cached_property
    def reach(self) -> Array:
        """sup |c_j|, (P,)."""
        return self.scores.reach

    @cached_property
    def furthest(self) -> float:
        """sup of sum |p'_j - p_j (1 + c_j + c_j^2 / 2)|: at most 2 + sup |c_j| + sup c_j^2 / 2."""
        largest = float(self.reach.max(initial=0.0))
        return float(grow(2 + largest * (1 + largest)))

    @cached_property
    def cubic(self) -> Array:
        """sup |theta(c_j)| / (|c_j| Z), (P,): Z >= 1 + p_j (exp(c_j) - 1 - c_j) since the others' exp(c) >= 1 + c."""
        if not self.slip < MOST_SLIP:
            return np.full(len(self.pattern), np.inf)
        c = self.reach[:, None] * np.linspace(0.0, 1.0, PIECES + 1)  # (P, PIECES + 1)
        low, high = c[:, :-1], c[:, 1:]
        z = 1.0 + self.pattern[:, None] * excess2_low(low) * low**2 / 2 - 2 * self.slip
        rising = np.max(grow(excess3(high)) / np.maximum(z, 0.5) * (1 + 2.0**-40), axis=1)
        r = self.reach
        with np.errstate(divide="ignore", invalid="ignore"):
            falling = np.where(r > 0, np.minimum(r * r / 6, (0.5 * r * r - r + 1) / r), 0.0)
        return grow(np.maximum(rising, falling * (1 + 4 * self.slip)))

    @cached_property
    def moves(self) -> Moves:
        """The linear part of the scores."""
        return linear(self.scores.domain, self.scores.jacobian)

    @cached_property
    def turns(self) -> Moves:
        """What is not linear in the scores."""
        return nonlinear(self.scores)

    @cached_property
    def squares(self) -> Products:
        """l_j^2."""
        return Products(self.scores.jacobian, self.scores.jacobian)

    def moved(self, response: Array) -> Taylor:
        """The model of sum_j response_j (c_j + l_j^2 / 2), response (n, P)."""
        return self.scores.mapped(response).with_curve(self.squares, 0.5 * response)

    @cached_property
    def root(self) -> Array:
        """The roots of the pattern: weights times them are summed with `free` numbers."""
        return np.sqrt(self.pattern)

    def free(self, factor: Array, rest: Array) -> Signless:
        """All x_j root_j with |x_j| <= factor_j |l_j| + rest_j."""
        scores = self.scores
        return Signless(scores.domain, (self.root * factor)[:, None] * scores.jacobian, self.root * rest)

    @cached_property
    def shifts(self) -> Signless:
        """What the quadratic term leaves out where scores are not linear: l_j r_j + r_j^2 / 2."""
        return self.free(self.scores.rest, 0.5 * self.scores.rest**2)

    @cached_property
    def bends(self) -> Signless:
        """What the model has beyond the linear part: r_j and c_j^2 / 2."""
        rest = self.scores.rest
        return self.free(0.5 * self.reach, rest + 0.5 * self.reach * rest)

    @cached_property
    def _several(self) -> dict[tuple[int, ...], tuple[tuple[Compared, ...], Several]]:
        return {}

    def several(self, movers: tuple[int, ...]) -> tuple[tuple[Compared, ...], Several]:
        """With so many keys apart; and `series` and `half` of each, `bends` and `shifts`."""
        if movers not in self._several:
            compared = tuple(map(self._compared, movers))
            pairs = (free for one in compared for free in (one.series, one.half))
            self._several[movers] = compared, Several((*pairs, self.bends, self.shifts))
        return self._several[movers]

    def _compared(self, count: int) -> Compared:
        """With the `count` keys that move most by themselves."""
        order = np.argsort(-self.pattern * excess2(self.reach) * self.reach**2)
        chosen = np.zeros(len(order), dtype=bool)
        chosen[order[:count]] = True
        slope, rest, others = _coefficients(self, chosen), self.scores.rest, np.where(chosen, 0.0, 1.0)
        half = self.free(others * 0.5 * self.reach, others * (rest + 0.5 * self.reach * rest))
        return Compared(others, self.free(slope, slope * rest), half)

    @cached_property
    def partition(self) -> float:
        """sup |1/Z - 1|."""
        return self.shrinkage(np.zeros(len(self.pattern), dtype=bool))

    def shrinkage(self, without: NDArray[np.bool_]) -> float:
        """sup |x / (1 + x)| with x = sum p (exp(c) - 1 - c) over all keys but those of `without` (P,), and the slip."""
        if not self.slip < MOST_SLIP:
            return np.inf
        s = self.scores
        psi = np.where(without, 0.0, np.sqrt(self.pattern * excess2(self.reach)))
        apart = float(np.square(psi * self.reach).sum())
        together = s.domain.matrix(psi[:, None] * s.jacobian) + length(psi * s.rest)
        zeta = grow(0.5 * min(together * together, apart))
        return float(grow(zeta / (1 + zeta) * (1 + 2.0**-40) + 4 * self.slip))

    @cached_property
    def alone(self) -> tuple[Array, Array]:
        """Of a key by itself, two bounds over |c| <= reach, each (P,).

        With Z_j = 1 + p_j (exp(c) - 1 - c): |(exp(c) - 1) / Z_j - c - c^2/2| / |c|, and |exp(c) - 1| / (|c| Z_j).
        """
        if not self.slip < MOST_SLIP:
            return np.full(len(self.pattern), np.inf), np.full(len(self.pattern), np.inf)
        p = self.pattern[:, None]
        ends = self.reach[:, None] * np.linspace(0.0, 1.0, 2 * PIECES + 1)  # (P, pieces + 1)
        worst, steep = np.zeros(len(p)), np.zeros(len(p))
        for sign in (1.0, -1.0):
            ratio = excess1(sign * ends)  # a ball of (exp(c) - 1) / c
            z = 1.0 + p * 0.5 * ends**2 * (excess2_low(ends) if sign > 0 else 0.0)
            top = 1.0 + p * (0.5 * ends**2 * (excess2(ends) if sign > 0 else 1.0))
            if sign < 0:
                z = 1.0 + p * np.maximum(0.5 * ends**2 - ends**3 / 6, ends - 1.0) * (1 - 2.0**-40)
            # Both the ratio and Z rise with c > 0; the ratio falls and Z rises with -c > 0.
            near, far = slice(None, -1), slice(1, None)
            big, small = (far, near) if sign > 0 else (near, far)
            highest = ratio.high[:, big] / np.maximum(z[:, near], 1.0)
            lowest = ratio.low[:, small] / top[:, far]
            line = 1.0 + sign * 0.5 * ends
            over = highest - np.minimum(line[:, near], line[:, far])
            under = np.maximum(line[:, near], line[:, far]) - lowest
            worst = np.maximum(worst, np.maximum(over, under).max(axis=1))
            steep = np.maximum(steep, highest.max(axis=1))
        c = self.reach
        simple = self.cubic + (1 + 0.5 * c) * self.pattern * 0.5 * c**2 * excess2(c)
        return grow(np.minimum(worst + 2.0**-40, simple)), grow(steep + 2.0**-40)


@dataclass(frozen=True, eq=False)
class Compared:
    """How a remainder is bounded with some keys apart.

    Attributes:
        others: 1 for the other keys, 0 for those. series: of theta(c_j) / Z, or a key's own. half: `bends` of others.
    """

    others: Array
    series: Signless
    half: Signless


@dataclass(frozen=True, eq=False)
class Mean:
    """The moving mean of fixed weights: its response to the scores, and its remainder.

    Attributes:
        response: rows p_j w_j, (n, P), that act on c + l^2 / 2.
        box, norm: of the remainder.
    """

    response: Array
    box: Array
    norm: float


def mean(softmax: Softmax, weights: Array, movers: tuple[int, ...] = MOVERS) -> Mean:
    """The mean of `weights` (n, P), centred under the pattern up to rounding; without its value at the centre."""
    norm = float(remainder(softmax, weights, WHOLE, movers))
    return Mean(weights * softmax.pattern, remainder(softmax, weights, ENTRIES, movers), norm)


def remainder(softmax: Softmax, weights: Array, by: Measure = WHOLE, movers: tuple[int, ...] = MOVERS) -> Any:
    """What is left of the mean of `weights` (n, P), centred under the pattern up to rounding, beyond its response."""
    p, s, domain = softmax.pattern, softmax.scores, softmax.scores.domain
    response, scaled = weights * p, Measured(weights * softmax.root, by)
    columns = by.columns(weights)
    compared, several = softmax.several(movers)
    *sums, bends, shift = several.totals(scaled)
    if (s.curves or s.errors) and by is WHOLE:
        shift = min(shift, grow(crossed(response, softmax.moves, softmax.turns) + softmax.shifts.least(scaled)))
    hull = columns.max(axis=-1, initial=0.0)
    offset = by.vector(response.sum(axis=1)) + gamma(len(p)) * (columns @ p)
    linear_part = by.over(domain, response @ s.jacobian)
    # Beyond the range where the series helps, the mean is still one of the weights.
    best = hull + linear_part + bends
    # Keys that can move much are compared with their own model first, which keeps the signs of theta and of 1/Z - 1.
    for one, series, half in zip(compared, sums[::2], sums[1::2], strict=True):
        others = linear_part if one.others.all() else by.over(domain, (response * one.others) @ s.jacobian)
        best = np.minimum(best, grow(series + (others + half) * softmax.partition))
    return grow(best + shift + 2 * offset)


def _coefficients(softmax: Softmax, chosen: NDArray[np.bool_]) -> Array:
    """Bounds of |x_j| / |c_j| for the parts sum p_j w_j x_j of the remainder, (P,).

    A chosen key has exp(c) - 1 over its own Z_j, less its model, and what the other keys' part of Z changes in it; the
    others have theta(c) / Z.
    """
    if not chosen.any():
        return softmax.cubic
    own, steep = softmax.alone
    others = np.array([softmax.shrinkage(_only(j, len(chosen))) if c else 0.0 for j, c in enumerate(chosen)])
    return grow(np.where(chosen, own + steep * others, softmax.cubic))


def _only(index: int, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=bool)
    mask[index] = True
    return mask
