"""Questions about codes: which vector, which rows, what a code may be; answers as data and as evidence.

Theorem: cone-membership. Claims are moved outward by more than the checker's rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.cone_solver import UnitRows
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.rows import Features, Matrix, Source, checked_features, named, select

U = 2.0**-53
LONGEST = 1e140
"""Lengths are zero or between 1/LONGEST and this, so that no square overflows or vanishes."""


@dataclass(frozen=True, eq=False)
class Question:
    """A vector, rows and what a code may be.

    Attributes:
        x: (d,). rows: (n, d) in float64, with lengths. label: the rows as a statement names them.
        names: (n,) the feature of each row.
        upper: (n,), inf for none.
        total, active: of the sum of the code and of the number of its positive entries; None for no bound.
    """

    x: Array
    rows: UnitRows
    label: dict[str, Any]
    names: Indices
    upper: Array
    total: float | None = None
    active: int | None = None

    def keys(self, point: int | None) -> dict[str, Any]:
        """The keys that steps share; x is named by its index among the file's points, or given."""
        if np.isinf(self.upper).all():
            upper: Any = None
        elif (self.upper == self.upper[0]).all():
            upper = float(self.upper[0])
        else:
            upper = [float(u) if np.isfinite(u) else None for u in self.upper]
        return {
            "theorem": "cone-membership",
            "rows": self.label,
            "point": point,
            "vector": self.x.tolist() if point is None else None,
            "upper": upper,
            "total": self.total,
            "active": self.active,
        }


@dataclass(frozen=True, eq=False)
class Member:
    """A code: feature indices (n,), values f > 0 (n,), and an upper bound of ||x - f @ W||, rounding included."""

    features: Indices
    values: Array
    residual: float


@dataclass(frozen=True, eq=False)
class Separation:
    """Why no code comes nearer than `distance`.

    Attributes:
        direction: (d,). level: multiplier of the bound on the code's sum.
        distance: lower bound of ||x - f @ W||, rounding included.
        total: the statement is about codes with at most this sum; None if the sum plays no part. Below the question's
            own bound where rounding spoils a proof for that, see the module.
    """

    direction: Array
    level: float
    distance: float
    total: float | None


def ask(
    source: Source,
    x: Array,
    features: Features,
    *,
    matrix: Matrix,
    upper: float | Array | None,
    total: float | None = None,
    active: int | None = None,
) -> Question:
    """The question, validated."""
    rows = UnitRows.of(np.ascontiguousarray(select(source, features, matrix), dtype=np.float64))
    m = select(source).shape[0]
    names = np.arange(m) if features is None else checked_features(features, m)
    x = np.array(x, dtype=np.float64)
    if x.shape != (rows.stored.shape[1],):
        raise ShapeError(f"x has shape {x.shape}", rule=f"it must be ({rows.stored.shape[1]},)")
    with np.errstate(over="ignore"):
        lengths = np.append(rows.length, np.linalg.norm(x))
    if not ((lengths == 0) | ((lengths >= 1 / LONGEST) & (lengths <= LONGEST))).all() or (lengths[-1] == 0) != (
        not x.any()
    ):
        raise InputError(
            f"lengths from {lengths.min():.3g} to {lengths.max():.3g}",
            rule=f"x and rows must be zero or have lengths from {1 / LONGEST:g} to {LONGEST:g}",
            remedy="scale them by a power of two",
        )
    given = np.asarray(np.inf if upper is None else upper, dtype=np.float64)
    if given.shape not in ((), (len(names),)):
        raise ShapeError(f"upper has shape {given.shape}", rule=f"it must be one number, or ({len(names)},)")
    bound = np.array(np.broadcast_to(given, len(names)))
    limit = None if total is None or total == np.inf else float(total)
    if not (bound >= 0).all() or (limit is not None and not limit >= 0):
        raise InputError("a bound of the code is negative or NaN", rule="bounds are from 0")
    return Question(x, rows, named(features, matrix), names, bound, limit, active)


def member(question: Question, at: Indices, values: Array) -> Member:
    """The code as it is claimed: within its bounds exactly, its residual with the checker's rounding."""
    f = np.minimum(values, question.upper[at])
    at, f = at[f > 0], f[f > 0]
    if question.total is not None and f.size:
        within = question.total * (1 - 4 * (len(f) + 4) * U)
        f = f * min(1.0, within / float(f.sum()))
    rows, d = question.rows.stored[at], len(question.x)
    rest = question.x - f @ rows
    error = 2 * (len(f) + 8) * U * (np.abs(f) @ np.abs(rows) + np.abs(question.x))
    size = float(np.linalg.norm(rest)) + float(np.linalg.norm(error))
    return Member(question.names[at], f, size * (1 + 8 * (d + 8) * U) + 1 / LONGEST**2)


def member_step(question: Question, found: Member, point: int | None = None) -> dict[str, Any]:
    """Evidence of kind cone-member; x is the file's point of that index, or given in the step."""
    return {
        "kind": "cone-member",
        **question.keys(point),
        "features": found.features.tolist(),
        "values": found.values.tolist(),
        "residual": found.residual,
    }


def distance_step(question: Question, found: Separation, point: int | None = None) -> dict[str, Any]:
    """Evidence of kind cone-distance; x as for `member_step`."""
    return {
        "kind": "cone-distance",
        **question.keys(point),
        "total": found.total,
        "direction": found.direction.tolist(),
        "level": found.level,
        "distance": found.distance,
    }
