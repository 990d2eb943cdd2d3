"""Second-order Taylor models with errors that remember where they come from.

A model of a vector z over a domain of y says: for every y there are errors e_s and f with

    z(y) = c + J y + sum_s K_s q_s(y) + sum_s G_s e_s + f,

q_s known quadratic forms of y, |e_s| <= box_s entry by entry, ||e_s||_2 <= norm_s, |f| <= loose; some sources know more
of what maps make of e_s. The curves q_s and the sources e_s are shared: the same stands in every model that descends
from the site where it arose, so later linear maps act on it as they do on y, and errors cancel as the exact ones would.
Every array is a float that is taken as exact; what rounding costs when one model is made from another is added to
`loose`.

Theorem: adjoint-identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ..arithmetic import TINY, Array, U, gamma
from .curves import Curve, Curves, fits, form, hessians, norm_size, parts, rounding, row_sizes, split, thin_norm
from .domain import Domain
from .sizes import grow, length, lengths, spectral

NEGLIGIBLE = 0.03
"""Of a sum of errors: sources that make no more than that together are bounded by box and norm alone."""
SLIGHT = 0.05
"""Errors, in units of what is linear: below it box and norm of a source are good enough, and all else costs more."""


@dataclass(frozen=True, eq=False)
class Source:
    """Errors that arose at one site: |e| <= box (n,) entry by entry, and ||e||_2 <= norm.

    Some know more of what a linear map makes of them: see sources.py.
    """

    site: str
    box: Array
    norm: float

    def coarse_rows(self, gain: Array) -> Array:
        """`rows` from box and norm alone."""
        return grow(np.minimum(np.abs(gain) @ self.box, lengths(gain) * self.norm))

    def coarse_size(self, gain: Array) -> float:
        """`size` from the norm alone."""
        return float(grow(spectral(gain) * self.norm))

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, for gain (k, n): (k,)."""
        return self.coarse_rows(gain)

    def size(self, gain: Array) -> float:
        """sup ||gain e||_2, for gain (k, n); of one row it is what `rows` bounds, and may be sharper."""
        return float(min(self.coarse_size(gain), grow(length(self.rows(gain)))))

    def row(self, gain: Array) -> float:
        """`size` of one row, (1, n), as sharply as can be: it may cost more."""
        return self.size(gain)

    def parts(self, gain: Array) -> tuple[list[tuple[Array, float]], Array]:
        """Pairs K, E and f: gain e is a sum of K e', ||e'|| <= E, and of what is at most f, (k,)."""
        return [(gain, self.norm)], np.zeros(len(gain))

    @property
    def bare(self) -> Source:
        """The same, of which box and norm are kept alone."""
        return Source(self.site, self.box, self.norm)

    @property
    def plain(self) -> Source:
        """The same, `bare` where more would cost much."""
        return self

    @property
    def shallow(self) -> Source:
        """The same, not to ask what other sources know."""
        return self


Errors = tuple[tuple[Source, Array], ...]
"""Pairs of a source and its gain G (n, number of errors)."""


def asked(errors: Errors, coarse: list[Array], others: Array, ask: Callable[[Source, Array], Array]) -> list[Array]:
    """A bound for each of the errors: `coarse`, or what `ask` says of the largest, until the rest is little of the sum.

    The sum begins with `others`.
    """
    sizes = np.array([length(size) for size in coarse])
    order = np.argsort(-sizes)
    left = np.cumsum(sizes[order][::-1])[::-1]
    found, total = list(coarse), others
    for count, i in enumerate(order):
        if left[count] <= NEGLIGIBLE * length(total):
            break
        found[i] = ask(*errors[i])
        total = total + found[i]
    return found


Pairs = TypeVar("Pairs", Curves, Errors)


