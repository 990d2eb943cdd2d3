"""Multipliers of a held cell in the checker's format: by point, role and feature."""

from __future__ import annotations

from typing import Any, Protocol

from sae_verify.checker.multipliers import Multipliers, read_multipliers
from sae_verify.geometry.held_cell import Array, HeldCell, Indices


class Weighted(Protocol):
    """Whatever carries multipliers of a cell: `equal` (n,) beside `cell.rows`, `upper` per half-space family."""

    @property
    def equal(self) -> Array:
        """Of the equalities."""
        ...

    @property
    def upper(self) -> tuple[tuple[Indices, Array], ...]:
        """Of the half-spaces: features and values."""
        ...


def sparse_multipliers(weighted: Weighted, cell: HeldCell) -> dict[str, Any]:
    """The `multipliers` object of a step; see theory/certificate_format.md."""
    points: dict[str, dict[str, dict[str, list[Any]]]] = {}

    def role(point: str, name: str) -> dict[str, list[Any]]:
        roles = points.setdefault(point, {r: {"features": [], "values": []} for r in ("equal", "upper", "decoder")})
        return roles[name]

    if cell.drift is not None:
        drift = cell.drift
        ((others, values),) = weighted.upper
        for name, features, weights in (
            ("equal", drift.features[drift.fixed], weighted.equal),
            ("upper", others, values),
        ):
            role(drift.point, name).update(features=features.tolist(), values=weights.tolist())
        return points
    for row, value in zip(cell.rows, weighted.equal.tolist(), strict=True):
        entry = role(row.point, row.role)
        entry["features"].append(row.feature)
        entry["values"].append(value)
    for half, (features, values) in zip(cell.half_spaces, weighted.upper, strict=True):
        for feature, value in zip(features.tolist(), values.tolist(), strict=True):
            if value > 0:
                entry = role(half.point, "upper")
                entry["features"].append(feature)
                entry["values"].append(value)
    return points


def evidence(weighted: Weighted, cell: HeldCell) -> Multipliers:
    """The same as the checker reads it."""
    return read_multipliers(sparse_multipliers(weighted, cell), "multipliers")
