"""Sizes of sums of products, sum_j a_j u_j v_j, where it is known how the entries of u, and of v, move together.

A vector that moves is u = sum_p K_p e_p + f, ||e_p|| <= E_p, |f_j| <= f_j. For one pair of parts the sum is a trilinear
form, bounded by its unfoldings into a matrix: entries that move together cannot all be largest at once, and terms of
different signs cancel as they do in the exact sum.

Theorem: adjoint-identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arithmetic import Array, gamma
from .curves import Forms
from .domain import Domain
from .sizes import grow, length, lengths, spectral
from .taylor import Source, Taylor

VANISHING = 1e-200
"""Sizes up to it are not divided by; what they bound is added as it stands."""


WORTHWHILE = 0.01
"""Of the sum of all sizes: a pair of parts that makes less is not looked into."""


@dataclass(frozen=True, eq=False)
class Moves:
    """A vector that moves; see the module.

    Attributes:
        parts: pairs of K (P, q) and E. entries: what f is at most, (P,). sizes: what |u_j| is at most, (P,).
    """

    parts: tuple[tuple[Array, float], ...]
    entries: Array
    sizes: Array

    def scaled(self, factor: Array) -> Moves:
        """The same with each entry times a number, (P,)."""
        size = np.abs(factor)
        parts = tuple((factor[:, None] * k, e) for k, e in self.parts)
        rounding = 2.0**-50 * sum((lengths(k) * e for k, e in self.parts), self.entries)
        return Moves(parts, grow(size * (self.entries + rounding)), grow(size * self.sizes))


def linear(domain: Domain, rows: Array) -> Moves:
    """rows . y over a domain: each coordinate of the box by itself, then the ball."""
    m = domain.box
    parts = (*((rows[:, t : t + 1], 1.0) for t in range(m)), (rows[:, m:], 1.0))
    return Moves(parts, np.zeros(len(rows)), domain.rows(rows))


def nonlinear(z: Taylor) -> Moves:
    """What is not linear in a model, by what its entries share."""
    entries, parts = z.loose, []
    domain, m = z.domain, z.domain.box
    for curve, gain in z.curves:
        size = domain.reach**2 * curve.size
        if curve.thin:
            entries = entries + 64 * gamma(curve.count + z.order) * (np.abs(gain) @ size)
        if isinstance(curve, Forms):
            forms = curve.forms + curve.forms.transpose(0, 2, 1)
            parts.append((gain, curve.only(domain) if curve.thin else length(domain.forms(forms))))
        elif curve.thin:
            along, shared = gain @ curve.left, domain.row(curve.right[0])
            parts += [(along[:, t : t + 1], shared) for t in range(m)] + [(along[:, m:], shared)]
        else:
            left = domain.rows(curve.left)
            parts.append((gain, min(length(left * domain.rows(curve.right)), left.max() * domain.matrix(curve.right))))
    parts += [(gain, source.norm) for source, gain in z.errors]
    return Moves(tuple(parts), grow(entries), z.rest)


def crossed(a: Array, one: Moves, other: Moves) -> float:
    """sup ||sum_j a_j u_j v_j||, a (n, P). Theorem: adjoint-identity (e)."""
    weights = lengths(a.T)
    apart = float(weights @ (one.sizes * other.sizes))
    left = one.entries * other.sizes + (one.sizes + one.entries) * other.entries
    together = float(weights @ left)
    for (i, j), pair in np.ndenumerate(sum_of_sizes(weights, one, other)):
        if pair > WORTHWHILE * apart:
            (rows, size), (others, against) = one.parts[i], other.parts[j]
            pair = min(pair, size * against * trilinear(a, rows, others))
        together += float(pair)
        if not together < apart:
            return float(grow(apart))
    return float(grow(min(apart, together)))


def sum_of_sizes(weights: Array, one: Moves, other: Moves) -> Array:
    """For each pair of parts what they make at most if no entries cancel: (parts, parts)."""
    left, right = (
        np.array([size * lengths(rows) for rows, size in moves.parts]).reshape(-1, len(weights))
        for moves in (one, other)
    )
    return grow((left * weights) @ right.T)


def trilinear(a: Array, rows: Array, others: Array) -> float:
    """sup ||sum_j a_j (rows_j . y) (others_j . e)|| over ||y||, ||e|| <= 1; a (n, P), rows (P, k), others (P, q)."""
    scales = [lengths(a.T), lengths(rows), lengths(others)]
    sizes = scales[0] * scales[1] * scales[2]
    apart = float(grow(sizes.sum()))
    if not 0.0 < apart < np.inf:
        return apart
    if len(a) == 1:
        form = (a[0][:, None] * rows).T @ others
        return float(grow(min(spectral(form) + 2 * gamma(len(rows) + 2) * apart, apart)))
    keep = sizes > 0
    units = [m[keep] / s[keep, None] for m, s in zip((a.T, rows, others), scales, strict=True)]
    weight = sizes[keep] / apart
    grams = [u @ u.T for u in units]
    lost = 8 * gamma(sum(len(u.T) for u in units) + 4 * int(keep.sum()))
    best = 1.0
    for i in range(3):
        pair = grams[i - 1] * grams[i - 2] * np.outer(weight, weight)
        best = min(best, float(np.sqrt(spectral(units[i].T @ (pair @ units[i])) + lost)))
    return float(grow(apart * best))


@dataclass(frozen=True, eq=False)
class Crossed(Source):
    """Errors e_j = u_j v_j of vectors that move: of one sum of them more is known than from their sizes."""

    one: Moves
    other: Moves

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, (k,); sharper where it is one row."""
        plain = super().rows(gain)
        if len(gain) > 1 or not np.isfinite(plain).all():
            return plain
        return np.minimum(plain, crossed(gain, self.one, self.other))


def crossing(site: str, one: Moves, other: Moves, norm: float = np.inf) -> Crossed:
    """The errors u_j v_j, one an entry; `norm` bounds their length if that is known better."""
    box = grow(one.sizes * other.sizes)
    norm = min(norm, length(box))
    for u, v in ((one, other), (other, one)):
        largest = float(u.sizes.max(initial=0.0))
        norm = min(norm, largest * (sum(spectral(k) * e for k, e in v.parts) + length(v.entries)))
    return Crossed(site, np.minimum(box, grow(norm)), float(grow(norm)), one, other)


def signs_free(domain: Domain, weights: Array, rows: Array) -> float:
    """sup ||sum_j w_j x_j|| over |x_j| <= |rows_j . y|, w (n, P), rows (P, k).

    ||W x|| <= ||W D|| ||D^-1 rows y|| for every positive diagonal D: a few are tried.
    """
    a, b = lengths(weights.T), domain.rows(rows)
    apart = float(grow((a * b).sum()))
    keep = (a > VANISHING) & (b > VANISHING)
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
