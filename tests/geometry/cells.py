"""Cells from plain arrays, a hypothesis strategy of random and degenerate ones, and exactly admissible samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell, Row

KINDS = ("random", "integers", "duplicate rows", "in the span", "no slack", "scales", "dependent", "opposite")


def cell_of(width: int, equal: Any = None, *families: tuple[float, Any, Any]) -> HeldCell:
    """A cell; families are (sign, normals, slack)."""
    rows = np.zeros((0, width)) if equal is None else np.asarray(equal, dtype=np.float64).reshape(-1, width)
    return HeldCell(
        width,
        rows,
        tuple(Row("x", "equal", i) for i in range(len(rows))),
        tuple(HalfSpaces("x", sign, normals, slack) for sign, normals, slack in families if len(normals)),
    )


@dataclass(frozen=True, eq=False)
class Case:
    """A problem for the solvers."""

    kind: str
    cell: HeldCell
    g: Array
    radius: float

    def __repr__(self) -> str:
        shape = (self.cell.width, len(self.cell.equal), [len(h.slack) for h in self.cell.half_spaces])
        return f"Case({self.kind!r}, shape={shape}, radius={self.radius})"


def make_case(kind: str, seed: int, width: int, equalities: int, rows: int, radius: float) -> Case:
    rng = np.random.default_rng(seed)
    equal, normals = rng.normal(size=(equalities, width)), rng.normal(size=(rows, width))
    slack = np.abs(rng.normal(size=rows)) * 0.5
    g = rng.normal(size=width)
    both = min(equalities, rows)
    if kind == "integers":  # ties everywhere
        equal, normals = (rng.integers(-1, 2, size=a.shape).astype(float) for a in (equal, normals))
        slack, g = rng.integers(0, 3, size=rows) * 0.25, rng.integers(-1, 2, size=width).astype(float)
    elif kind == "duplicate rows":
        normals = np.repeat(normals, 3, axis=0)[:rows]
    elif kind == "in the span":  # features that are off, with the encoder column of one that is on
        normals[:both], slack[:both] = equal[:both] * rng.choice([1.0, 2.0, 1e-6], size=(both, 1)), 0.0
    elif kind == "no slack":
        slack[rng.random(rows) < 0.6] = 0.0
    elif kind == "scales":
        normals, equal = (a * 10.0 ** rng.uniform(-15, 15, size=(len(a), 1)) for a in (normals, equal))
        slack *= np.linalg.norm(normals, axis=1)
    elif kind == "dependent" and equalities:
        equal = np.concatenate([equal, equal[:1] * 3, equal.sum(axis=0, keepdims=True), np.zeros((1, width))])
    elif kind == "opposite" and rows > 1:
        normals[1], slack[0] = -normals[0], 0.0
        slack[1] = 0.0
    half = len(normals) // 2
    slack[rng.random(len(slack)) < 0.1] = np.inf
    families = ((1.0, normals[:half], slack[:half]), (-1.0, -normals[half:], slack[half:]))
    return Case(kind, cell_of(width, equal, *families), g, radius)


def cases(max_width: int = 8, radii: tuple[float, ...] = (1.0, 1.0, 0.1, 1e-6, 10.0, 1e6)) -> st.SearchStrategy[Case]:
    """Random and degenerate problems; shrinks towards few, plain rows."""
    return st.builds(
        make_case,
        st.sampled_from(KINDS),
        st.integers(0, 2**32 - 1),
        st.integers(1, max_width),
        st.integers(0, max_width + 2),
        st.integers(0, 14),
        st.sampled_from(radii),
    )


def violation(cell: HeldCell, delta: Array, radius: float) -> float:
    """The largest violation of any constraint, in units of the row's length times the radius."""
    worst = float(np.linalg.norm(delta)) / radius - 1.0 if radius > 0 else float(np.abs(delta).max())
    rows = [(cell.equal, np.abs(cell.equal @ delta))]
    rows += [(h.normals, h.sign * (h.normals @ delta) - h.slack) for h in cell.half_spaces]
    for normals, excess in rows:
        length = np.linalg.norm(normals, axis=1)
        there = (length > 0) & np.isfinite(excess)
        worst = max(worst, float(np.max(excess[there] / length[there] / max(radius, 1e-300), initial=-np.inf)))
    return worst


def admissible_samples(cell: HeldCell, radius: float, count: int, seed: int) -> Array:
    """Points of the cell and the ball, (count, d), scaled towards zero until every constraint holds with a margin."""
    rng = np.random.default_rng(seed)
    raw = cell.free_part(rng.normal(size=(count, cell.width)))
    raw[np.linalg.norm(raw, axis=1) <= 1e-9] = 0.0  # nothing is free, and this is rounding
    raw *= radius / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-300)
    raw *= np.where(rng.random((count, 1)) < 0.5, 1.0, rng.random((count, 1)))
    for half in cell.half_spaces:
        moved = half.sign * (raw @ half.normals.T)  # (count, m)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(moved > half.slack, half.slack / moved, 1.0)
        raw *= np.minimum(1.0, share.min(axis=1, initial=1.0))[:, None] * (1 - 1e-13)
    return raw
