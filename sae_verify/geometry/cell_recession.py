"""Whether a held cell ends in every direction: how far it reaches at most, or one direction in which it never ends.

Theorem: cell-size. The cell is bounded iff, within the null space of the equalities, the half-spaces' normals span
positively. The analytic centre of {y: v_j . y <= 1} inside a large box tells: where they do, it lies near zero and its
weights, made exact by one more step, are multipliers f > 0 with sum f_j v_j = 0; where they do not, it runs to the box
along a direction in which no row rises. Neither is trusted: `certificates.cell_size` has the checker prove it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

from sae_verify.geometry.cell_barrier import analytic_centre
from sae_verify.geometry.cell_size import ROUNDS, SPARE, FreeRows, free_basis, free_rows
from sae_verify.geometry.held_cell import Array, HeldCell, Indices

FAR = 1e5
"""Size of the box, when every row has length and slack 1: a cell longer than that counts as one without end, until the
multipliers or the direction say otherwise."""
KEPT = 0.5
"""Of each weight that must be left after the step that makes them exact; in a direction without end nothing is left."""
SINGULAR = 1e-7
"""Relative: a triangular factor with a smaller diagonal entry has rows that do not span."""
STILL = (0.0, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""A row that falls by less than this counts as one that the direction does not move at all; tried in this order."""
FALLS = 1e-9
"""Relative: every other row must fall at least this much, so that the checker can prove it."""
RESTS = 1e-11
"""Relative: what rounding may leave of a row that does not move."""
ROWS_A_DIMENSION, SPARE_ROWS = 8, 256
"""The checker takes at most 8 d + 256 rows with multipliers."""
FLOOR = 1e-4
"""Relative to the cell's size: slacks below are taken as this when the multipliers are improved. Costs tightness."""

Verdict = Literal["bounded", "unbounded", "undecided"]


@dataclass(frozen=True, eq=False)
class Recession:
    """What is known of a cell far out.

    Attributes:
        verdict: in floats; a certificate of it is for the checker to accept.
        radius: of a ball around zero that contains a bounded cell; not the least one.
        equal: (n,) multipliers of the equalities. With those of the half-spaces they add all rows up to zero.
        upper: per half-space family, (features, multipliers), positive; they span where the cell is bounded.
        direction: (d,) unit vector, in the cell at every length; None unless unbounded.
        still: features whose normals the direction is orthogonal to; every other one falls.
    """

    verdict: Verdict
    radius: float | None
    equal: Array
    upper: tuple[tuple[Indices, Array], ...]
    direction: Array | None
    still: Indices


def recession(cell: HeldCell) -> Recession:
    """Decide whether the cell is bounded.

    The working set starts with the rows nearest to zero and grows by those that rise along a direction in which it does
    not end. Cost: per round some twenty steps of n q^2 multiplications, n a few times q.
    """
    rows, basis = free_rows(cell), free_basis(cell)
    none = np.zeros(0, dtype=np.intp)
    if not basis.shape[1]:
        return _bounded(rows, none, np.zeros(0), 0.0)
    if not len(rows.slack):
        return _unbounded(cell, basis[:, 0], none)
    most = ROWS_A_DIMENSION * cell.width + SPARE_ROWS
    batch = basis.shape[1] + SPARE
    chosen = np.argsort(rows.distance)[: 3 * basis.shape[1] + SPARE]
    for _ in range(ROUNDS):
        units = rows.unit(chosen) @ basis
        weights, ways = _weigh(units)
        if weights is not None:
            if len(chosen) > most:
                kept = np.sort(np.argsort(-weights)[:most])
                chosen, units = chosen[kept], units[kept]
                weights, _ = _weigh(units)
            return _undecided(rows) if weights is None else _improved(rows, chosen, units, weights)
        found = [way for direction in ways if (way := _snap(units, direction)) is not None]
        rising = []
        for direction in [y for y, _ in found] or ways[:1]:
            moved = rows.moved(basis @ direction)
            moved[chosen] = -np.inf
            rising.append(np.argsort(-moved)[:batch])
            rising[-1] = rising[-1][moved[rising[-1]] > -FALLS]
        for (direction, still), more in zip(found, rising, strict=False):
            if not more.size:
                return _unbounded(cell, basis @ direction, np.unique(rows.features[chosen[still]]))
        new = np.unique(np.concatenate(rising))
        if not new.size:
            break
        chosen = np.concatenate([chosen, new])
    return _undecided(rows)


