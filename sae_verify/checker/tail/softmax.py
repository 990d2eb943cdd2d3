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

from ..arithmetic import Array, Ball, U, gamma
from .crossed import Moves, crossed, linear, nonlinear, signs_free
from .curves import Products
from .elementary import exp
from .measure import ENTRIES, WHOLE, Measure
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
        z = 1.0 + self.pattern[:, None] * _excess2_low(low) * low**2 / 2 - 2 * self.slip
        rising = np.max(grow(_excess3(high)) / np.maximum(z, 0.5) * (1 + 2.0**-40), axis=1)
        r = self.reach
        with np.errstate(divide="ignore", invalid="ignore"):
            falling = np.where(r > 0, np.minimum(r * r / 6, (0.5 * r * r - r + 1) / r), 0.0)
        return grow(np.maximum(rising, falling * (1 + 4 * self.slip)))

    @cached_property
    def moves(self) -> Moves:
        """The linear part of the scores."""
        return linear(self.scores.domain, self.scores.jacobian)

    @cached_property
    def squares(self) -> Products:
        """l_j^2."""
        return Products(self.scores.jacobian, self.scores.jacobian)

    def moved(self, response: Array) -> Taylor:
        """The model of sum_j response_j (c_j + l_j^2 / 2), response (n, P)."""
        return self.scores.mapped(response).with_curve(self.squares, 0.5 * response)

    @cached_property
    def _compared(self) -> dict[int, tuple[NDArray[np.bool_], Array]]:
        return {}

    def compared(self, count: int) -> tuple[NDArray[np.bool_], Array]:
        """The `count` keys that move most, as a mask, and `_coefficients` of them."""
        if count not in self._compared:
            order = np.argsort(-self.pattern * _excess2(self.reach) * self.reach**2)
            chosen = np.zeros(len(order), dtype=bool)
            chosen[order[:count]] = True
            self._compared[count] = chosen, _coefficients(self, chosen)
        return self._compared[count]

    @cached_property
    def partition(self) -> float:
        """sup |1/Z - 1|."""
        return self.shrinkage(np.zeros(len(self.pattern), dtype=bool))

    def shrinkage(self, without: NDArray[np.bool_]) -> float:
        """sup |x / (1 + x)| with x = sum p (exp(c) - 1 - c) over all keys but those of `without` (P,), and the slip."""
        if not self.slip < MOST_SLIP:
            return np.inf
        s = self.scores
        psi = np.where(without, 0.0, np.sqrt(self.pattern * _excess2(self.reach)))
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
            ratio = _excess1(sign * ends)  # a ball of (exp(c) - 1) / c
            z = 1.0 + p * 0.5 * ends**2 * (_excess2_low(ends) if sign > 0 else 0.0)
            top = 1.0 + p * (0.5 * ends**2 * (_excess2(ends) if sign > 0 else 1.0))
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
        simple = self.cubic + (1 + 0.5 * c) * self.pattern * 0.5 * c**2 * _excess2(c)
        return grow(np.minimum(worst + 2.0**-40, simple)), grow(steep + 2.0**-40)


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
    reach, rest = softmax.reach, s.rest
    response = weights * p
    first = by.over(domain, response @ s.jacobian)
    root = np.sqrt(p)
    scaled = weights * root
    columns = by.columns(weights)
    shares, sizes = columns * p, by.of(scaled)

    def moved(factor: Array) -> Any:
        """sup of sum p_j w_j x_j over |x_j| <= factor_j |l_j|."""
        return signs_free(domain, scaled, (root * factor)[:, None] * s.jacobian, by)

    def least(x: Array) -> Any:
        """sup of sum p_j w_j x_j over |x_j| at most x_j."""
        return grow(np.minimum(shares @ x, sizes * length(root * x)))

    shift = moved(rest)
    if (s.curves or s.errors) and by is WHOLE:
        shift = min(shift, crossed(response, softmax.moves, nonlinear(s)))
    shift += least(0.5 * rest * rest)
    hull = columns.max(axis=-1, initial=0.0)
    offset = by.vector(response.sum(axis=1)) + gamma(len(p)) * shares.sum(axis=-1)
    # Keys that can move much are compared with their own model first, which keeps the signs of theta and of 1/Z - 1.
    best: Any = np.inf
    for chosen, slope in map(softmax.compared, movers):
        free = np.where(chosen, 0.0, 1.0)
        whole = by.over(domain, (response * free) @ s.jacobian) + moved(free * 0.5 * reach)
        whole += least(free * (rest + 0.5 * reach * rest))
        best = np.minimum(best, grow(moved(slope) + least(slope * rest) + whole * softmax.partition))
    model = first + moved(0.5 * reach) + least(rest + 0.5 * reach * rest)
    # Beyond the range where the series helps, the mean is still one of the weights.
    return grow(np.minimum(best, grow(hull + model)) + shift + 2 * offset)


