"""What statements about codes share: which codes are admissible, which vector is meant, products with many rows.

An admissible code f gives every named row a number f_j >= 0, at most `upper`_j where there is one; the sum of all is
at most `total` and at most `active` of them are positive, where those are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, combine
from ..errors import Rejected
from ..reader import Reader
from .subject import Subject

BLOCK = 2048
"""Rows handled at a time, so that nothing as large as the weights is made."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The admissible codes.

    Attributes:
        rows: (n, d), as stored. names: (n,) the feature of each. label: of the choice of rows, hashable.
        upper: (n,), inf where there is no bound.
        total, active: of the sum and of the number of positive entries; None for no bound.
    """

    rows: Array
    names: np.ndarray
    label: tuple[str, tuple[int, ...] | None]
    upper: Array
    total: float | None
    active: int | None

    def __str__(self) -> str:
        parts = ["f >= 0"]
        if self.label[1] is not None:
            parts.append(f"on {len(self.names)} features")
        if np.isfinite(self.upper).any():
            parts.append("f <= u")
        if self.total is not None:
            parts.append(f"sum(f) <= {self.total!r}")
        if self.active is not None:
            parts.append(f"at most {self.active} active")
        return ", ".join(parts)


def read_rows(subject: Subject, step: Reader) -> tuple[Array, np.ndarray, tuple[str, tuple[int, ...] | None]]:
    """The rows that `rows` names, the feature of each, and a label of the choice."""
    rows = subject.rows(step)
    named = step.raw("rows")  # well-formed: it was just read
    features = None if named["features"] is None else tuple(named["features"])
    names = np.arange(subject.m) if features is None else np.array(features, dtype=np.intp)
    return rows, names, (named["matrix"], features)


def read_codes(subject: Subject, step: Reader) -> Codes:
    """`rows`, `upper` (null, a number or one number or null a row), `total` and `active` (null for none)."""
    rows, names, label = read_rows(subject, step)
    total = None if step.raw("total") is None else step.number("total")
    if total is not None and total < 0:
        raise step.fail("total", "must not be negative")
    active = None if step.raw("active") is None else step.integer("active")
    return Codes(rows, names, label, _upper(step, len(rows)), total, active)


def _upper(step: Reader, n: int) -> Array:
    raw: Any = step.raw("upper")
    if raw is None:
        return np.full(n, np.inf)
    if not isinstance(raw, list):
        upper = np.full(n, step.number("upper"))
    elif len(raw) != n:
        raise step.fail("upper", f"must be one a row, {n} of them")
    else:
        there = [value is not None for value in raw]
        upper = np.full(n, np.inf)
        upper[there] = Reader({"upper": [v for v in raw if v is not None]}, "upper", ("upper",)).numbers("upper")
    if (upper < 0).any():
        raise step.fail("upper", "must not be negative")
    return upper


def read_target(subject: Subject, step: Reader) -> Ball:
    """The vector that a step speaks of: a point of the file (`point`) or a vector given here (`vector`), not both."""
    if (step.raw("point") is None) == (step.raw("vector") is None):
        raise Rejected("a step about a vector names a point or gives the vector, one of the two")
    return subject.point(step) if step.raw("vector") is None else Ball.exact(subject.vector(step, "vector"))


def products(rows: Array, y: Array) -> Ball:
    """Enclosures of rows @ y, (n,)."""
    mid, rad = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        found = combine(Ball.exact(y), Ball.exact(rows[part].T))
        mid[part], rad[part] = found.mid, found.rad
    return Ball(mid, rad)
