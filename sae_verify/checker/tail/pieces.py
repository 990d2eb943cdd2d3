"""A sharper remainder of a softmax mean: the domain is cut into slabs, and each has a model of its own to compare with.

The scores are c = l + r, l linear. Over a slab around s u, u a direction of the ball, l = b + l' with b = J u s; the
pattern there is p_j exp(b_j), normalised, and the mean has its own value A, response R' and remainder. Its distance
at l from the model at the centre, sum R_j (l_j + l_j^2 / 2) with R = p w, is

    A - R (b + b^2 / 2) + (R' - R - R b) l' + (R' (l' - n)^2 - R l'^2) / 2 + its remainder,

where n is the mean of l' under the pattern there; and r adds (R' - R) r and what `followed` bounds.

Theorem: attention-remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ..arithmetic import Array, U, gamma
from .domain import Domain
from .elementary import exp
from .following import Following, followed, sizes_followed
from .measure import WHOLE, Measure, Measured
from .signless import Signless
from .sizes import grow, length, lengths
from .softmax import Softmax, remainder
from .taylor import Taylor

SLABS = 6
"""Into which the ball is cut."""
CLOSELY = 4
"""Sources of the scores' errors up to which their part is followed closely: with many it costs most and says least."""
WORTHWHILE = 0.03
"""Of |1/Z - 1|: below it the model at the centre is good enough."""


def sharper(softmax: Softmax, weights: Array, norm: float, worthwhile: float = WORTHWHILE) -> float:
    """A bound of the norm of the remainder of `mean(softmax, weights)`; `norm` is the one to improve upon."""
    slabs = cut(softmax, weights, worthwhile)
    return norm if slabs is None or not np.isfinite(norm) else slabs.norm(weights, norm)


@dataclass(frozen=True, eq=False)
class Slabs:
    """The parts of the domain of a softmax's scores; they serve the remainders of all weights.

    Attributes:
        parts: the outermost first, which end what has no prospects.
    """

    softmax: Softmax
    parts: tuple[_Slab, ...]

    def norm(self, weights: Array, norm: float) -> float:
        """A bound of the remainder's norm for weights (n, P); `norm` is the one to improve upon."""
        scores = self.softmax.scores
        weights, off = narrowed(weights)
        # The remainder is sum x_j w_j, x_j = p'_j - p_j (1 + c_j + c_j^2 / 2).
        worst = narrow = off * self.softmax.furthest
        for slab in self.parts:
            one = slab.compared(self.softmax, weights, WHOLE)
            more = one.coarsely()
            if narrow + one.linear + more > worst and len(scores.errors) <= CLOSELY:
                more = min(more, one.closely(scores))
            worst = max(worst, narrow + one.linear + more)
            if worst >= norm:
                return norm
        return float(grow(worst))

    def coarsely(self, weights: Array, by: Measure, known: Any) -> Any:
        """A bound of the remainder for weights (n, P), or of each of its entries, that costs less; at most `known`."""
        worst: Any = 0.0
        for slab in self.parts:
            one = slab.compared(self.softmax, weights, by)
            worst = np.maximum(worst, grow(one.linear + one.coarsely()))
            if np.all(worst >= known):
                return known
        return np.minimum(worst, known)


def cut(softmax: Softmax, weights: Array, worthwhile: float = WORTHWHILE) -> Slabs | None:
    """Slabs along the direction in which the remainder for these weights grows most; None where they are of no use."""
    scores, p = softmax.scores, softmax.pattern
    m = scores.domain.box
    if not softmax.partition > worthwhile or scores.jacobian.shape[1] <= m + 1:
        return None
    leading = np.sqrt(p * lengths(weights.T) * softmax.cubic)[:, None] * scores.jacobian[:, m:]
    if not np.isfinite(leading).all():
        return None
    along = np.linalg.svd(leading, full_matrices=False)[2][0]
    along = along / np.linalg.norm(along)
    ends = np.linspace(-1.0, 1.0, SLABS + 1)
    outward = sorted(pairwise(ends.tolist()), key=lambda slab: -abs(sum(slab)))
    return Slabs(softmax, tuple(_slab(softmax, along, low, high) for low, high in outward))


def narrowed(weights: Array) -> tuple[Array, float]:
    """R (P, P) and `off` with ||W x|| <= ||R x|| + off sum |x_j| for every x, of a W (n, P) that has more rows.

    W = Q R + E, the columns of Q orthonormal up to rounding.
    """
    n, count = weights.shape
    if n <= count:
        return weights, 0.0
    q, r = np.linalg.qr(weights)
    skew = length(q.T @ q - np.eye(count)) + gamma(n) * length(q) ** 2
    stretch = float(grow(np.sqrt(1.0 + skew)))
    longest = float(lengths(r.T).max())
    off = float(lengths((weights - q @ r).T).max()) + 2 * gamma(count + 4) * (1.0 + length(q)) * stretch * longest
    return r * stretch, float(grow(off))


