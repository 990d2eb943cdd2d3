"""How large a held cell is around zero, which thresholds bound it first, and a large ball inside it.

Theorem: cell-size. Within the null space of the equalities, P its projector, half-space j ends at distance slack_j /
||P w_j|| from zero, in the direction P w_j. The least of these distances is the inner radius: up to it the equalities
alone are the cell. Floats search here; `certificates.cell_size` makes statements that the checker proves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.cell_barrier import chebyshev_centre
from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell, Indices

SPAN = 1e-10
"""Relative to a normal's length: what is left of it beside the equalities. Below, the row is one of their combinations
and cannot bind; its remainder is rounding."""
CANCELLED = 1e-3
"""Relative: where a difference of squares has lost half the digits, the projection is made in full."""
BLOCK = 4096
"""Rows that are projected at a time, so that memory stays far below the weights'."""
VIOLATED = 1e-9
"""Relative to the largest ball's radius: how far a half-space may cut into it before it joins the working set."""
GAPS = (1e-2, 1e-7)
"""Relative to the radius: what the ball may still gain, while the working set grows and in the end. Costs tightness,
and is reported as `upper`."""
SPARE = 64
"""Rows beyond the dimension that join a working set at once."""
ROUNDS = 60
"""Of constraint generation; each takes in the most violated rows, and about five are usual."""


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Half-spaces in the order in which they are met.

    Attributes:
        family: (n,) index into the cell's half-spaces.
        feature: (n,) the SAE's feature.
        distance: (n,) from zero, rising; finite.
        direction: (n, d) unit vectors towards the nearest point of each facet; None along one given direction.
    """

    family: Indices
    feature: Indices
    distance: Array
    direction: Array | None

    def __len__(self) -> int:
        return len(self.distance)


@dataclass(frozen=True, eq=False)
class InscribedBall:
    """A ball of the cell, within the null space of the equalities.

    Attributes:
        centre: (d,).
        radius: to the nearest half-space, over all of them; inf where there is none.
        upper: no ball whose centre has coordinates up to `limit` is larger than this, up to rounding.
        limit: see `inscribed_ball`.
    """

    centre: Array
    radius: float
    upper: float
    limit: float


@dataclass(frozen=True, eq=False)
class FreeRows:
    """All half-spaces of a cell that can bind, without copies of their normals.

    Attributes:
        cell: that they are from.
        family, row: (n,) place of each.
        length: (n,) ||P w_j||, positive.
        slack: (n,) finite.
    """

    cell: HeldCell
    family: Indices
    row: Indices
    length: Array
    slack: Array

    @property
    def distance(self) -> Array:
        """(n,) from zero to each facet."""
        return self.slack / self.length

    @property
    def features(self) -> Indices:
        """(n,) the SAE's features."""
        named = np.zeros(len(self.row), dtype=np.intp)
        for index, half in enumerate(self.cell.half_spaces):
            mine = self.family == index
            named[mine] = half.named(self.row[mine])
        return named

    def moved(self, delta: Array) -> Array:
        """sign w_j . delta / ||P w_j|| for every row and one delta of the null space, (n,)."""
        parts = []
        for index, half in enumerate(self.cell.half_spaces):
            mine = self.row[self.family == index]
            parts.append(half.sign * (half.normals @ delta)[mine])
        return np.concatenate([np.zeros(0), *parts]) / self.length

    def unit(self, chosen: Indices) -> Array:
        """sign P w_j / ||P w_j|| of some rows, (k, d)."""
        rows = np.zeros((len(chosen), self.cell.width))
        for index, half in enumerate(self.cell.half_spaces):
            mine = self.family[chosen] == index
            rows[mine] = half.sign * half.normals[self.row[chosen[mine]]]
        return self.cell.free_part(rows) / self.length[chosen, None]


def free_rows(cell: HeldCell) -> FreeRows:
    """Every half-space with finite slack and a normal that is no combination of the equalities.

    Raises:
        InputError: a slack is negative, so that zero is outside.
    """
    family, row, length, slack = [], [], [], []
    for index, half in enumerate(cell.half_spaces):
        kept = np.flatnonzero(np.isfinite(half.slack))
        if (half.slack[kept] < 0).any():
            raise InputError(f"a slack is {half.slack[kept].min():g}", rule="a held cell contains zero")
        free, full = _lengths(cell, half, kept)
        binds = free > SPAN * full
        row.append(kept[binds])
        family.append(np.full(int(binds.sum()), index, dtype=np.intp))
        length.append(free[binds])
        slack.append(half.slack[kept[binds]])
    none = [np.zeros(0, dtype=np.intp)]
    return FreeRows(
        cell,
        np.concatenate(none + family),
        np.concatenate(none + row),
        np.concatenate([np.zeros(0), *length]),
        np.concatenate([np.zeros(0), *slack]),
    )


