"""The whole curve p*(r): the largest value of a linear function over a held cell, for every radius up to a largest one.

p* is concave and increasing. Each point of the sweep gives both sides everywhere: its multipliers the line
cost + r * slope above p* (theorem: linear-dual; they do not depend on r), and its delta, with those of its neighbours,
the chords below it (cell and balls are convex). Radii are added where the two sides are furthest apart, a batch at a
time. Up to `free_until` no half-space binds and p* is r ||P g||, exactly (theorem: bypass-cost).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.errors import InputError
from sae_verify.geometry.dictionary import Dictionary
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.worst_case import LinearOptimum
from sae_verify.geometry.worst_cases import worst_cases

BATCH = 16
"""Radii that are added at once."""
MOST = 512
"""Radii before the sweep ends, whatever gap is left."""


@dataclass(frozen=True, eq=False)
class Curve:
    """p* between 0 and the last radius, from both sides.

    Attributes:
        radii: (n,) increasing, from 0.
        optima: (n,) the worst case at each of them.
        values: (n,) g . delta. cost, slope: (n,) of the dual lines.
        free_until: largest radius at which no half-space binds; inf when none ever does.
    """

    radii: Array
    optima: tuple[LinearOptimum, ...]
    values: Array
    cost: Array
    slope: Array
    free_until: float

    def upper(self, radius: Array) -> Array:
        """An upper bound of p* at each radius, (k,): the lowest dual line. Holds beyond the last radius, too."""
        return (self.cost[:, None] + self.slope[:, None] * np.atleast_1d(radius)).min(axis=0)

    def lower(self, radius: Array) -> Array:
        """A lower bound of p* at each radius, (k,): the chord. Constant beyond the last radius."""
        return np.interp(np.atleast_1d(radius), self.radii, self.values)

    @property
    def gap(self) -> float:
        """The largest distance between the two sides, relative to the last value."""
        return float(self._widths().max(initial=0.0) / max(self.values[-1], np.finfo(float).tiny))

    def _widths(self) -> Array:
        """Distance of the sides where the dual lines of two neighbours meet, (n - 1,)."""
        return self.upper(self._meet()) - self.lower(self._meet())

    def _meet(self) -> Array:
        """Radii at which the dual lines of two neighbours meet, (n - 1,), kept between them."""
        drop = self.slope[:-1] - self.slope[1:]
        low, high = self.radii[:-1], self.radii[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            cross = (self.cost[1:] - self.cost[:-1]) / drop
        return np.where((drop > 0) & (low < cross) & (cross < high), cross, 0.5 * (low + high))


def curve(rows: Dictionary, cell: HeldCell, g: Array, largest: float, gap: float = 1e-3) -> Curve:
    """Sweep the radius from 0 to `largest` until both sides are within `gap` of the last value.

    Args:
        rows: the dictionary of the cell's half-spaces.
        cell: the held cell.
        g: (d,) direction.
        largest: the last radius, positive.
        gap: relative to the last value; 0 < gap.

    Raises:
        InputError: `largest` or `gap` is not positive.
    """
    if not (0 < largest < np.inf and gap > 0):
        raise InputError(f"largest radius {largest}, gap {gap}", rule="both must be positive and finite")
    free = free_until(cell, g)
    # p* is r ||P g|| up to `free`, and bends most just beyond it.
    start = largest * np.geomspace(1e-3, 1.0, BATCH)
    start = np.append(start[start > free], [min(free, largest), largest])
    start = start[start > 0]
    known: dict[float, LinearOptimum] = {}
    found = _solve(rows, cell, g, start, known, free)
    while found.gap > gap and len(found.radii) < MOST:
        widths, meet = found._widths(), found._meet()
        chosen = np.argsort(-widths)[:BATCH]
        new = meet[chosen[widths[chosen] > 0.5 * gap * found.values[-1]]]
        if not new.size or not (~np.isin(new, found.radii)).any():
            break
        found = _solve(rows, cell, g, new, known, free)
    return found


def free_until(cell: HeldCell, g: Array) -> float:
    """The largest radius at which r P g / ||P g|| leaves no half-space: p* is r ||P g|| up to there."""
    c = cell.free_part(g)
    size = float(np.linalg.norm(c))
    if size == 0.0:
        return np.inf
    least = np.inf
    for half in cell.half_spaces:
        moved = half.sign * (half.normals @ (c / size))
        up = moved > 0
        least = min(least, float(np.min(half.slack[up] / moved[up], initial=np.inf)))
    return least


def _solve(
    rows: Dictionary, cell: HeldCell, g: Array, new: Array, known: dict[float, LinearOptimum], free: float
) -> Curve:
    fresh = [float(r) for r in np.unique(new) if float(r) not in known]
    answers = worst_cases(rows, [cell] * len(fresh), np.tile(g, (len(fresh), 1)), np.array(fresh))
    known |= dict(zip(fresh, answers, strict=True))
    zero = LinearOptimum(np.zeros_like(g), 0.0, 0.0, np.zeros(len(cell.equal)), ())
    steepest = float(np.linalg.norm(cell.free_part(g)))  # the curve starts at the origin, with the free slope
    radii = sorted(known)
    optima = (zero, *(known[r] for r in radii))
    cost = np.array([0.0, *(_cost(cell, known[r]) for r in radii)])
    slope = np.array([steepest, *((known[r].dual - c) / r for r, c in zip(radii, cost[1:], strict=True))])
    radii = [0.0, *radii]
    return Curve(np.array(radii), optima, np.array([o.value for o in optima]), cost, slope, free)


def _cost(cell: HeldCell, optimum: LinearOptimum) -> float:
    pairs = zip(optimum.upper, cell.half_spaces, strict=True)
    return sum(float(weights @ half.slack[features]) for (features, weights), half in pairs)
