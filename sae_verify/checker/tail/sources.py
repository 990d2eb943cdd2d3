"""Errors of which more is known than a box and a length: what maps make of them is bounded by where they come from.

A map of many steps rarely acts on an error as on the worst vector of its length: a mean's error is a mean's of what
the map makes of its weights, and a norm's error lies near two directions. Theorem: adjoint-identity (f).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..arithmetic import TINY, Array, gamma
from .domain import Domain
from .measure import ENTRIES, WHOLE, Measure
from .pieces import Slabs
from .signless import signs_free
from .sizes import grow, length, lengths
from .softmax import Softmax, remainder
from .taylor import NEGLIGIBLE, Errors, Source, Taylor, asked


@dataclass(frozen=True, eq=False)
class Line:
    """Errors s K y for numbers |s| <= size.

    Attributes:
        domain: of y, or None where y is 1 alone. map: K (n, k).
    """

    domain: Domain | None
    map: Array
    size: float

    def itself(self, by: Measure) -> Any:
        """Of s K y."""
        return self.size * (by.vector(self.map[:, 0]) if self.domain is None else by.over(self.domain, self.map))

    def through(self, gain: Array, by: Measure) -> Any:
        """Of gain s K y."""
        n = gain.shape[1]
        lost = 4 * gamma(n) * by.vector(lengths(gain)) * length(self.map) + n * TINY
        if self.domain is None:
            return self.size * (by.vector((gain @ self.map)[:, 0]) + lost)
        return self.size * (by.over(self.domain, gain @ self.map) + self.domain.reach * lost)


@dataclass(frozen=True, eq=False)
class Along(Source):
    """Errors along few directions, or along what moves, and others.

    Attributes:
        lines: what adds up to them with `others`.
    """

    lines: tuple[Line, ...]
    others: Source

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, (k,)."""
        found = sum((line.through(gain, ENTRIES) for line in self.lines), np.zeros(len(gain)))
        others = self.others.coarse_rows(gain)
        if length(others) > NEGLIGIBLE * length(found):
            others = self.others.rows(gain)
        return np.minimum(super().rows(gain), grow(found + others))

    def size(self, gain: Array) -> float:
        """sup ||gain e||."""
        found = sum((line.through(gain, WHOLE) for line in self.lines), self.others.size(gain))
        return float(min(super().size(gain), grow(found)))

    def parts(self, gain: Array) -> tuple[list[tuple[Array, float]], Array]:
        """Pairs K, E and f: gain e is a sum of K e', ||e'|| <= E, and of what is at most f, (k,)."""
        pairs, off = self.others.parts(gain)
        for line in self.lines:
            size = float(grow(line.size * (1.0 if line.domain is None else line.domain.reach)))
            pairs.append((gain @ line.map, size))
            off = off + size * (4 * gamma(gain.shape[1]) * lengths(gain) * length(line.map) + gain.shape[1] * TINY)
        return pairs, grow(off)

    @property
    def plain(self) -> Source:
        """The same, of which box and norm are kept alone."""
        return self.bare

    @property
    def shallow(self) -> Source:
        """The same, not to ask what other sources know."""
        return replace(self, others=self.others.shallow)


