"""Quadratic forms of y that models carry along: each keeps the factors it arose from, and linear maps act on gains.

A curve is a vector q(y) of m forms that arose at one site; a model has sum_s G_s q_s(y) of them. The forms of a model's
entries, (n, k, k), are only made where that is small: otherwise their sizes come from inner products of the factors,
by ||sum g_j S_j||_F^2 = g.M g with M_ij = <S_i, S_j>. Theorem: adjoint-identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..arithmetic import Array, gamma
from .domain import Domain
from .sizes import grow, length, lengths, spectral

FITS = 6_000_000
"""Numbers in the forms of a model, and of its curves: beyond it they are not made. Fewer cost less and say less."""
NARROW = 1200
"""Entries of a model up to which a matrix of all their inner products is made."""

VANISHING = 1e-150
"""Sizes up to it are not divided by: a bound without the quotient is taken."""

TOGETHER = 128
"""Coordinates up to which thin curves are bounded together, by eigenvalues."""

Grams = dict[tuple[int, int], tuple["Curve", Array]]


@dataclass(frozen=True, eq=False)
class Products:
    """q_j = (left_j . y)(right_j . y); left (m, k), right (m, k) or, the same for all, (1, k)."""

    left: Array
    right: Array
    grams: Grams = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """m."""
        return len(self.left)

    @cached_property
    def size(self) -> Array:
        """sup |q_j| over the unit ball, (m,)."""
        return grow(self.scales[0] * self.scales[1])

    @cached_property
    def scales(self) -> tuple[Array, Array]:
        """What the rows of the factors are divided by in `unit`: lengths, rounded up."""
        return lengths(self.left), lengths(self.right)

    @property
    def thin(self) -> bool:
        """Whether all share one factor: over a domain, sums of them are then known by lengths alone."""
        return len(self.right) == 1

    def rows(self, gain: Array, domain: Domain) -> Array:
        """sup |sum_j G_ij q_j(y)| of a thin curve, to rounding of sums over j, (n,)."""
        along, shared = gain @ self.left, self.right[0]
        if domain.box:
            return grow(domain.rows(along) * domain.row(shared))
        # The eigenvalues of a b^T + b a^T are a.b + |a| |b| and a.b - |a| |b|.
        whole = lengths(along) * length(shared)
        return grow(0.5 * whole + 0.5 * np.abs(along @ shared) + gamma(len(shared)) * whole)

    @property
    def scale(self) -> Array:
        """What `unit` must be multiplied by, to rounding of floats; not `size`, which is rounded up once more."""
        return self.scales[0] * self.scales[1]

    @property
    def unit(self) -> tuple[Array, Array]:
        """Both factors with rows of length 1 or a little less."""
        return self.left / self.scales[0][:, None], self.right / self.scales[1][:, None]

    @cached_property
    def flat(self) -> Array:
        """Matrices with these forms, (m, k * k), not symmetric."""
        return (self.left[:, :, None] * self.right[:, None, :]).reshape(self.count, -1)

    def weighted(self, weights: Array) -> Array:
        """A matrix whose form is sum_j weights_j q_j, (k, k)."""
        return self.left.T @ (weights[:, None] * self.right)

    def polar(self, axis: int) -> Array:
        """Gradients of the q_j along one coordinate, (m, k)."""
        return self.left[:, axis, None] * self.right + self.right[:, axis, None] * self.left


@dataclass(frozen=True, eq=False)
class Forms:
    """q_j = y . F_j y, F (m, k, k)."""

    forms: Array
    grams: Grams = field(default_factory=dict, repr=False)
    known: dict[Domain, float] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """m."""
        return len(self.forms)

    @cached_property
    def size(self) -> Array:
        """sup |q_j| over the unit ball, (m,)."""
        return lengths(self.forms)

    @property
    def thin(self) -> bool:
        """Whether there is just one form."""
        return len(self.forms) == 1

    def only(self, domain: Domain) -> float:
        """sup |q(y)| of a thin curve."""
        if domain not in self.known:
            self.known[domain] = domain.form(self.forms[0] + self.forms[0].T)
        return self.known[domain]

    def rows(self, gain: Array, domain: Domain) -> Array:
        """sup |G_i q(y)| of a thin curve, (n,)."""
        return grow(np.abs(gain[:, 0]) * self.only(domain))

    @property
    def scale(self) -> Array:
        """What `unit` must be multiplied by, to rounding of floats."""
        return self.size

    @property
    def unit(self) -> Array:
        """Symmetric matrices with these forms, of norm 1 or a little less."""
        halves = self.forms / self.size[:, None, None]
        return 0.5 * (halves + halves.transpose(0, 2, 1))

    @property
    def flat(self) -> Array:
        """Matrices with these forms, (m, k * k)."""
        return self.forms.reshape(self.count, -1)

    def weighted(self, weights: Array) -> Array:
        """A matrix whose form is sum_j weights_j q_j, (k, k)."""
        return np.tensordot(weights, self.forms, 1)

    def polar(self, axis: int) -> Array:
        """Gradients of the q_j along one coordinate, (m, k)."""
        return self.forms[:, axis] + self.forms[:, :, axis]


Curve = Products | Forms
Curves = tuple[tuple[Curve, Array], ...]
"""Pairs of a curve and its gain G (n, m)."""


def parts(curves: Curves, rows: int) -> Array:
    """sum_j |G_ij| sup |q_j| over the unit ball: what rounding is relative to, (n,)."""
    return grow(sum((np.abs(gain) @ curve.size for curve, gain in curves), np.zeros(rows)))


def hessians(curves: Curves, rows: int, order: int) -> Array:
    """H (n, k, k) with y . H_i y / 2 = sum_j G_ij q_j(y)."""
    total = np.zeros((rows, order * order))
    for curve, gain in curves:
        total += gain @ curve.flat
    forms = total.reshape(rows, order, order)
    return forms + forms.transpose(0, 2, 1)


def form(curves: Curves, row: int, order: int) -> Array:
    """The Hessian of one entry, (k, k)."""
    total = sum((curve.weighted(gain[row]) for curve, gain in curves), np.zeros((order, order)))
    return total + total.T


def fits(curves: Curves, rows: int, order: int) -> bool:
    """Whether the forms are few and small enough to be made."""
    atoms = sum(curve.count for curve, _ in curves)
    return max(rows, atoms) * order * order <= FITS


def _lost(curves: Curves, order: int) -> float:
    """Relative rounding of sums over all atoms and coordinates; of forms, over all their entries."""
    entries = order * order if any(isinstance(curve, Forms) for curve, _ in curves) else order
    return 16 * gamma(sum(curve.count for curve, _ in curves) + entries)


def rounding(curves: Curves, domain: Domain, rows: int, order: int) -> Array:
    """How far the forms of `hessians` and `form` are from the exact ones, at most, (n,)."""
    return grow(_lost(curves, order) * domain.reach**2 * parts(curves, rows))


def split(curves: Curves) -> tuple[Curves, Curves]:
    """The thin curves, and the others."""
    thin = tuple((curve, gain) for curve, gain in curves if curve.thin)
    return thin, tuple((curve, gain) for curve, gain in curves if not curve.thin)


def row_sizes(curves: Curves, domain: Domain, rows: int, order: int) -> Array:
    """sup |sum_j G_ij q_j(y)| over the domain, (n,), from inner products alone."""
    everything = _gram_rows(curves, domain, rows, order)
    thin, thick = split(curves)
    if not thin:
        return everything
    apart = sum((curve.rows(gain, domain) for curve, gain in thin), np.zeros(rows))
    apart = apart + rounding(thin, domain, rows, order)
    return grow(np.minimum(everything, apart + _gram_rows(thick, domain, rows, order)))


def norm_size(curves: Curves, domain: Domain, rows: int, order: int) -> float:
    """sup ||(sum_j G_ij q_j(y))_i||_2 over the domain, from inner products alone."""
    everything = _gram_norm(curves, domain, rows, order)
    thin, thick = split(curves)
    if not thin:
        return everything
    return float(grow(min(everything, thin_norm(thin, domain, rows, order) + _gram_norm(thick, domain, rows, order))))


def thin_norm(curves: Curves, domain: Domain, rows: int, order: int) -> float:
    """sup ||sum G q|| of thin curves: ||L y|| |g.y| <= t ||L y||^2 / 2 + (g.y)^2 / 2 t, a form, for each t > 0.

    All these forms are bounded at once, with either sign of a single one that is a form to begin with.
    """
    together, apart, simple, size, alone = np.zeros((order, order)), 0.0, 0.0, 0.0, 0.0
    single: list[Array] = []
    for curve, gain in curves:
        if isinstance(curve, Forms):
            single.append(length(gain) * (curve.forms[0] + curve.forms[0].T))
            size += length(single[-1])
            alone += length(gain) * curve.only(domain)
            continue
        along, shared = gain @ curve.left, curve.right[0]
        here = domain.matrix(along), domain.row(shared)
        simple += here[0] * here[1]
        if not (VANISHING < here[0] < np.inf and VANISHING < here[1] < np.inf):
            apart += here[0] * here[1]
            continue
        t = here[1] / here[0]
        together += t * (along.T @ along) + np.outer(shared, shared) / t
        size += t * np.square(length(along)) + np.square(length(shared)) / t
    off = length(rounding(curves, domain, rows, order))
    simple += alone
    if order > TOGETHER:
        return float(grow(simple + off))
    if len(single) == 1:
        joint = max(domain.form_above(together + single[0]), domain.form_above(together - single[0]))
    else:
        joint = domain.form_above(together) + alone
    joint += apart + 2 * gamma(max(rows, order) + len(curves)) * size * domain.reach**2
    return float(grow(min(grow(simple), grow(joint)) + off))


def _gram_rows(curves: Curves, domain: Domain, rows: int, order: int) -> Array:
    if not curves:
        return np.zeros(rows)
    size, lost = parts(curves, rows), _lost(curves, order)
    squares = np.einsum("ij,ij->i", *_squared(curves, domain, size[:, None]))
    ball = size * np.sqrt(np.maximum(squares, 0.0) + lost)
    corner = sum((np.abs(c) for c in _corner(curves, domain)), np.zeros(rows))
    mixed = sum((lengths(m) for m in _mixed(curves, domain)), np.zeros(rows))
    everywhere = domain.reach**2 * size
    return grow(np.minimum(ball + corner + mixed + lost * everywhere, everywhere))


def _gram_norm(curves: Curves, domain: Domain, rows: int, order: int) -> float:
    if not curves:
        return 0.0
    size, lost = length(parts(curves, rows)), _lost(curves, order)
    everywhere = domain.reach**2 * size
    if rows > NARROW:
        return float(grow(everywhere))
    through, gains = _squared(curves, domain, size)
    gram = through @ gains.T
    ball = size * float(np.sqrt(spectral(gram) + lost))
    corner = sum(length(c) for c in _corner(curves, domain))
    mixed = sum(spectral(m) for m in _mixed(curves, domain))
    return float(grow(min(ball + corner + mixed + lost * everywhere, everywhere)))


def cubic_size(curves: Curves, domain: Domain, order: int) -> float:
    """sup |sum_j (G_j . y) q_j(y)| over the domain, with gains (k, m); infinite where it would cost too much."""
    if not curves:
        return 0.0
    size = grow(float(sum(float(lengths(gain.T) @ curve.size) for curve, gain in curves)))
    lost = _lost(curves, order)
    if domain.box or order > NARROW:
        if not fits(curves, order, order):
            return np.inf
        unfolded = 0.5 * hessians(curves, order, order).reshape(order, -1)
        return float(grow((spectral(unfolded) + lost * size) * domain.reach**3))
    through, gains = _squared(curves, domain, size)
    gram = through @ gains.T
    return float(grow(size * (np.sqrt(spectral(gram) + lost) + lost)))


def _squared(curves: Curves, domain: Domain, scale: Array | float) -> tuple[Array, Array]:
    """G M and G, over the ball's coordinates, all gains side by side and divided by `scale`.

    `scale` is at least the sum of a row's |G_ij| sup |q_j|, so that squares neither overflow nor vanish.
    """
    gains = np.concatenate([gain * curve.scale / scale for curve, gain in curves], axis=1)
    gram = [np.concatenate([_gram(one, other, domain.box) for other, _ in curves], axis=1) for one, _ in curves]
    return gains @ np.concatenate(gram), gains


def _gram(one: Curve, other: Curve, box: int) -> Array:
    """Inner products of the symmetric matrices of two curves, in units of their sizes, over the ball's coordinates."""
    key = id(other), box
    if key not in one.grams:
        made = _inner(one, other, box)
        one.grams[key] = other, made
        if other is not one:
            other.grams[id(one), box] = one, made.T
    return one.grams[key][1]


