"""Linear worst cases as steps of a statement file; the claims are what the checker itself computes, rounded outward."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sae_verify.certificates.multipliers import sparse_multipliers
from sae_verify.checker import Rejected
from sae_verify.checker.multipliers import read_multipliers
from sae_verify.checker.reader import Reader
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.linear import KIND, read_question
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.inside import inside
from sae_verify.geometry.worst_case import LinearOptimum
from sae_verify.problem import ErrorBall

INWARD = {"l2": 2.0**-40, "ellipsoid": 2.0**-30, "linf": 2.0**-26}
"""Relative: how far a point is pulled towards zero, so that an exactly admissible one near it lies within the ball.

It covers the checker's rounding (times ||L^-1|| for an ellipsoid) and the linear program's tolerance."""

ROOM = 2.0**-42
"""Relative: how far inside the half-spaces the point is put, so that the checker's rounding finds it there."""


@dataclass(frozen=True)
class Ball:
    """The set that bounds delta: norm l2, linf or ellipsoid, its radius, and `write_factor`'s answer for the latter."""

    norm: Literal["l2", "linf", "ellipsoid"]
    radius: float
    factor: dict[str, str] | None = None


def write_factor(factor: Array, path: Path) -> dict[str, str]:
    """Store an ellipsoid's factor beside a statement file; what a `Ball` takes."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(factor, dtype=np.float64), allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return {"path": path.name, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}


def linear_step(
    subject: Subject, point: int, threat: ErrorBall, g: Array, ball: Ball, cell: HeldCell, found: LinearOptimum
) -> dict[str, Any]:
    """The `linear-worst-case` step of what a solver found.

    Args:
        subject: the weights and residuals of the file, as the checker decodes them.
        point: index of the residual at which the threat holds features.
        threat: what is held; its radius and its point play no part.
        g: (d,) direction.
        ball: bounds delta.
        cell: the held cell that was solved.
        found: its optimum.

    Returns:
        The step. It has no lower side when the checker finds no exactly admissible point near the solver's (for example
        for TopK ties).

    Raises:
        InputError: the checker does not accept the multipliers: weights, cell or optimum are of another question.
    """
    step: dict[str, Any] = {
        "kind": "linear-worst-case",
        "theorem": KIND.theorem,
        "point": point,
        "held": threat.held,
        "features": None if threat.features is None else list(threat.features),
        "ball": {"norm": ball.norm, "radius": ball.radius, "factor": ball.factor},
        "direction": g.tolist(),
        "upper": None,
        "multipliers": sparse_multipliers(found, cell),
        "lower": None,
        "delta": None,
    }
    reader = Reader(step, "step", ("kind", "theorem", *KIND.keys))
    with np.errstate(all="ignore"):
        try:
            question = read_question(subject, reader)
            step["upper"] = question.upper(read_multipliers(step["multipliers"], "multipliers"))
        except Rejected as reason:
            raise InputError(f"the checker rejects the multipliers: {reason}") from None
        shrink = 1.0 - INWARD[ball.norm]
        delta = inside(cell, found.delta * shrink, ball.radius * shrink if ball.norm == "l2" else np.inf, ROOM)
        if question.region.factor is not None:
            inner = np.linalg.solve(question.region.factor, delta)  # given as y with delta = L y
            delta = inner.astype(np.float64)
        try:
            step["lower"] = question.lower(delta)
        except Rejected:
            return step
    return {**step, "delta": delta.tolist()}
