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
from itertools import pairwise

import numpy as np

from ..arithmetic import Array, U, gamma
from .crossed import signs_free
from .domain import Domain
from .elementary import exp
from .sizes import grow, length, lengths
from .softmax import Softmax, followed, followed_coarsely, mean
from .taylor import Taylor

SLABS = 6
"""Into which the ball is cut."""
WORTHWHILE = 0.03
"""Of |1/Z - 1|: below it the model at the centre is good enough."""


def sharper(softmax: Softmax, weights: Array, norm: float, worthwhile: float = WORTHWHILE) -> float:
    """A bound of the norm of the remainder of `mean(softmax, weights)`; `norm` is the one to improve upon."""
    scores, p = softmax.scores, softmax.pattern
    m = scores.domain.box
    if not (softmax.partition > worthwhile and np.isfinite(norm)) or scores.jacobian.shape[1] <= m + 1:
        return norm
    weights, off = narrowed(weights)
    size = lengths(weights.T)
    leading = np.sqrt(p * size * softmax.cubic)[:, None] * scores.jacobian[:, m:]
    if not np.isfinite(leading).all():
        return norm
    along = np.linalg.svd(leading, full_matrices=False)[2][0]
    along = along / np.linalg.norm(along)
    ends = np.linspace(-1.0, 1.0, SLABS + 1)
    slabs = [_slab(softmax, weights, along, float(low), float(high)) for low, high in pairwise(ends)]
    # The remainder is sum x_j w_j, x_j = p'_j - p_j (1 + c_j + c_j^2 / 2): sum |x_j| <= 2 + sup |c_j| + sup c_j^2 / 2.
    furthest = float(scores.reach.max())
    worst = narrow = off * (2 + furthest * (1 + furthest))
    for slab in sorted(slabs, key=lambda one: -one.linear):  # the largest first: it ends what has no prospects
        if narrow + slab.linear + slab.coarsely(scores) > worst:
            worst = max(worst, narrow + slab.linear + slab.closely(scores))
        if worst >= norm:
            return norm
    return float(grow(worst))


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
        there: the pattern at its middle, and what is linear in the scores around it. apart: weights centred there.
        change: R' - R. linear: the distance over the slab for the linear part of the scores.
    """

    there: Softmax
    apart: Array
    change: Array
    linear: float

    def closely(self, scores: Taylor) -> float:
        """What is not linear in the scores adds to the distance."""
        return float(grow(scores.mapped(self.change).rest_norm + followed(self.there, self.apart, scores)))

    def coarsely(self, scores: Taylor) -> float:
        """The same from sizes alone: cheap and looser."""
        moved = float(lengths(self.change.T) @ scores.rest)
        return float(grow(moved + followed_coarsely(self.there, self.apart, scores.rest)))


def _slab(softmax: Softmax, weights: Array, along: Array, low: float, high: float) -> _Slab:
    scores, p = softmax.scores, softmax.pattern
    m, (count, k) = scores.domain.box, scores.jacobian.shape
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
    there = _pattern(softmax, base, moved, lost, Domain(m + 1))
    own = weights @ there.pattern
    apart = weights - own[:, None]
    response, here = apart * there.pattern, weights * p
    change = response - here
    domain = there.scores.domain
    shift = here * base
    constant = length(own - here @ base - 0.5 * shift @ base)
    first = domain.matrix((change - shift) @ moved)
    reach = grow(domain.rows(moved) + lost)
    # R and R' sum to 0: R' (l' - n)^2 - R l'^2 = (R' - R) l'^2 - 2 n R' l' = (R' - R) (l' - n)^2 - 2 n R (l' - n).
    drift = domain.row(there.pattern @ moved)
    centred = there.scores.jacobian
    second = min(
        signs_free(domain, change, (0.5 * reach)[:, None] * moved) + drift * domain.matrix(response @ moved),
        signs_free(domain, change, (0.5 * there.reach)[:, None] * centred) + drift * domain.matrix(here @ centred),
    )
    absolute = lengths(change.T)
    remainder = mean(there, apart, movers=(0, 1)).norm
    slack = float((absolute * lost).sum() + (lengths(shift.T) * lost).sum() + (absolute * lost * reach).sum())
    slack += drift * float(lengths(response.T) @ lost) + float(there.pattern @ lost) * domain.matrix(response @ moved)
    sizes = lengths(weights.T) * (np.abs(p) + there.pattern) * (1 + np.abs(base) + reach) ** 2
    rounding = 32 * gamma(count + k) * float(sizes.sum()) + 4 * U * length(own)
    # Responses add up to 0 up to rounding.
    rounding += (length(here.sum(axis=1)) + length(response.sum(axis=1))) * (1 + drift) ** 2
    linear = float(grow(constant + first + second + remainder + slack + rounding))
    return _Slab(there, apart, change, linear)


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