def _inner(one: Curve, other: Curve, box: int) -> Array:
    if isinstance(one, Forms):
        if not isinstance(other, Forms):
            return _inner(other, one, box).T
        a, b = one.unit[:, box:, box:], other.unit[:, box:, box:]
        return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
    left, right = (side[:, box:] for side in one.unit)
    if isinstance(other, Forms):
        return np.stack([((left @ f[box:, box:]) * right).sum(axis=1) for f in other.unit], axis=1)
    l2, r2 = (side[:, box:].T for side in other.unit)
    return 0.5 * ((left @ l2) * (right @ r2) + (left @ r2) * (right @ l2))


def _corner(curves: Curves, domain: Domain) -> list[Array]:
    """The box's own part: for each pair of its coordinates, gain times half the mixed derivative, (n,)."""
    m = domain.box
    pairs = [(a, b) for a in range(m) for b in range(m)]
    return [sum((gain @ curve.polar(a)[:, b] for curve, gain in curves), np.zeros(1)) / 2 for a, b in pairs]


def _mixed(curves: Curves, domain: Domain) -> list[Array]:
    """Of each of the box's coordinates with the ball's, (n, k - box)."""
    m = domain.box
    return [sum((gain @ curve.polar(a)[:, m:] for curve, gain in curves), np.zeros(1)) for a in range(m)]
