"""The questions of `cone`, `sparse_code` and `whole_cone` as a textbook states them, for an interior-point solver.

    minimise ||x - f @ W||   subject to   f >= 0,   f <= upper,   sum(f) <= total

and whatever convex constraints the caller adds. Slow, short, easy to believe: tests compare the solvers of this package
with it, and so can users. Its answers carry the interior-point tolerance, about 1e-8 of x, and prove nothing. Needs the
extra `reference`.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.held_cell import Array

if TYPE_CHECKING:
    import cvxpy

Extra = Callable[["cvxpy.Variable"], Sequence["cvxpy.Constraint"]]
"""From the variable f, (m,), to further convex constraints on it."""

TOLERANCES = (1e-11, 1e-8)
"""Asked of the solver in turn: feasibility and gap, relative."""
SUPPORTS = 20_000
"""Supports that are tried one by one before the question is refused."""


class Code(NamedTuple):
    """The optimum as the solver found it: ||x - f @ W|| and f, (m,)."""

    value: float
    f: Array


def reach_reference(
    rows: Array,
    x: Array,
    *,
    upper: float | Array | None = None,
    total: float | None = None,
    extra: Extra | None = None,
) -> Code:
    """The nearest f @ rows to x, for (m, d) rows; `upper` may hold inf. Cost: one cone program.

    Raises:
        UnsupportedError: cvxpy is not installed, or the solver found no optimum (e.g. extra constraints exclude all).
    """
    m = len(rows)
    bound = np.broadcast_to(np.inf if upper is None else np.asarray(upper, dtype=np.float64), m)
    size = float(np.linalg.norm(x)) or 1.0
    if not m:
        return Code(float(np.linalg.norm(x)), np.zeros(0))
    cp = _cvxpy()
    length = np.linalg.norm(rows, axis=1)
    scale = np.where(length > 0, size / np.where(length > 0, length, 1.0), 1.0)  # f = scale * unit
    unit = cp.Variable(m, nonneg=True)
    constraints: list[Any] = []
    finite = np.flatnonzero(np.isfinite(bound))
    if finite.size:
        constraints.append(unit[finite] <= bound[finite] / scale[finite])
    if total is not None:
        part = np.max(scale) if total == 0 else total
        constraints.append(cp.sum(cp.multiply(scale / part, unit)) <= total / part)
    if extra is not None:
        f = cp.Variable(m)
        constraints += [f == cp.multiply(scale, unit), *extra(f)]
    near = cp.norm(x / size - (rows * (scale / size)[:, None]).T @ unit)
    problem = cp.Problem(cp.Minimize(near), constraints)
    for tolerance in TOLERANCES:
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
    found = np.maximum(np.asarray(unit.value, dtype=np.float64), 0.0) * scale
    return Code(float(np.linalg.norm(x - found @ rows)), found)


def sparse_code_reference(
    rows: Array, x: Array, active: int, *, upper: float | Array | None = None, extra: Extra | None = None
) -> Code:
    """The same with at most `active` positive entries, by trying every support. `extra` sees the whole f.

    Raises:
        UnsupportedError: there are more than 20,000 supports; otherwise as `reach_reference`.
    """
    m = len(rows)
    active = min(active, m)
    if math.comb(m, active) > SUPPORTS:
        raise UnsupportedError(f"{math.comb(m, active)} supports", rule=f"at most {SUPPORTS} are tried one by one")
    bound = np.broadcast_to(np.inf if upper is None else np.asarray(upper, dtype=np.float64), m)
    best: Code | None = None
    for support in itertools.combinations(range(m), active):
        chosen = list(support)
        allowed = np.zeros(m)
        allowed[chosen] = bound[chosen]
        if extra is None:
            part = reach_reference(rows[chosen], x, upper=bound[chosen])
            found = Code(part.value, np.zeros(m))
            found.f[chosen] = part.f
        else:
            found = reach_reference(rows, x, upper=allowed, extra=extra)
        best = found if best is None or found.value < best.value else best
    assert best is not None  # the empty support is one
    return best


def whole_cone_reference(rows: Array) -> float:
    """The largest distance of a signed axis vector from the cone of (m, d) rows: 0 iff every vector is reached.

    Cost: 2 d cone programs. Errors as `reach_reference`.
    """
    axes = np.eye(rows.shape[1])
    return max(reach_reference(rows, sign * axis).value for axis in axes for sign in (1.0, -1.0))


def _cvxpy() -> Any:
    try:
        import cvxpy as cp
    except ImportError:
        raise UnsupportedError(
            "cvxpy is not installed", rule="the reference solver needs it", remedy="pip install 'sae-verify[reference]'"
        ) from None
    return cp