@dataclass(frozen=True, eq=False)
class Carried(Source):
    """Errors s (sum_i G_i e_i + f) with a number |s| <= factor, e_i of other sources.

    Attributes:
        errors: the sources, shallow ones, and G_i. more: a bound of ||f||.
        latest: the gain that was asked last, and what was said: entries and length of a model ask for the same.
    """

    factor: float
    errors: Errors
    more: float
    latest: list[tuple[Array, Array]] = field(default_factory=list, init=False, repr=False)

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, (k,)."""
        if not (self.latest and self.latest[0][0] is gain):
            self.latest[:] = [(gain, self._rows(gain))]
        return self.latest[0][1]

    def _rows(self, gain: Array) -> Array:
        plain = super().rows(gain)
        if not np.isfinite(plain).all():
            return plain
        errors = tuple((source, gain @ through) for source, through in self.errors)
        n = gain.shape[1]
        lost = 4 * gamma(n) * sum(length(through) * source.norm for source, through in self.errors)
        coarse = [source.coarse_rows(through) for source, through in errors]
        vanished = n * TINY * sum(through.shape[1] ** 0.5 * source.norm for source, through in self.errors)
        others = lengths(gain) * (self.more + lost) + vanished
        found = asked(errors, coarse, others, lambda source, gain: source.rows(gain))
        return np.minimum(plain, grow(self.factor * sum(found, others)))

    @property
    def shallow(self) -> Source:
        """The same, not to ask what other sources know."""
        return self.bare


def along(site: str, lines: tuple[Line, ...], others: Source, norm: float = np.inf) -> Source:
    """The source of the sum, an entry for each of `others`; its norm may be known better."""
    if not lines:
        return replace(others, site=site, norm=min(others.norm, norm))
    box = sum((line.itself(ENTRIES) for line in lines), others.box)
    norm = min(norm, sum((line.itself(WHOLE) for line in lines), others.norm))
    return Along(site, grow(np.minimum(box, norm)), float(grow(norm)), lines, others)


@dataclass(frozen=True, eq=False)
class Steep(Source):
    """Errors |e_j| <= min(steep_j x_j, square_j x_j^2) + apart_j with x_j = |J_j . y| + rest_j, of any signs.

    Attributes:
        domain: of y. jacobian: J (n, k). rest, steep, square, apart: (n,).
    """

    domain: Domain
    jacobian: Array
    rest: Array
    steep: Array
    square: Array
    apart: Array

    def size(self, gain: Array) -> float:
        """sup ||gain e||; sharper where it is one row."""
        plain = super().size(gain)
        if not np.isfinite(plain):
            return plain
        rest = self.steep * self.rest + self.apart
        others = min(float(lengths(gain.T) @ rest), WHOLE.of(gain) * length(rest))
        found = grow(signs_free(self.domain, gain, self.steep[:, None] * self.jacobian) + others)
        return float(min(plain, found, self._squared(gain[0]) if len(gain) == 1 else np.inf))

    @property
    def plain(self) -> Source:
        """The same, of which box and norm are kept alone."""
        return self.bare

    def _squared(self, row: Array) -> float:
        """sup |row . e|: of sum_j a_j q_j (|l_j| + r_j)^2 the squares are a form, not all largest at once."""
        weights = np.abs(row) * self.square
        form = self.domain.form_above(2 * (self.jacobian.T * weights) @ self.jacobian)
        lost = 16 * gamma(len(weights) + 2) * float(weights @ np.square(lengths(self.jacobian))) * self.domain.reach**2
        mixed = signs_free(self.domain, row[None], (2 * self.square * self.rest)[:, None] * self.jacobian)
        return float(grow(form + lost + mixed + float(np.abs(row) @ (self.square * self.rest**2 + self.apart))))


@dataclass(frozen=True, eq=False)
class Mixed:
    """The remainder of one head's mean, for weights (d, P) and whatever maps make of them.

    Attributes:
        softmax: of the head. weights: centred under its pattern. slabs: into which its domain is cut, or None.
        norm: of the remainder.
    """

    softmax: Softmax
    weights: Array
    slabs: Slabs | None
    norm: float

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, (n,)."""
        return self._coarsely(gain, ENTRIES)

    def size(self, gain: Array) -> float:
        """sup ||gain e||."""
        return float(self._coarsely(gain, WHOLE))

    def row(self, gain: Array) -> float:
        """The same for one row, as sharply as can be."""
        weights, lost = self._through(gain)
        found = min(float(remainder(self.softmax, weights)), WHOLE.of(gain) * self.norm)
        if self.slabs is not None:
            found = self.slabs.norm(weights, found)
        return float(grow(found + length(lost)))

    def _coarsely(self, gain: Array, by: Measure) -> Any:
        weights, lost = self._through(gain)
        found = np.minimum(remainder(self.softmax, weights, by), by.of(gain) * self.norm)
        if self.slabs is not None:
            found = self.slabs.coarsely(weights, by, found)
        return grow(found + by.vector(lost))

    def _through(self, gain: Array) -> tuple[Array, Array]:
        """The weights after the map, and what rounding of them may cost each entry."""
        n = gain.shape[1]
        sizes = 4 * gamma(n) * (np.abs(gain) @ np.abs(self.weights)).max(axis=1, initial=0.0) + n * TINY
        return gain @ self.weights, sizes * self.softmax.furthest


@dataclass(frozen=True, eq=False)
class Attended(Source):
    """The remainders of an attention's heads, added up.

    Attributes:
        heads: of the attention.
    """

    heads: tuple[Mixed, ...]

    @property
    def shallow(self) -> Source:
        """The same without slabs, which cost most."""
        return replace(self, heads=tuple(replace(head, slabs=None) for head in self.heads))

    def rows(self, gain: Array) -> Array:
        """sup |gain e|, (k,)."""
        plain = super().rows(gain)
        if not np.isfinite(plain).all():
            return plain
        return np.minimum(plain, grow(sum((head.rows(gain) for head in self.heads), np.zeros(len(gain)))))

    def size(self, gain: Array) -> float:
        """sup ||gain e||."""
        plain = super().size(gain)
        if not np.isfinite(plain):
            return plain
        return float(min(plain, grow(sum(head.size(gain) for head in self.heads))))

    def row(self, gain: Array) -> float:
        """`size` of one row, as sharply as can be: it costs more."""
        plain = super().size(gain)
        if not np.isfinite(plain):
            return plain
        return float(min(plain, grow(sum(head.row(gain) for head in self.heads))))


@dataclass(frozen=True, eq=False)
class Left:
    """What models of heads leave out, heads added up.

    Attributes:
        mixed: the remainders of their means. means: a box of them, (d,), and a length.
        lines: of what moving values add. others: a box and a length of everything else.
    """

    mixed: tuple[Mixed, ...]
    means: tuple[Array, float]
    lines: tuple[Line, ...]
    others: tuple[Array, float]

    @classmethod
    def nothing(cls, width: int) -> Left:
        """The sum of no heads."""
        return cls((), (np.zeros(width), 0.0), (), (np.zeros(width), 0.0))

    def __add__(self, other: Left) -> Left:
        (a, b), (c, d) = self.means, other.means
        (e, f), (g, h) = self.others, other.others
        return Left(self.mixed + other.mixed, (a + c, b + d), self.lines + other.lines, (e + g, f + h))

    def behind(self, model: Taylor) -> Taylor:
        """The model of the attention's output, with these as its errors."""
        (box, norm), (more, length_more) = self.means, self.others
        if not self.mixed:
            return model.with_source("attention", grow(box + more), float(grow(norm + length_more)))
        norm = float(grow(min(norm, length(box))))
        means = Attended("attention", grow(np.minimum(box, norm)), norm, self.mixed)
        others = Source("attention", grow(more), float(grow(min(length_more, length(more)))))
        return model.with_error(means).with_error(along("attention", self.lines, others))
