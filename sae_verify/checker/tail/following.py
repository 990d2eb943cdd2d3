"""How means under a softmax follow what is not linear in the scores. Theorem: attention-remainder (h)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..arithmetic import Array, gamma
from .crossed import crossed, linear, nonlinear
from .measure import WHOLE, Measure, Measured
from .series import excess2
from .signless import Signless, signs_free
from .sizes import grow
from .softmax import Softmax
from .taylor import Taylor


@dataclass(frozen=True, eq=False)
class Following:
    """What bounds of how means F follow r have in common; l is the softmax's own scores, r all else.

    Attributes:
        softmax: its scores may have only rounding besides their linear part.
        rest: sup |r_j|, centred under the pattern, (P,). largest: sup |r_j| without that.
    """

    softmax: Softmax
    rest: Array
    largest: float

    @cached_property
    def slip(self) -> float:
        """Of the scores with r."""
        return self.softmax.slip * (1 + float(self.rest.max(initial=0.0)))

    @cached_property
    def moving(self) -> Softmax:
        """The pattern with scores l + s r, s in [0, 1]."""
        return Softmax(self.softmax.pattern, self.softmax.scores.loosened(self.rest), self.slip)

    @cached_property
    def steep(self) -> Array:
        """sup |exp(x) - 1| / (|x| Z), (P,)."""
        return self.moving.alone[1] * (1 + 8 * self.slip)

    def free(self, factor: Array, share: float) -> Signless:
        """All x_j root_j with |x_j| at most factor_j (|l_j| + share r_j)."""
        return self.softmax.free(factor, factor * (self.softmax.scores.loose + share * self.rest))

    @cached_property
    def products(self) -> Signless:
        """Of phi_j r_j."""
        return self.free(self.steep * self.rest, 0.5)

    @cached_property
    def means(self) -> Signless:
        """Of phi_j."""
        return self.free(self.steep, 1.0)

    def together(self, weights: Array, by: Measure, answer: Any, cross: Any, mean_moves: Any, rest_moves: float) -> Any:
        """The bound for weights (n, P).

        Args:
            weights: see above.
            by: what is bounded.
            answer: of F'(0) r.
            cross: of sum p phi r w, without what 1/Z - 1 adds.
            mean_moves: of sum p phi w.
            rest_moves: of sum p phi r.

        """
        # Sums that are 0 are so up to rounding.
        p, columns = self.softmax.pattern, by.columns(weights)
        longest = columns.max(axis=-1, initial=0.0)
        reach = 1 + float(self.moving.reach.max(initial=0.0)) + self.largest
        off = by.vector((weights * p).sum(axis=1)) + (gamma(len(p)) + 4 * self.slip) * (columns @ p + longest)
        found = cross + self.moving.partition * answer + np.minimum(mean_moves, 2 * longest) * rest_moves
        return grow(found + 8 * off * reach * reach)

    def coarsely(self, weights: Array, by: Measure = WHOLE) -> Any:
        """The same as `followed` from sizes alone, for r not centred yet: a bound that is cheap and looser."""
        p, line, scaled = self.softmax.pattern, self.softmax.scores, Measured(weights * self.softmax.root, by)
        answer = (by.columns(weights) * p) @ self.rest
        rest_moves = float(p @ (self.steep * self.rest * (line.reach + self.rest)))
        return self.together(weights, by, answer, self.products.total(scaled), self.means.total(scaled), rest_moves)


def sizes_followed(softmax: Softmax, rest: Array) -> Following:
    """From sup |r_j|, `rest` (P,), alone."""
    return Following(softmax, grow(rest + float(softmax.pattern @ rest)), float(rest.max(initial=0.0)))


def followed(softmax: Softmax, weights: Array, scores: Taylor) -> float:
    """sup ||F(l + r) - F(l) - F'(0) r||: how the mean F follows what is not linear in the scores.

    l is the linear part of the softmax's own scores, which may have only rounding besides; r is all that is not linear
    in `scores`. With x = l + s r, both centred, and phi = exp(x) / Z - 1, the difference is the mean over s in [0, 1]
    of sum p_j phi_j r_j w_j - (sum p_j phi_j w_j) (sum p_j phi_j r_j).
    """
    p, line, domain = softmax.pattern, softmax.scores, softmax.scores.domain
    centred = scores.mapped(np.eye(len(p)) - p)
    response, rest, fixed = weights * p, centred.rest, line.loose
    at, answer = Following(softmax, rest, float(scores.rest.max(initial=0.0))), scores.mapped(response).rest_norm
    moving, steep, root, slip, scaled = (
        at.moving,
        at.steep,
        softmax.root,
        at.slip,
        Measured(weights * softmax.root, WHOLE),
    )
    # (exp(x) - 1) / Z is positive times x; it is x, and what the second order of exp and 1/Z - 1 change in it.
    bend = np.minimum(0.5 * moving.reach * excess2(moving.reach) + moving.partition, np.maximum(steep - 1.0, 1.0))
    bend = grow(bend * (1 + 8 * slip) + 8 * slip)
    lines, rests = linear(domain, line.jacobian), nonlinear(centred)
    split = (
        crossed(response, lines, rests)
        + 0.5 * crossed(response, rests, rests)
        + at.free(bend * rest, 0.5).total(scaled)
    )
    split += softmax.free(fixed, rest * fixed).least(scaled)
    cross = min(at.products.total(scaled), split)
    # exp(x) - 1 as it is, or as x + (exp(x) - 1 - x).
    first = domain.matrix(response @ line.jacobian) + answer + softmax.free(fixed, fixed).least(scaled)
    curved = at.free(0.5 * moving.reach + moving.cubic, 1.0).total(scaled)
    mean_moves = min(at.means.total(scaled), first * (1 + moving.partition) + curved)
    alone = p[None]
    rest_moves = crossed(alone, lines, rests) + crossed(alone, rests, rests) + float(p @ (rest * fixed))
    rest_moves += signs_free(domain, root[None], (root * bend * rest)[:, None] * line.jacobian)
    rest_moves += float(p @ (bend * rest * (fixed + rest)))
    return float(at.together(weights, WHOLE, answer, cross, mean_moves, rest_moves))
