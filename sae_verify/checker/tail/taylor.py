"""Second-order Taylor models with errors that remember where they come from.

A model of a vector z over a domain of y says: for every y there are errors e_s and f with

    z(y) = c + J y + (y . H_i y / 2)_i + sum_s G_s e_s + f,

|e_s| <= box_s entry by entry, ||e_s||_2 <= norm_s, |f| <= loose. The sources e_s are shared: the same e_s stands in
every model that descends from the site where it arose, so later linear maps act on it as they do on y, and errors
cancel as the exact ones would. Every array is a float that is taken as exact; what rounding costs when one model is
made from another is added to `loose`.

Theorem: adjoint-identity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..arithmetic import TINY, Array, U, gamma
from .domain import Domain
from .sizes import grow, length, lengths, spectral


@dataclass(frozen=True, eq=False)
class Source:
    """Errors that arose at one site: |e| <= box (n,) entry by entry, and ||e||_2 <= norm."""

    site: str
    box: Array
    norm: float

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, for gain (k, n): (k,)."""
        return grow(np.minimum(np.abs(gain) @ self.box, lengths(gain) * self.norm))


Errors = tuple[tuple[Source, Array], ...]
"""Pairs of a source and its gain G (n, number of errors)."""


@dataclass(frozen=True, eq=False)
class Taylor:
    """A model of a vector; see the module.

    Attributes:
        domain: of y.
        centre: c (n,). jacobian: J (n, k). hessians: H (n, k, k), symmetric. errors: sources and gains. loose: (n,).
    """

    domain: Domain
    centre: Array
    jacobian: Array
    hessians: Array
    errors: Errors
    loose: Array

    @property
    def width(self) -> int:
        """n."""
        return len(self.centre)

    @cached_property
    def linear(self) -> Array:
        """sup |J_i y|, (n,)."""
        return self.domain.rows(self.jacobian)

    @cached_property
    def quadratic(self) -> Array:
        """sup |y . H_i y| / 2, (n,)."""
        return self.domain.forms(self.hessians)

    @cached_property
    def error(self) -> Array:
        """sup |sum G e + f|, (n,)."""
        return grow(sum((source.rows(gain) for source, gain in self.errors), self.loose))

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
        """sup ||(y . H_i y / 2)_i||_2."""
        return min(self.domain.vector_form(self.hessians), length(self.quadratic))

    @cached_property
    def error_norm(self) -> float:
        """sup ||sum G e + f||_2."""
        total = length(self.loose) + sum(spectral(gain) * source.norm for source, gain in self.errors)
        return min(float(grow(total)), length(self.error))

    @cached_property
    def rest_norm(self) -> float:
        """sup of the norm of what is not linear."""
        return min(float(grow(self.quadratic_norm + self.error_norm)), length(self.rest))

    @cached_property
    def parts(self) -> Array:
        """|c| + bounds of each part, coarse and cheap: what rounding is relative to, (n,)."""
        reach = self.domain.reach
        tracked = sum((lengths(gain) * source.norm for source, gain in self.errors), self.loose)
        moving = reach * lengths(self.jacobian) + 0.5 * reach**2 * lengths(self.hessians)
        return grow(np.abs(self.centre) + moving + tracked)

    @cached_property
    def moving(self) -> Taylor:
        """The model of z - c."""
        return replace(self, centre=np.zeros(self.width))

    def mapped(self, weight: Array, bias: Array | None = None, row_error: Array | None = None) -> Taylor:
        """The model of W z + b, W (r, n); the rows of the exact W may differ by `row_error` (r,) in l2 length."""
        n, k = self.jacobian.shape
        carried = np.minimum(np.abs(weight) @ self.loose, lengths(weight) * length(self.loose))
        rounding = 4 * gamma(n) * (np.abs(weight) @ self.parts) + n * TINY
        centre = weight @ self.centre
        if bias is not None:
            centre = centre + bias
            rounding = rounding + 2 * U * np.abs(bias)
        if row_error is not None:
            rounding = rounding + row_error * length(self.parts)
        return Taylor(
            self.domain,
            centre,
            weight @ self.jacobian,
            (weight @ self.hessians.reshape(n, -1)).reshape(-1, k, k),
            tuple((source, weight @ gain) for source, gain in self.errors),
            grow(carried + rounding),
        )

    def scaled(self, factor: Array, shift: Array | None = None, factor_error: Array | None = None) -> Taylor:
        """The model of factor * z + shift, entry by entry; the exact factor may differ by `factor_error` (n,)."""
        size = np.abs(factor)
        loose = size * self.loose + 4 * U * size * self.parts + TINY
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
            factor[:, None, None] * self.hessians,
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
            self.hessians - self.hessians.mean(axis=0),
            tuple((source, gain - gain.mean(axis=0)) for source, gain in self.errors),
            grow(loose + TINY),
        )

    def __add__(self, other: Taylor) -> Taylor:
        gains = {id(source): (source, gain) for source, gain in self.errors}
        for source, gain in other.errors:
            key = id(source)
            gains[key] = (source, gains[key][1] + gain) if key in gains else (source, gain)
        return Taylor(
            self.domain,
            self.centre + other.centre,
            self.jacobian + other.jacobian,
            self.hessians + other.hessians,
            tuple(gains.values()),
            grow(self.loose + other.loose + 4 * U * (self.parts + other.parts)),
        )

    def with_source(self, site: str, box: Array, norm: float) -> Taylor:
        """The same with a new error of its own."""
        norm = min(norm, length(box))
        source = Source(site, np.minimum(box, norm), norm)
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
    """The model of the concatenation; all have the same sources."""
    first = models[0]
    if any(len(m.errors) != len(first.errors) for m in models):
        raise AssertionError("models of different descent")
    return Taylor(
        first.domain,
        np.concatenate([m.centre for m in models]),
        np.concatenate([m.jacobian for m in models]),
        np.concatenate([m.hessians for m in models]),
        tuple((source, np.concatenate([m.errors[i][1] for m in models])) for i, (source, _) in enumerate(first.errors)),
        np.concatenate([m.loose for m in models]),
    )
