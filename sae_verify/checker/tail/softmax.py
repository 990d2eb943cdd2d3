"""Weighted means under a softmax of scores that move: sum_j p'_j w_j with p'_j = p_j exp(c_j) / Z, Z = sum_j p_j exp(c_j).

The scores are centred, sum p_j c_j = 0, so Z >= 1, and the weights too, sum p_j w_j = 0. With L = sum p w (c + c^2/2),

    sum p' w - L = sum p w theta(c) / Z + L (1/Z - 1),    theta(c) = exp(c) - 1 - c - c^2/2,

and c = l + q + e is taken at its linear part l alone in the second-order term. Theorem: attention-remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arithmetic import Array, gamma
from .domain import Domain
from .elementary import exp
from .sizes import grow, length, lengths, spectral
from .taylor import Taylor

PIECES = 24
"""Into which a score's range is cut to bound theta(c) / (c Z)."""
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
    def partition(self) -> float:
        """sup |1/Z - 1| given Z - 1 <= zeta = sum p (exp(c) - 1 - c)."""
        if not self.slip < MOST_SLIP:
            return np.inf
        s, domain = self.scores, self.scores.domain
        psi = np.sqrt(self.pattern * _excess2(self.reach))
        together = domain.matrix(psi[:, None] * s.jacobian) + length(psi * s.rest)
        zeta = grow(0.5 * min(together**2, float(np.square(psi * self.reach).sum())))
        return float(grow(zeta / (1 + zeta) * (1 + 2.0**-40) + 4 * self.slip))


@dataclass(frozen=True, eq=False)
class Mean:
    """The moving mean of fixed weights: its linear response to the scores, and its remainder.

    Attributes:
        response: rows p_j w_j, (n, P). second: (n, k, k), the part of the second order that is l^2.
        box, norm: of the remainder.
    """

    response: Array
    second: Array
    box: Array
    norm: float


def mean(softmax: Softmax, weights: Array) -> Mean:
    """The mean of `weights` (n, P), centred under the pattern up to rounding; without its value at the centre."""
    p, s, domain = softmax.pattern, softmax.scores, softmax.scores.domain
    reach, rest, linear = softmax.reach, s.rest, s.linear
    response = weights * p
    shares = lengths(weights.T) * p  # |p_j w_j|
    first = domain.matrix(response @ s.jacobian)
    root = np.sqrt(p)
    scaled = weights * root
    third = signs_free(domain, scaled, (root * softmax.cubic)[:, None] * s.jacobian)
    third += _least(shares, scaled, root, softmax.cubic * rest)
    # ||L||, with c in full, and L at c minus L at its linear part.
    half = signs_free(domain, scaled, (root * 0.5 * reach)[:, None] * s.jacobian)
    whole = first + half + _least(shares, scaled, root, rest + 0.5 * reach * rest)
    shift = signs_free(domain, scaled, (root * rest)[:, None] * s.jacobian)
    shift += _least(shares, scaled, root, 0.5 * rest * rest)
    hull = float(lengths(weights.T).max(initial=0.0))
    offset = length(response.sum(axis=1)) + gamma(len(p)) * float(shares.sum())
    partition = softmax.partition
    # Beyond the range where the series helps, the mean is still one of the weights.
    norm = grow(min(third + whole * partition, hull + whole) + shift + 2 * offset)
    absolute = np.abs(response)
    sure = absolute @ (softmax.cubic * reach) + partition * (
        domain.rows(response @ s.jacobian) + absolute @ (rest + 0.5 * reach**2)
    )
    box = grow(sure + absolute @ (rest * (linear + 0.5 * rest)) + 2 * offset)
    second = np.tensordot(response, _squares_of(s.jacobian), 1)
    return Mean(response, second, box, float(norm))


def _squares_of(jacobian: Array) -> Array:
    return jacobian[:, :, None] * jacobian[:, None, :]


def signs_free(domain: Domain, weights: Array, rows: Array) -> float:
    """sup ||sum_j w_j x_j|| over |x_j| <= |rows_j . y|, w (n, P), rows (P, k).

    ||W x|| <= ||W D|| ||D^-1 rows y|| for every positive diagonal D: a few are tried.
    """
    a, b = lengths(weights.T), domain.rows(rows)
    apart = float(grow((a * b).sum()))
    keep = (a > 1e-200) & (b > 1e-200)
    if not keep.any():
        return apart
    left = float(grow((a * b)[~keep].sum()))
    weights, rows, a, b = weights[:, keep], rows[keep], a[keep], b[keep]
    best = apart
    for power in (0.0, 0.5):
        d = (b / a) ** power
        product = spectral(weights * d) * domain.matrix(rows / d[:, None])
        best = min(best, float(grow(product * (1 + 2.0**-40) + left)))
    return best


def _least(shares: Array, scaled: Array, root: Array, x: Array) -> float:
    """sup ||sum p_j w_j x_j|| over |x_j| at most x_j."""
    return float(grow(min(float((shares * x).sum()), spectral(scaled) * length(root * x))))


SERIES = 24
"""Terms of the power series of exp below 1; the rest is below 2^-80."""


def _series(c: Array, first: int, scale: float) -> Array:
    """scale * sum over k >= first of c^(k - first) / k!, from above to rounding, for 0 <= c <= 1."""
    total = np.zeros_like(c)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, first + SERIES)]))
    for k in range(first + SERIES - 1, first - 1, -1):
        total = total * c + scale / factorials[k]
    return grow(total + 2.0**-70)


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