def _lengths(cell: HeldCell, half: HalfSpaces, kept: Indices) -> tuple[Array, Array]:
    """||P w_j|| and ||w_j|| of some rows, (k,) each."""
    free, full = np.zeros(len(kept)), np.zeros(len(kept))
    every = len(kept) == len(half.slack)
    for start in range(0, len(kept), BLOCK):
        part = slice(start, start + BLOCK)
        rows = half.normals[part] if every else half.normals[kept[part]]
        full[part] = np.linalg.norm(rows, axis=1)
        held = np.linalg.norm(rows @ cell.basis, axis=1)
        left = np.sqrt(np.maximum(full[part] - held, 0.0)) * np.sqrt(full[part] + held)  # squares may underflow
        near = np.flatnonzero(left <= CANCELLED * full[part])
        left[near] = np.linalg.norm(cell.free_part(rows[near]), axis=1)
        free[part] = left
    return free, full


def inner_radius(cell: HeldCell) -> float:
    """The largest r such that all delta with `equal @ delta = 0` and ||delta|| <= r are in the cell; may be inf."""
    return float(free_rows(cell).distance.min(initial=np.inf))


def nearest_thresholds(cell: HeldCell, count: int = 10) -> Thresholds:
    """The `count` half-spaces nearest to zero, nearest first, with the direction of each; fewer if there are fewer."""
    rows = free_rows(cell)
    chosen = np.argsort(rows.distance, kind="stable")[: max(count, 0)]
    return Thresholds(rows.family[chosen], rows.features[chosen], rows.distance[chosen], rows.unit(chosen))


def thresholds_along(cell: HeldCell, g: Array, count: int = 10) -> Thresholds:
    """The half-spaces that t P g / ||P g|| meets for growing t >= 0, first met first; none where it meets none.

    Args:
        cell: the held cell.
        g: (d,) direction; only its part in the null space of the equalities counts.
        count: how many.

    Raises:
        ShapeError: g has another length than the cell's width.
    """
    g = _vector(cell, g)
    rows, free = free_rows(cell), cell.free_part(g)
    length = float(np.linalg.norm(free))
    if length <= SPAN * float(np.linalg.norm(g)) or not len(rows.slack):
        empty = np.zeros(0, dtype=np.intp)
        return Thresholds(empty, empty, np.zeros(0), None)
    moved = rows.moved(free / length)
    met = np.flatnonzero(moved > SPAN)
    at = rows.distance[met] / moved[met]
    order = np.argsort(at, kind="stable")[: max(count, 0)]
    return Thresholds(rows.family[met[order]], rows.features[met[order]], at[order], None)


def free_basis(cell: HeldCell) -> Array:
    """Orthonormal basis of the equalities' null space, (d, q)."""
    return np.linalg.qr(cell.basis, mode="complete")[0][:, cell.rank :]


def inscribed_ball(cell: HeldCell, limit: float) -> InscribedBall:
    """The Chebyshev centre: the largest ball in the cell, within the null space of the equalities.

    An interior point method on a working set that grows by the rows that cut the ball (Boyd and Vandenberghe, Convex
    Optimization, 8.5.1). The answer's radius is measured against every half-space, and `upper` says how much a larger
    ball could have.

    Args:
        cell: the held cell.
        limit: positive and finite. The centre's coordinates, in an orthonormal basis of the null space, stay within it:
            a cell without end may have balls without end.

    Raises:
        InputError: the limit is not positive and finite.
    """
    if not (np.isfinite(limit) and limit > 0):
        raise InputError(f"limit is {limit!r}", rule="it must be positive and finite")
    rows, basis = free_rows(cell), free_basis(cell)
    zero = np.zeros(cell.width)
    if not len(rows.slack):
        return InscribedBall(zero, np.inf, np.inf, limit)
    distance, chosen = rows.distance, np.zeros(0, dtype=np.intp)
    best = InscribedBall(zero, float(distance.min()), np.inf, limit)
    gap, aim = distance, 0
    for _ in range(ROUNDS):
        new = np.argsort(gap)[: basis.shape[1] + SPARE]
        new = new[gap[new] < np.inf]
        if not new.size and aim == len(GAPS) - 1:
            break
        aim = min(aim + (not new.size), len(GAPS) - 1)
        chosen = np.concatenate([chosen, new])
        found = chebyshev_centre(rows.unit(chosen) @ basis, distance[chosen], limit, GAPS[aim])
        centre = basis @ found.point
        gap = distance - rows.moved(centre)
        radius, upper = float(gap.min()), min(best.upper, found.upper)
        best = InscribedBall(centre, radius, upper, limit) if radius > best.radius else _with(best, upper)
        gap = np.where(gap < found.radius * (1.0 - VIOLATED), gap, np.inf)
        gap[chosen] = np.inf
    return best


def _with(ball: InscribedBall, upper: float) -> InscribedBall:
    return InscribedBall(ball.centre, ball.radius, max(upper, ball.radius), ball.limit)


def _vector(cell: HeldCell, g: Array) -> Array:
    g = np.asarray(g, dtype=np.float64)
    if g.shape != (cell.width,) or not np.isfinite(g).all():
        raise ShapeError(f"g has shape {g.shape}", rule=f"it is {cell.width} finite numbers")
    return g