@dataclass(frozen=True, eq=False)
class _Following:
    """What bounds of how the mean F follows r have in common; l is the softmax's own scores, r all else.

    Attributes:
        softmax: its scores may have only rounding besides their linear part.
        weights: (n, P). rest: sup |r_j|, centred under the pattern, (P,). largest: sup |r_j| without that.
        answer: sup of F'(0) r. by: what is bounded of F.
    """

    softmax: Softmax
    weights: Array
    rest: Array
    largest: float
    answer: Any
    by: Measure = WHOLE

    @cached_property
    def slip(self) -> float:
        return self.softmax.slip * (1 + float(self.rest.max(initial=0.0)))

    @cached_property
    def moving(self) -> Softmax:
        """The pattern with scores l + s r, s in [0, 1]."""
        return Softmax(self.softmax.pattern, self.softmax.scores.loosened(self.rest), self.slip)

    @cached_property
    def steep(self) -> Array:
        """sup |exp(x) - 1| / (|x| Z), (P,)."""
        return self.moving.alone[1] * (1 + 8 * self.slip)

    @cached_property
    def root(self) -> Array:
        return np.sqrt(self.softmax.pattern)

    @cached_property
    def scaled(self) -> Array:
        return self.weights * self.root

    @cached_property
    def size(self) -> Any:
        return self.by.of(self.scaled)

    @cached_property
    def columns(self) -> Array:
        return self.by.columns(self.weights)

    @cached_property
    def shares(self) -> Array:
        """|p_j w_j|, (P,) or (n, P)."""
        return self.columns * self.softmax.pattern

    def least(self, x: Array) -> Any:
        """sup of sum_j p_j w_j x_j over |x_j| at most x_j."""
        return grow(np.minimum(self.shares @ x, self.size * length(self.root * x)))

    def moved(self, factor: Array, share: float) -> Any:
        """sup of sum_j p_j w_j x_j over |x_j| at most factor_j (|l_j| + share r_j)."""
        line = self.softmax.scores
        size = signs_free(line.domain, self.scaled, (self.root * factor)[:, None] * line.jacobian, self.by)
        return size + self.least(factor * (line.loose + share * self.rest))

    def together(self, cross: Any, mean_moves: Any, rest_moves: float) -> Any:
        """The bound from those of sum p phi r w, without what 1/Z - 1 adds, of sum p phi w and of sum p phi r."""
        # Sums that are 0 are so up to rounding.
        longest, p = self.columns.max(axis=-1, initial=0.0), self.softmax.pattern
        reach = 1 + float(self.moving.reach.max(initial=0.0)) + self.largest
        off = self.by.vector((self.weights * p).sum(axis=1))
        off = off + (gamma(len(p)) + 4 * self.slip) * (self.shares.sum(axis=-1) + longest)
        found = cross + self.moving.partition * self.answer + np.minimum(mean_moves, 2 * longest) * rest_moves
        return grow(found + 8 * off * reach * reach)


def followed_coarsely(softmax: Softmax, weights: Array, rest: Array, by: Measure = WHOLE) -> Any:
    """The same as `followed` from sup |r_j|, `rest` (P,), alone: a bound that is cheap and looser."""
    p, line = softmax.pattern, softmax.scores
    largest, rest = float(rest.max(initial=0.0)), grow(rest + float(p @ rest))
    at = _Following(softmax, weights, rest, largest, (by.columns(weights) * p) @ rest, by)
    rest_moves = float(p @ (at.steep * rest * (line.reach + rest)))
    return at.together(at.moved(at.steep * rest, 0.5), at.moved(at.steep, 1.0), rest_moves)