def _weigh(units: Array) -> tuple[Array | None, list[Array]]:
    """f > 0 with units^T f = 0 for rows that span, (n,); else None and directions in which few rows rise, (q,) each."""
    centre = analytic_centre(units, np.ones(len(units)), FAR)
    exact = _exact(units, centre.weights)
    if exact is not None:
        return exact, []
    length = float(np.linalg.norm(centre.point))
    ways = [centre.point / length] if length > 1.0 else []
    _, sigma, right = np.linalg.svd(units, full_matrices=len(units) < units.shape[1])
    if len(sigma) < len(right) or sigma[-1] <= SINGULAR * sigma[0]:
        ways += [right[-1], -right[-1]]
    return None, ways or [centre.point / max(length, 1e-300)]


def _exact(units: Array, weights: Array) -> Array | None:
    """The weights after a step towards units^T f = 0; None where they do not stay positive or the rows do not span."""
    weighted = units * weights[:, None]
    try:
        factor = cho_factor(weighted.T @ weighted)
    except LinAlgError:
        return None
    diagonal = np.abs(np.diag(factor[0]))
    if diagonal.min() <= SINGULAR * diagonal.max():
        return None
    for _ in range(2):  # the second against cancellation
        change = weighted @ cho_solve(factor, weights @ units)
        if not (change <= KEPT).all():
            return None
        weights = weights * (1.0 - change)
    return weights


def _size(units: Array, distance: Array, weights: Array) -> float:
    """The outer radius that these multipliers prove, up to rounding (theorem: cell-size (c))."""
    q, r = np.linalg.qr(units * weights[:, None])
    if not np.abs(np.diag(r)).min() > 0:
        return np.inf
    inverse = solve_triangular(r, q.T)  # (q, n)
    scaled = weights * distance
    corners = (inverse @ scaled)[:, None] - scaled.sum() * inverse
    left = 1.0 - float(np.linalg.norm(weights @ units)) * float(np.linalg.norm(inverse, axis=0).max())
    return float(np.linalg.norm(corners, axis=0).max()) / left if left > 0 else np.inf


def _improved(rows: FreeRows, chosen: Indices, units: Array, weights: Array) -> Recession:
    """The better of these multipliers and of those of the cell's own analytic centre."""
    distance = rows.distance[chosen]
    size = _size(units, distance, weights)
    if np.isfinite(size) and size > 0:
        own = _exact(units, analytic_centre(units, np.maximum(distance, FLOOR * size), 2.0 * size).weights)
        if own is not None and (better := _size(units, distance, own)) < size:
            size, weights = better, own
    return _bounded(rows, chosen, weights, size) if np.isfinite(size) else _undecided(rows)


def _snap(units: Array, direction: Array) -> tuple[Array, Indices] | None:
    """A direction near this one along which every row falls or does not move at all, with those that do not move."""
    rise = units @ direction
    for limit in STILL:
        still = np.flatnonzero(rise > -limit) if limit else np.flatnonzero(rise > 0.0)
        moved = direction
        if still.size:
            _, sigma, right = np.linalg.svd(units[still], full_matrices=False)
            span = right[sigma > SINGULAR * sigma[0]]
            for _ in range(2):
                moved = moved - (span @ moved) @ span
        length = float(np.linalg.norm(moved))
        if length < KEPT:
            return None
        moved = moved / length
        change = units @ moved
        fall = np.ones(len(units), dtype=bool)
        fall[still] = False
        if (change[fall] < -FALLS).all() and (np.abs(change[still]) <= RESTS).all():
            return moved, still
    return None


def _bounded(rows: FreeRows, chosen: Indices, weights: Array, radius: float) -> Recession:
    """With the multipliers in units of the stored rows, and those of the equalities that cancel them."""
    cell, upper = rows.cell, []
    rest = np.zeros(cell.width)
    f = weights / rows.length[chosen]
    f = f / f.max(initial=1e-300)
    features = rows.features[chosen]
    for index, half in enumerate(cell.half_spaces):
        mine = rows.family[chosen] == index
        upper.append((features[mine], f[mine]))
        rest -= half.sign * (f[mine] @ half.normals[rows.row[chosen[mine]]])
    equal = np.zeros(len(cell.equal))
    length = np.linalg.norm(cell.equal, axis=1)
    there = length > 0
    if there.any() and chosen.size:
        unit = cell.equal[there] / length[there, None]
        equal[there] = np.linalg.lstsq(unit.T, rest, rcond=1e-12)[0] / length[there]
    return Recession("bounded", radius, equal, tuple(upper), None, np.zeros(0, dtype=np.intp))


def _unbounded(cell: HeldCell, direction: Array, still: Indices) -> Recession:
    direction = cell.free_part(direction)
    return Recession("unbounded", None, np.zeros(len(cell.equal)), (), direction / np.linalg.norm(direction), still)


def _undecided(rows: FreeRows) -> Recession:
    return Recession("undecided", None, np.zeros(len(rows.cell.equal)), (), None, np.zeros(0, dtype=np.intp))
