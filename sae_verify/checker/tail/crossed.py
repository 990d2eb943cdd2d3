"""Sizes of sums of products, sum_j a_j u_j v_j, where it is known how the entries of u, and of v, move together.

A vector that moves is u = sum_p K_p e_p + f, ||e_p|| <= E_p, |f_j| <= f_j. For one pair of parts the sum is a trilinear
form, bounded by its unfoldings into a matrix: entries that move together cannot all be largest at once, and terms of
different signs cancel as they do in the exact sum.

Theorem: adjoint-identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arithmetic import TINY, Array, gamma
from .curves import Forms
from .domain import Domain
from .sizes import grow, length, lengths, spectral
from .taylor import Source, Taylor
from .trilinear import VANISHING, Rows, nearly, together, trilinear

FEW = 96
"""Entries up to which the parts' shares are chosen for each sum: that costs their number times the entries' square."""
MANY = 512
"""Entries from which on a Gram matrix over them costs more than one for each part over its own coordinates."""
LEAST = 1e-6
"""Share of the smallest part, among those bounded together. Every positive one is sound; it costs tightness alone."""
CANCELLED = 1e-5
"""Of the sum of sizes: below it the rounding of Gram matrices is seen, and the form itself is bounded, too; the less of
two bounds is one."""
BELOW = 1.0 - 2.0**-40
"""Factor of shares, inward: their squares add up to 1 at most, also as exact numbers."""


@dataclass(frozen=True, eq=False)
class Moves:
    """A vector that moves; see the module.

    Attributes:
        parts: pairs of K (P, q) and E. entries: what f is at most, (P,). sizes: what |u_j| is at most, (P,).
    """

    parts: tuple[tuple[Array, float], ...]
    entries: Array
    sizes: Array

    @cached_property
    def rows(self) -> Rows:
        """The parts' matrices E K by their rows."""
        return Rows.of(self.parts, len(self.sizes))

    @cached_property
    def joint(self) -> Array:
        """All parts side by side, E K / t, (P, Q), of the vector (t e), of length 1 at most for sum t^2 <= 1."""
        shares = _shares(np.array([size * length(k) for k, size in self.parts]))
        return np.concatenate(
            [k * ((size + TINY) / t) for (k, size), t in zip(self.parts, shares, strict=True)], axis=1
        )

    @property
    def moved(self) -> float:
        """sup ||sum_p K_p e_p||: all parts at once where entries are few, elsewhere one after the other."""
        if not self.parts or len(self.sizes) > MANY:
            return float(grow(sum(spectral(k) * e for k, e in self.parts)))
        # Three roundings of each entry: at most 3 U sqrt(MANY) of the norm.
        return float(grow(spectral(self.joint) * (1 + 2.0**-40)))

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
            entries = entries + curve.count * TINY * shared
            parts += [(along[:, t : t + 1], shared) for t in range(m)] + [(along[:, m:], shared)]
        else:
            left = domain.rows(curve.left)
            parts.append((gain, min(length(left * domain.rows(curve.right)), left.max() * domain.matrix(curve.right))))
    for source, gain in z.errors:
        pairs, off = source.parts(gain)
        parts, entries = parts + pairs, entries + off
    return Moves(tuple(parts), grow(entries), z.rest)


def crossed(a: Array, one: Moves, other: Moves) -> float:
    """sup ||sum_j a_j u_j v_j||, a (n, P). Theorem: adjoint-identity (e)."""
    weights = lengths(a.T)
    apart = float(weights @ grow(one.sizes * other.sizes))  # what vanishes may be multiplied by much
    f, h = (moves.entries + len(moves.parts) * VANISHING for moves in (one, other))
    left = float(weights @ grow(f * other.sizes + (one.sizes + f) * h))
    left += VANISHING * float(((one.sizes + f) * (other.sizes + h)).sum())  # of `columns`
    if not (left < apart < np.inf and one.parts and other.parts):
        return float(grow(apart))
    if len(weights) > FEW:
        return float(grow(min(apart, left + trilinear(a, one.joint, other.joint))))
    # Of all t the best are as what each part makes, which is found nearly, to begin with from the sizes alone.
    columns = Rows.of(((a.T, 1.0),), len(weights)).stacked(np.ones(1))
    first = [m.rows.stacked(_shares(m.rows.sizes @ (weights * n.sizes))) for m, n in ((one, other), (other, one))]
    made = nearly(columns, one.rows, first[1]), nearly(columns, first[0], other.rows)
    stacks = [moves.rows.stacked(_shares(parts)) for moves, parts in zip((one, other), made, strict=True)]
    found = together(columns, *stacks)
    if found < CANCELLED * apart:
        found = min(found, trilinear(a, one.joint, other.joint))
    return float(grow(min(apart, left + found)))


def _shares(sizes: Array) -> Array:
    """Positive t, (parts,), with sum t^2 <= 1, the squares in proportion to sizes, nearly."""
    whole = float(sizes.sum())
    if not 0.0 < whole < np.inf:
        return np.full(len(sizes), BELOW / np.sqrt(len(sizes)))
    share = np.maximum(sizes / whole, LEAST)
    return np.sqrt(share / share.sum()) * BELOW


@dataclass(frozen=True, eq=False)
class Crossed(Source):
    """Errors e_j = u_j v_j of vectors that move: of one sum of them more is known than from their sizes."""

    one: Moves
    other: Moves

    def size(self, gain: Array) -> float:
        """sup ||gain e||; sharper where it is one row."""
        plain = super().size(gain)
        if len(gain) > 1 or not np.isfinite(plain):
            return plain
        return min(plain, crossed(gain, self.one, self.other))

    @property
    def plain(self) -> Source:
        """The same, of which box and norm are kept alone."""
        return self.bare


def crossing(site: str, one: Moves, other: Moves, norm: float = np.inf) -> Crossed:
    """The errors u_j v_j, one an entry; `norm` bounds their length if that is known better."""
    box = grow(one.sizes * other.sizes)
    norm = min(norm, length(box))
    for u, v in ((one, other), (other, one)):
        largest = float(u.sizes.max(initial=0.0))
        norm = min(norm, largest * (v.moved + length(v.entries)))
    return Crossed(site, np.minimum(box, grow(norm)), float(grow(norm)), one, other)
