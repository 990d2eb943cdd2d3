"""Multipliers of held constraints, as certificates carry them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arithmetic import Array
from .errors import Rejected
from .reader import Reader


@dataclass(frozen=True, eq=False)
class Sparse:
    """Multipliers of some features."""

    features: np.ndarray
    values: Array


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Multipliers by point (`x`, `h`) and role (equal, upper, decoder)."""

    points: dict[str, tuple[Sparse, Sparse, Sparse]]

    def __iter__(self) -> Iterator[tuple[str, Sparse, Sparse, Sparse]]:
        for point, roles in self.points.items():
            yield point, *roles


def read_multipliers(value: Any, where: str) -> Multipliers:
    """Multipliers by point and role."""
    if not isinstance(value, dict) or not set(value) <= {"x", "h"}:
        raise Rejected(f"{where}: multipliers are given by point, x or h")
    points = {}
    for point, roles in value.items():
        reader = Reader(roles, f"{where}.{point}", ("equal", "upper", "decoder"))
        points[point] = tuple(read_sparse(reader.raw(r), f"{where}.{point}.{r}") for r in ("equal", "upper", "decoder"))
    return Multipliers(points)


def read_sparse(value: Any, where: str) -> Sparse:
    """`{features, values}`, one value a feature."""
    reader = Reader(value, where, ("features", "values"))
    features, values = reader.features("features"), reader.numbers("values")
    if len(features) != len(values):
        raise reader.fail("values", "must be one a feature")
    return Sparse(np.array(features, dtype=np.intp), values)
