"""A ball of perturbations that all keep what is held at one residual, and one outside that does not.

Theorem: cell-size. The file gives only the claim: the rows, their room and the multipliers that shorten them are found
here, from the weights. Rows whose plain length is enough are never touched again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..admissible import Constraints, admissible_within, constraints_at, held_set
from ..arithmetic import Array, Ball, combine, dot, gamma, norm, row_lengths, up
from ..cell import HELD, Cell
from ..errors import Rejected
from ..independence import approximate_inverse, rescaled
from ..multipliers import Multipliers, Sparse
from ..reader import Reader
from .subject import Kind, Subject, need

BLOCK = 256
"""Rows that are shortened at a time, those with the least room for their length first."""


def read_cell(subject: Subject, step: Reader) -> Cell:
    """The held cell that a step names by its keys point, held and features."""
    held = step.text("held", HELD)
    features = None if step.raw("features") is None else tuple(int(f) for f in subject.features(step))
    if features is None and held in ("preactivations", "defended"):
        raise step.fail("features", f"must name what held={held!r} holds")
    if features is not None and held in ("free", "code"):
        raise step.fail("features", f"must be null for held={held!r}")
    return Cell(subject.sae, {"x": subject.point(step)}, held, features, ())


def place(step: Reader, cell: Cell) -> str:
    """Where a statement holds, for readers."""
    named = "" if cell.features is None else f" ({len(cell.features)} features)"
    return f"point {step.integer('point')}, held={cell.held}{named}"


def parts_of(cell: Cell) -> tuple[list[Constraints], Array]:
    """Convex sets on which everything held keeps its value, and all their equalities, (n, d), rescaled and distinct."""
    parts = [part for point in cell.points for part in constraints_at(cell, point)]
    return parts, rescaled(np.concatenate([part.equal for part in parts]))


def settled(cell: Cell) -> bool:
    """Whether rounding can tell which features are on, so that the equalities are those of the features that are.

    `constraints_at` holds a doubtful feature with equality, which is sufficient. A ball speaks of everything that obeys
    the equalities of the features that are on, and one that is off with no room to spare leaves it no radius.
    """
    if cell.held not in ("defended", "code"):
        return True
    matters = np.ones(cell.sae.W_enc.shape[1], dtype=bool)
    if cell.held == "defended" and cell.sae.architecture != "topk":
        matters[:] = False
        matters[np.array(cell.chosen, dtype=np.intp)] = True
    now = cell.full_state("x")
    doubtful = np.flatnonzero(matters & ~(now.on | now.off))
    return not cell.sae.W_enc[:, doubtful].any()  # a zero column moves nothing


def proven_radius(cell: Cell, centre: Array) -> float:
    """The largest r that this arithmetic proves: what obeys the equalities within r of the centre keeps what is held.

    The equalities are those of the features that are on (or named by the threat).

    Args:
        cell: of one residual.
        centre: (d,) zero, or any point; r is then measured from an exactly admissible point near it (theorem:
            witness-nearby).

    Returns:
        r, inf when nothing but the equalities is held.

    Raises:
        Rejected: no admissible point is known near the centre, or no r >= 0 is proven.
    """
    parts, equal = parts_of(cell)
    inverse, least = approximate_inverse(equal), np.inf if settled(cell) else 0.0
    for part in parts:
        if part.upper.size:
            least = min(least, _least(part, equal, inverse, centre, least))
    if not centre.any():
        return max(least, 0.0)  # zero itself moves nothing
    away = admissible_within(cell, Ball.exact(centre))
    radius = float(np.nextafter(least - away, -np.inf))
    need(radius >= 0, "no ball around the centre is proven")
    return radius


def _least(part: Constraints, equal: Array, inverse: Array, centre: Array, least: float) -> float:
    """The least distance from the centre to a half-space's boundary, rounded down; only values below `least` matter.

    With any mu and v = w_j - mu equal, w_j . delta = v . delta on the equalities' null space, so that v . centre +
    r ||v|| <= room_j is enough. mu = 0 first, for all; then the best mu, for those that mu = 0 leaves nearest.
    """
    exact = Ball.exact(centre)
    moved = combine(exact, Ball.exact(part.upper.T)).high if centre.any() else np.zeros(len(part.upper))
    plain = _distance(part.room, moved, row_lengths(part.upper), part.strict)
    plain[~part.upper.any(axis=1)] = np.inf  # moves nothing
    order = np.argsort(plain)
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        rows = rows[plain[rows] < least]
        if not rows.size:
            break
        mu = part.upper[rows] @ inverse
        mid = part.upper[rows] - mu @ equal
        rad = up((np.abs(mu) @ np.abs(equal)) * (3 * gamma(len(equal))) + 2.0**-52 * np.abs(mid))
        moved = combine(exact, Ball(mid.T, rad.T)).high if centre.any() else np.zeros(len(rows))
        short = _distance(part.room[rows], moved, row_lengths(np.nextafter(np.abs(mid) + rad, np.inf)), part.strict)
        least = min(least, float(np.maximum(plain[rows], short).min()))
    return least


def _distance(room: Array, moved: Array, length: Array, strict: bool) -> Array:
    """(room - moved) / length, rounded down, once more where the boundary does not belong to the cell."""
    distance = np.nextafter(np.nextafter(room - moved, -np.inf) / length, -np.inf)
    if strict:
        distance = np.nextafter(distance, -np.inf)
    return np.where(np.isnan(distance), -np.inf, distance)


def outside(cell: Cell, feature: int, delta: Array) -> float:
    """An upper bound of ||v|| for some v that obeys the equalities and leaves the half-space of one feature.

    Raises:
        Rejected: no such v is known near delta, or nothing holds this feature off.
    """
    nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
    one = Sparse(np.array([feature], dtype=np.intp), np.ones(1))
    column, room = cell.span(Multipliers({"x": (nothing, one, nothing)}))
    held, ball = held_set(cell), Ball.exact(delta)
    away = Ball.exact(held.reach) * norm(combine(ball, Ball.exact(held.equal.T))) if held.equal.size else Ball.exact(0)
    reached = dot(ball, column) - norm(column) * away - room
    need(reached.low > 0, f"the point does not certainly leave the half-space of feature {feature}")
    return float((norm(ball) + away).high)


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    cell = read_cell(subject, step)
    centre = np.zeros(subject.d) if step.raw("centre") is None else subject.vector(step, "centre")
    claimed = step.number("radius")
    if claimed < 0:
        raise step.fail("radius", "must not be negative")
    proven = proven_radius(cell, centre)
    need(claimed <= proven, f"the radius {claimed:.9g} exceeds {proven:.9g}, which is proven")
    values: dict[str, Any] = {"radius": claimed, "upper": None, "centred": not centre.any()}
    around = "" if not centre.any() else " around a given admissible one"
    text = f"{place(step, cell)}: all perturbations{around} up to length {claimed!r} that obey the equalities keep it"
    if step.raw("beyond") is None:
        return text, values
    if centre.any():
        raise Rejected("an upper side is measured from zero, so that no centre may be given")
    beyond = Reader(step.raw("beyond"), "beyond", ("feature", "delta", "upper"))
    feature, upper = beyond.integer("feature"), beyond.number("upper")
    need(feature < subject.m, f"feature {feature} is not below {subject.m}")
    length = outside(cell, feature, subject.vector(beyond, "delta"))
    need(length <= upper, f"the point outside has length {length:.9g}, more than {upper:.9g}")
    values |= {"upper": upper, "feature": feature}
    return f"{text}; one up to length {upper!r} does not, by feature {feature}", values


KIND = Kind(theorem="cell-size", keys=("point", "held", "features", "centre", "radius", "beyond"), prove=_prove)
