"""The linear worst case over a held cell and an l-infinity ball: a linear program with few of its rows.

    maximise g . delta   subject to   equal @ delta = 0,   sign * normals @ delta <= slack,   |delta_i| <= r.

HiGHS solves it on a working set (`worst_cases.row_by_row` brings the rows in). For every mu and every lambda >= 0 the
value is at most s . lambda + r ||g - W mu - W lambda||_1 (theorem: linear-dual, with the norm dual to the ball's),
computed here from the solver's multipliers and so does not rest on its word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.dictionary import Dictionary
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.screen import Screen
from sae_verify.geometry.worst_case import NOTHING, LinearOptimum
from sae_verify.geometry.worst_cases import check_batch, row_by_row

VIOLATED = 1e-9
"""Relative to the row's length and the radius: what counts as violated, ten times what HiGHS leaves."""
FEASIBLE = 1e-10
"""Asked of HiGHS, in units of the radius."""


def box_worst_case(cell: HeldCell, g: Array, radius: float) -> LinearOptimum:
    """max g . delta over the cell and {|delta_i| <= radius}; cost: one linear program with every half-space.

    Raises:
        UnsupportedError: the linear program solver fails.
    """
    rows, slack = _upper(cell)
    length = np.linalg.norm(rows, axis=1)
    there = (length > 0) & np.isfinite(slack)
    size = float(np.linalg.norm(g))
    if radius <= NOTHING or size == 0.0:
        return _optimum(cell, g, radius, np.zeros_like(g), np.zeros(len(cell.equal)), np.zeros(len(slack)))
    equal_length = np.linalg.norm(cell.equal, axis=1)
    held = equal_length > 0
    found = linprog(  # in units of the radius, rows of length 1
        -g / size,
        A_ub=rows[there] / length[there, None] if there.any() else None,
        b_ub=slack[there] / length[there] / radius if there.any() else None,
        A_eq=cell.equal[held] / equal_length[held, None] if held.any() else None,
        b_eq=np.zeros(int(held.sum())) if held.any() else None,
        bounds=(-1.0, 1.0),
        method="highs",
        options={"primal_feasibility_tolerance": FEASIBLE, "dual_feasibility_tolerance": FEASIBLE},
    )
    if found.x is None:
        raise UnsupportedError(f"the linear program solver ended with: {found.message}")
    upper, equal = np.zeros(len(slack)), np.zeros(len(cell.equal))
    if there.any():
        upper[there] = np.maximum(-found.ineqlin.marginals, 0.0) * size / length[there]
    if held.any():
        equal[held] = -found.eqlin.marginals * size / equal_length[held]
    return _optimum(cell, g, radius, radius * np.clip(found.x, -1.0, 1.0), equal, upper)


def _upper(cell: HeldCell) -> tuple[Array, Array]:
    """All half-spaces as rows @ delta <= slack."""
    rows = [np.zeros((0, cell.width)), *(half.sign * half.normals for half in cell.half_spaces)]
    return np.concatenate(rows), np.concatenate([np.zeros(0), *(half.slack for half in cell.half_spaces)])


def _optimum(cell: HeldCell, g: Array, radius: float, delta: Array, equal: Array, upper: Array) -> LinearOptimum:
    """The answer with its dual value, computed from the multipliers as they are."""
    rest, cost, start, families = g - equal @ cell.equal, 0.0, 0, []
    for half in cell.half_spaces:
        mine = upper[start : start + len(half.slack)]
        features = np.flatnonzero(mine > 0)
        families.append((features, mine[features]))
        rest = rest - half.sign * mine[features] @ half.normals[features]
        cost += float(mine[features] @ half.slack[features])
        start += len(half.slack)
    dual = cost + radius * float(np.abs(rest).sum())
    return LinearOptimum(delta, float(g @ delta), dual, equal, tuple(families))


def box_worst_cases(rows: Dictionary, cells: Sequence[HeldCell], g: Array, radii: Array) -> list[LinearOptimum]:
    """The same for many tokens; arguments and errors as `worst_cases`."""
    g, radii = np.asarray(g, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    check_batch(rows, cells, g, radii)
    screen = Screen(rows, cells)
    return [row_by_row(screen, i, g[i], float(radii[i]), box_worst_case, VIOLATED) for i in range(len(cells))]