@dataclass(frozen=True, eq=False)
class _Slab:
    """A part of the ball where low <= along . y <= high.

    Attributes:
        there: the pattern at its middle, and what is linear in the scores around it. base: the scores there, (P,).
        moved: what is linear in them before it is centred, (P, k + 1). lost: what floats lose in it, (P,).
        rest: sup of what is not linear in the scores, (P,).
    """

    there: Softmax
    base: Array
    moved: Array
    lost: Array
    rest: Array

    @cached_property
    def reach(self) -> Array:
        """sup |l'_j|, (P,)."""
        return grow(self.there.scores.domain.rows(self.moved) + self.lost)

    @cached_property
    def drift(self) -> float:
        """sup |n|, the mean of l' under the pattern."""
        return self.there.scores.domain.row(self.there.pattern @ self.moved)

    @cached_property
    def halves(self) -> tuple[Signless, Signless]:
        """All x_j with |x_j| <= l'_j^2 / 2, and the same of l' - n."""
        there = self.there
        pairs = (self.reach, self.moved), (there.reach, there.scores.jacobian)
        nothing = np.zeros(len(self.base))
        one, other = (Signless(there.scores.domain, (0.5 * r)[:, None] * rows, nothing) for r, rows in pairs)
        return one, other

    @cached_property
    def following(self) -> Following:
        """How means follow what is not linear in the scores."""
        return sizes_followed(self.there, self.rest)

    def compared(self, softmax: Softmax, weights: Array, by: Measure) -> _Compared:
        """The model at the slab's middle with the softmax's own, for weights (n, P)."""
        p, there, moved = softmax.pattern, self.there, self.moved
        own = weights @ there.pattern
        apart = weights - own[:, None]
        response, here = apart * there.pattern, weights * p
        change = response - here
        domain = there.scores.domain
        shift = here * self.base
        first = by.over(domain, (change - shift) @ moved)
        answer = by.over(domain, response @ moved)
        # R and R' sum to 0: R' (l' - n)^2 - R l'^2 = (R' - R) l'^2 - 2 n R' l' = (R' - R) (l' - n)^2 - 2 n R (l' - n).
        squares, centred = (half.moved(Measured(change, by)) for half in self.halves)
        second = np.minimum(
            squares + self.drift * answer, centred + self.drift * by.over(domain, here @ there.scores.jacobian)
        )
        absolute = by.columns(change)
        slack = absolute @ self.lost + by.columns(shift) @ self.lost + absolute @ (self.lost * self.reach)
        slack += self.drift * (by.columns(response) @ self.lost) + float(there.pattern @ self.lost) * answer
        off = there.scores.loose  # of l' - n
        slack += absolute @ (off * there.reach) + self.drift * (by.columns(here) @ off)
        reach = 1 + np.abs(self.base) + self.reach
        rounding = 32 * gamma(sum(moved.shape)) * (by.columns(weights) @ ((np.abs(p) + there.pattern) * reach**2))
        rounding += 4 * U * by.vector(own)
        # Responses add up to 0 up to rounding.
        sums = by.vector(here.sum(axis=1)) + by.vector(response.sum(axis=1))
        rounding += sums * (1 + self.drift) ** 2
        constant = by.vector(own - here @ self.base - 0.5 * shift @ self.base)
        left = remainder(there, apart, by, movers=(0, 1))
        return _Compared(self, apart, change, grow(constant + first + second + left + slack + rounding), by)


@dataclass(frozen=True, eq=False)
class _Compared:
    """What a slab says of weights.

    Attributes:
        slab: see there. apart: weights centred in it. change: R' - R.
        linear: the distance over the slab for the linear part of the scores, as `by` has it.
    """

    slab: _Slab
    apart: Array
    change: Array
    linear: Any
    by: Measure

    def closely(self, scores: Taylor) -> float:
        """What is not linear in the scores adds to the distance's length."""
        return float(grow(scores.mapped(self.change).rest_norm + followed(self.slab.there, self.apart, scores)))

    def coarsely(self) -> Any:
        """What it adds, from sizes alone: cheap and looser."""
        moved = self.by.columns(self.change) @ self.slab.rest
        return grow(moved + self.slab.following.coarsely(self.apart, self.by))


def _slab(softmax: Softmax, along: Array, low: float, high: float) -> _Slab:
    scores = softmax.scores
    m, k = scores.domain.box, scores.jacobian.shape[1]
    middle, half = 0.5 * (low + high), 0.5 * (high - low) * (1 + 2.0**-30)
    inner = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    radius = float(grow(np.sqrt(1.0 - inner * inner + 2.0**-30)))
    ball = scores.jacobian[:, m:]
    ahead = ball @ along
    across = ball - np.outer(ahead, along)
    moved = np.concatenate([scores.jacobian[:, :m], half * ahead[:, None], radius * across], axis=1)  # (P, k + 1)
    base = middle * ahead
    # What floats lose in the scores: `along` is of length 1 up to rounding only.
    lost = grow(16 * gamma(k) * lengths(scores.jacobian) * scores.domain.reach)
    return _Slab(_pattern(softmax, base, moved, lost, Domain(m + 1)), base, moved, lost, scores.rest)


def _pattern(softmax: Softmax, base: Array, moved: Array, lost: Array, domain: Domain) -> Softmax:
    """The softmax whose centre has the scores moved by `base`, and what moves around it."""
    count = len(base)
    raised = exp(base - base.max())
    total = softmax.pattern * raised.mid
    pattern = total / total.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        off = 2 * (raised.rad / raised.mid + 16 * U + 4 * U * (np.abs(base) + abs(float(base.max()))) + gamma(count))
    # |log(1 + x)| <= 2 |x| below one half; a product that vanished says nothing of its logarithm.
    off = np.where((off < 0.5) & (total > 2.0**-1000), off, np.inf)
    centring = np.eye(count) - pattern
    loose = lost + float(pattern @ lost) + 2 * off + 2 * float(pattern @ off)
    loose = loose + 8 * gamma(count) * (lengths(moved) + float(pattern @ lengths(moved))) * domain.reach
    scores = Taylor(domain, np.zeros(count), centring @ moved, (), (), grow(loose))
    reach = float(domain.rows(moved).max()) + float(lost.max())
    slip = (abs(float(pattern.sum()) - 1.0) + gamma(count)) * (1 + reach) + 4 * float(pattern @ off) + softmax.slip
    return Softmax(pattern, scores, float(grow(slip)))