def followed(softmax: Softmax, weights: Array, scores: Taylor) -> float:
    """sup ||F(l + r) - F(l) - F'(0) r||: how the mean F follows what is not linear in the scores.

    l is the linear part of the softmax's own scores, which may have only rounding besides; r is all that is not linear
    in `scores`. With x = l + s r, both centred, and phi = exp(x) / Z - 1, the difference is the mean over s in [0, 1]
    of sum p_j phi_j r_j w_j - (sum p_j phi_j w_j) (sum p_j phi_j r_j).
    """
    p, line, domain = softmax.pattern, softmax.scores, softmax.scores.domain
    centred = scores.mapped(np.eye(len(p)) - p)
    response, rest, fixed = weights * p, centred.rest, line.loose
    largest = float(scores.rest.max(initial=0.0))
    at = _Following(softmax, weights, rest, largest, scores.mapped(response).rest_norm)
    moving, steep, root, slip = at.moving, at.steep, at.root, at.slip
    # (exp(x) - 1) / Z is positive times x; it is x, and what the second order of exp and 1/Z - 1 change in it.
    bend = np.minimum(0.5 * moving.reach * _excess2(moving.reach) + moving.partition, np.maximum(steep - 1.0, 1.0))
    bend = grow(bend * (1 + 8 * slip) + 8 * slip)
    lines, rests = linear(domain, line.jacobian), nonlinear(centred)
    split = crossed(response, lines, rests) + 0.5 * crossed(response, rests, rests) + at.moved(bend * rest, 0.5)
    split += at.least(rest * fixed)
    cross = min(at.moved(steep * rest, 0.5), split)
    # exp(x) - 1 as it is, or as x + (exp(x) - 1 - x).
    first = domain.matrix(response @ line.jacobian) + at.answer + at.least(fixed)
    mean_moves = min(
        at.moved(steep, 1.0), first * (1 + moving.partition) + at.moved(0.5 * moving.reach + moving.cubic, 1.0)
    )
    alone = p[None]
    rest_moves = crossed(alone, lines, rests) + crossed(alone, rests, rests) + float(p @ (rest * fixed))
    rest_moves += signs_free(domain, root[None], (root * bend * rest)[:, None] * line.jacobian)
    rest_moves += float(p @ (bend * rest * (fixed + rest)))
    return float(at.together(cross, mean_moves, rest_moves))


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


SERIES = 24
"""Terms of the power series of exp below 1; the rest is below 2^-80."""


def _series(c: Array, first: int, scale: float) -> Array:
    """scale * sum over k >= first of c^(k - first) / k!, from above to rounding, for 0 <= c <= 1."""
    total = np.zeros_like(c)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, first + SERIES)]))
    for k in range(first + SERIES - 1, first - 1, -1):
        total = total * c + scale / factorials[k]
    return grow(total + 2.0**-70)


def _excess1(c: Array) -> Ball:
    """(exp(c) - 1) / c, which is positive and rises with c: a ball."""
    small = np.clip(c, -1.0, 1.0)
    total = np.zeros_like(c)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, SERIES + 1)]))
    for k in range(SERIES, 0, -1):
        total = total * small + 1.0 / factorials[k]
    large = np.where(np.abs(c) > 1.0, c, 2.0)
    raised = exp(large)
    direct = (raised.mid - 1.0) / large
    error = (raised.rad + 4 * U * (raised.mid + 1.0)) / np.abs(large)
    near = np.abs(c) <= 1.0
    return Ball(np.where(near, total, direct), grow(np.where(near, 2.0**-45, error)))


def _excess3(c: Array) -> Array:
    """(exp(c) - 1 - c - c^2/2) / c from above, for c >= 0."""
    small = np.minimum(c, 1.0)
    series = _series(small, 3, 1.0) * small**2
    safe = np.maximum(c, 1.0)
    direct = (exp(safe).high - 1.0 - safe - 0.5 * safe**2) / safe + 2.0**-40
    return np.where(c <= 1.0, grow(series), grow(np.maximum(direct, 0.0)))


def _excess2(c: Array) -> Array:
    """2 (exp(c) - 1 - c) / c^2 from above, for c >= 0."""
    small, safe = np.minimum(c, 1.0), np.maximum(c, 1.0)
    direct = 2.0 * (exp(safe).high - 1.0 - safe) / safe**2 + 2.0**-40
    return np.where(c <= 1.0, _series(small, 2, 2.0), grow(direct))


def _excess2_low(c: Array) -> Array:
    """2 (exp(c) - 1 - c) / c^2 from below, for c >= 0: seven terms of its series."""
    return 1.0 + c / 3 * (1 + c / 4 * (1 + c / 5 * (1 + c / 6 * (1 + c / 7 * (1 + c / 8))))) - 2.0**-40
