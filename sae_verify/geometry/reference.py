"""Both problems of `worst_case` as a textbook states them, for an interior-point solver: slow, short, easy to believe.

    maximise   g . delta                 minimise   ||delta - p||
    subject to equal @ delta = 0,        sign * normals @ delta <= slack,        ||delta|| <= r

(or ||delta||_inf <= r, or delta = L y with ||y|| <= r)
and whatever convex constraints the caller adds. Tests compare the solver of this package with it, and so can users.
Its answers carry the interior-point tolerance, about 1e-8 of the radius, and prove nothing. Needs the extra
`reference`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.held_cell import Array, HeldCell

if TYPE_CHECKING:
    import cvxpy

Ball = Literal["l2", "linf", "ellipsoid"]

Extra = Callable[["cvxpy.Variable"], Sequence["cvxpy.Constraint"]]
"""From the variable delta, (d,), to further convex constraints on it."""

TOLERANCE = 1e-11
"""Asked of the solver: feasibility and gap, relative. Where it stalls, 1e-8 is asked."""


class Reference(NamedTuple):
    """The optimum as the solver found it: objective value and point, (d,)."""

    value: float
    delta: Array


def worst_case_reference(
    cell: HeldCell, g: Array, radius: float, extra: Extra | None = None, ball: Ball = "l2", factor: Array | None = None
) -> Reference:
    """max g . delta over the cell, the ball and the extra constraints. Cost: one cone program with every half-space.

    Args:
        cell: the held cell.
        g: (d,) direction.
        radius: of the ball.
        extra: further convex constraints on delta.
        ball: l2, linf, or ellipsoid: {L y : ||y||_2 <= radius}.
        factor: L (d, d), of an ellipsoid.

    Raises:
        UnsupportedError: cvxpy is not installed, or the solver found no optimum (e.g. extra constraints exclude all).
    """
    size = float(np.linalg.norm(g))
    if radius == 0.0 or size == 0.0:
        return Reference(0.0, np.zeros(cell.width))
    if ball == "ellipsoid":
        assert factor is not None
        size = float(np.linalg.norm(g @ factor)) or 1.0
    found = _solve(cell, radius, extra, lambda cp, unit: cp.Maximize((g / size) @ unit), ball, factor)
    return Reference(float(g @ found), found)


def project_reference(cell: HeldCell, p: Array, radius: float, extra: Extra | None = None) -> Reference:
    """The point of cell, ball and extra constraints nearest to p, with its distance; errors as above."""
    if radius == 0.0:
        return Reference(float(np.linalg.norm(p)), np.zeros(cell.width))
    found = _solve(cell, radius, extra, lambda cp, unit: cp.Minimize(cp.norm(unit - p / radius)))
    return Reference(float(np.linalg.norm(p - found)), found)


def _solve(
    cell: HeldCell,
    radius: float,
    extra: Extra | None,
    objective: Callable[[Any, Any], Any],
    ball: Ball = "l2",
    factor: Array | None = None,
) -> Array:
    """The optimal delta; solved in units of the radius, with rows of length 1, which changes no feasible set."""
    try:
        import cvxpy as cp
    except ImportError:
        raise UnsupportedError(
            "cvxpy is not installed", rule="the reference solver needs it", remedy="pip install 'sae-verify[reference]'"
        ) from None
    free = cp.Variable(cell.width)  # delta / radius, or L^-1 delta / radius
    unit = free if factor is None else factor @ free
    constraints: list[Any] = [(cp.norm_inf(free) if ball == "linf" else cp.norm(free)) <= 1.0]
    equal, _ = _unit_rows(cell.equal)
    if equal.size:
        constraints.append(equal @ unit == 0)
    for half in cell.half_spaces:
        there = np.isfinite(half.slack)
        normals, length = _unit_rows(half.sign * half.normals[there])
        slack = half.slack[there][length > 0] / length[length > 0] / radius
        reach = {"l2": 1.0, "linf": cell.width**0.5}.get(ball, np.inf)
        if (slack < reach).any():  # the others hold on the whole ball
            constraints.append(normals[slack < reach] @ unit <= slack[slack < reach])
    if extra is not None:
        delta = cp.Variable(cell.width)
        constraints += [delta == radius * unit, *extra(delta)]
    problem = cp.Problem(objective(cp, unit), constraints)
    for tolerance in (TOLERANCE, 1e-8):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": so the module says
                problem.solve(solver="CLARABEL", tol_gap_abs=tolerance, tol_gap_rel=tolerance, tol_feas=tolerance)
        except cp.SolverError:
            continue
        if unit.value is not None:
            break
    if unit.value is None:
        raise UnsupportedError(f"the reference solver ended with status {problem.status!r}")
    return radius * np.asarray(unit.value, dtype=np.float64)


def _unit_rows(rows: Array) -> tuple[Array, Array]:
    """Non-zero rows scaled to length 1, and the lengths of all rows."""
    length = np.linalg.norm(rows, axis=1)
    return rows[length > 0] / length[length > 0, None], length