def added(*summands: Pairs) -> Pairs:
    """The pairs of a sum: gains of what is shared are added."""
    gains: dict[int, Any] = {}
    for part, gain in (pair for pairs in summands for pair in pairs):
        shared = gains.get(id(part))
        gains[id(part)] = (part, gain if shared is None else shared[1] + gain)
    return tuple(gains.values())  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Taylor:
    """A model of a vector; see the module.

    Attributes:
        domain: of y.
        centre: c (n,). jacobian: J (n, k). curves: quadratic forms and gains. errors: sources and gains. loose: (n,).
    """

    domain: Domain
    centre: Array
    jacobian: Array
    curves: Curves
    errors: Errors
    loose: Array
    origin: tuple[Array, Taylor, Curves] | None = None
    """What it was mapped from, by which weight, and the curves that came of it: the cheaper way to many rows' forms."""

    @property
    def width(self) -> int:
        """n."""
        return len(self.centre)

    @property
    def order(self) -> int:
        """k."""
        return self.jacobian.shape[1]

    @cached_property
    def hessians(self) -> Array:
        """Of the quadratic part, (n, k, k): it is y . H_i y / 2."""
        if self.origin is not None and self.origin[2] is self.curves:
            weight, before, _ = self.origin
            flat = before.hessians.reshape(before.width, self.order**2)
            return (weight @ flat).reshape(self.width, self.order, self.order)
        return hessians(self.curves, self.width, self.order)

    def hessian(self, row: int) -> tuple[Array, float]:
        """Of one entry, (k, k), and how far y . H y / 2 may be from the exact form."""
        off = rounding(tuple((c, gain[row : row + 1]) for c, gain in self.curves), self.domain, 1, self.order)
        return form(self.curves, row, self.order), float(off[0])

    @cached_property
    def forming(self) -> Array:
        """How far the forms of `hessians` are from the exact ones, (n,)."""
        off = rounding(self.curves, self.domain, self.width, self.order)
        if self.origin is not None and self.origin[2] is self.curves:
            weight, before, _ = self.origin
            inherited = before.forming + 4 * gamma(before.width) * before.domain.reach**2 * before.parts
            off = off + np.abs(weight) @ inherited
        return grow(off)

    @cached_property
    def linear(self) -> Array:
        """sup |J_i y|, (n,)."""
        return self.domain.rows(self.jacobian)

    @cached_property
    def quadratic(self) -> Array:
        """sup |sum K q|, (n,)."""
        if not self.curves:
            return np.zeros(self.width)
        if not fits(self.curves, self.width, self.order):
            return row_sizes(self.curves, self.domain, self.width, self.order)
        return grow(self.domain.forms(self.hessians) + self.forming)

    @cached_property
    def error(self) -> Array:
        """sup |sum G e + f|, (n,)."""
        coarse = [source.coarse_rows(gain) for source, gain in self.errors]
        whole = grow(sum(coarse, self.loose))
        if (whole <= SLIGHT * self.linear).all():
            return whole
        if self.width == 1:
            found = asked(self.errors, coarse, self.loose, lambda source, gain: np.array([source.size(gain)]))
        else:
            found = asked(self.errors, coarse, self.loose, lambda source, gain: source.rows(gain))
        return grow(sum(found, self.loose))

    @cached_property
    def rest(self) -> Array:
        """Of what is not linear, (n,)."""
        return grow(self.quadratic + self.error)

    @cached_property
    def reach(self) -> Array:
        """sup |z_i - c_i|, (n,)."""
        return grow(self.linear + self.rest)

    @cached_property
    def linear_norm(self) -> float:
        """sup ||J y||_2."""
        return min(self.domain.matrix(self.jacobian), length(self.linear))

    @cached_property
    def quadratic_norm(self) -> float:
        """sup ||sum K q||_2."""
        if not self.curves:
            return 0.0
        if fits(self.curves, self.width, self.order):
            size = self._unfolded
        else:
            size = norm_size(self.curves, self.domain, self.width, self.order)
        return min(size, length(self.quadratic))

    @property
    def _unfolded(self) -> float:
        """`quadratic_norm` where forms are made: of all of them unfolded, or of those that are not thin."""
        thin, thick = split(self.curves)
        apart = thin_norm(thin, self.domain, self.width, self.order) if thin else np.inf
        if not thick:
            return apart
        lost = length(self.forming)
        size = self.domain.vector_form(self.hessians) + lost
        if thin:
            others = self.hessians - hessians(thin, self.width, self.order)
            lost += length(rounding(thin, self.domain, self.width, self.order))
            size = min(size, apart + self.domain.vector_form(others) + lost)
        return float(grow(size))

    @cached_property
    def error_norm(self) -> float:
        """sup ||sum G e + f||_2."""
        coarse = [np.array([source.coarse_size(gain)]) for source, gain in self.errors]
        loose = np.array([length(self.loose)])
        if not sum(coarse, loose) <= SLIGHT * self.linear_norm:
            coarse = asked(self.errors, coarse, loose, lambda source, gain: np.array([source.size(gain)]))
        return min(float(grow(sum(coarse, loose))[0]), length(self.error))

    @cached_property
    def rest_norm(self) -> float:
        """sup of the norm of what is not linear."""
        return min(float(grow(self.quadratic_norm + self.error_norm)), length(self.rest))

    @cached_property
    def parts(self) -> Array:
        """|c| + bounds of each part, coarse and cheap: what rounding is relative to, (n,)."""
        reach = self.domain.reach
        tracked = sum((lengths(gain) * source.norm for source, gain in self.errors), self.loose)
        moving = reach * lengths(self.jacobian) + reach**2 * parts(self.curves, self.width)
        return grow(np.abs(self.centre) + moving + tracked)

    @cached_property
    def vanishing(self) -> float:
        """What an entry may lose where a product with a gain vanishes in floats: the gain may stand before much."""
        errors = sum(gain.shape[1] ** 0.5 * source.norm for source, gain in self.errors)
        curves = sum(float(curve.size.sum()) for curve, _ in self.curves)
        reach = self.domain.reach
        return float(grow(TINY * (1.0 + reach * self.order**0.5 + errors + reach**2 * curves)))

    @cached_property
    def moving(self) -> Taylor:
        """The model of z - c."""
        return replace(self, centre=np.zeros(self.width))

    def mapped(self, weight: Array, bias: Array | None = None, row_error: Array | None = None) -> Taylor:
        """The model of W z + b, W (r, n); the rows of the exact W may differ by `row_error` (r,) in l2 length."""
        n = self.width
        carried = np.minimum(np.abs(weight) @ self.loose, lengths(weight) * length(self.loose))
        rounding = 4 * gamma(n) * (np.abs(weight) @ self.parts) + n * self.vanishing
        centre = weight @ self.centre
        if bias is not None:
            centre = centre + bias
            rounding = rounding + 2 * U * np.abs(bias)
        if row_error is not None:
            rounding = rounding + row_error * length(self.parts)
        curves = tuple((curve, weight @ gain) for curve, gain in self.curves)
        widens = len(weight) >= n and fits(curves, len(weight), self.order)
        return Taylor(
            self.domain,
            centre,
            weight @ self.jacobian,
            curves,
            tuple((source, weight @ gain) for source, gain in self.errors),
            grow(carried + rounding),
            (weight, self, curves) if widens else None,
        )

    def scaled(self, factor: Array, shift: Array | None = None, factor_error: Array | None = None) -> Taylor:
        """The model of factor * z + shift, entry by entry; the exact factor may differ by `factor_error` (n,)."""
        size = np.abs(factor)
        loose = size * self.loose + 4 * U * size * self.parts + self.vanishing
        centre = factor * self.centre
        if shift is not None:
            centre = centre + shift
            loose = loose + 2 * U * np.abs(shift)
        if factor_error is not None:
            loose = loose + factor_error * self.parts
        return Taylor(
            self.domain,
            centre,
            factor[:, None] * self.jacobian,
            tuple((curve, factor[:, None] * gain) for curve, gain in self.curves),
            tuple((source, factor[:, None] * gain) for source, gain in self.errors),
            grow(loose),
        )

    def centred(self) -> Taylor:
        """The model of z without its mean."""
        n = self.width
        loose = self.loose + grow(self.loose.sum() / n) + 4 * gamma(n) * (self.parts + grow(self.parts.sum() / n))
        return Taylor(
            self.domain,
            self.centre - self.centre.mean(),
            self.jacobian - self.jacobian.mean(axis=0),
            tuple((curve, gain - gain.mean(axis=0)) for curve, gain in self.curves),
            tuple((source, gain - gain.mean(axis=0)) for source, gain in self.errors),
            grow(loose + n * self.vanishing),
        )

    def __add__(self, other: Taylor) -> Taylor:
        return Taylor(
            self.domain,
            self.centre + other.centre,
            self.jacobian + other.jacobian,
            added(self.curves, other.curves),
            added(self.errors, other.errors),
            grow(self.loose + other.loose + 4 * U * (self.parts + other.parts)),
        )

    def with_curve(self, curve: Curve, gain: Array) -> Taylor:
        """The same with gain q added, gain (n, m)."""
        return replace(self, curves=(*self.curves, (curve, gain)))

    def with_source(self, site: str, box: Array, norm: float) -> Taylor:
        """The same with a new error of its own."""
        norm = min(norm, length(box))
        return self.with_error(Source(site, np.minimum(box, norm), norm))

    def with_error(self, source: Source) -> Taylor:
        """The same with these errors added, one an entry."""
        return replace(self, errors=(*self.errors, (source, np.eye(self.width))))

    def with_error_at(self, row: int, site: str, size: float) -> Taylor:
        """The same with a new error in one entry."""
        gain = np.zeros((self.width, 1))
        gain[row] = 1.0
        return replace(self, errors=(*self.errors, (Source(site, np.array([size]), size), gain)))

    def loosened(self, more: Array) -> Taylor:
        """The same with more untracked error, (n,)."""
        return replace(self, loose=grow(self.loose + more))


def stacked(models: list[Taylor]) -> Taylor:
    """The model of the concatenation."""
    return Taylor(
        models[0].domain,
        np.concatenate([m.centre for m in models]),
        np.concatenate([m.jacobian for m in models]),
        _joined([m.curves for m in models], [m.width for m in models]),
        _joined([m.errors for m in models], [m.width for m in models]),
        np.concatenate([m.loose for m in models]),
    )


def _joined(models: list[Pairs], widths: list[int]) -> Pairs:
    """The pairs of a concatenation: what one of the models has not, does not move it."""
    models = [added(pairs) for pairs in models]  # each part once
    everything: dict[int, Any] = {id(part): (part, gain.shape[1]) for pairs in models for part, gain in pairs}
    gains = [{id(part): gain for part, gain in pairs} for pairs in models]
    return tuple(  # type: ignore[return-value]
        (part, np.concatenate([g.get(key, np.zeros((n, m))) for g, n in zip(gains, widths, strict=True)]))
        for key, (part, m) in everything.items()
    )
