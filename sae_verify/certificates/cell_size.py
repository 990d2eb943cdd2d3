"""The size of a held cell as steps of a statement file; the claims are what the checker itself computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_verify.certificates.multipliers import Weighted, sparse_multipliers
from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.cell import Cell
from sae_verify.checker.multipliers import read_multipliers
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.cell_bounded import KIND, proven_size
from sae_verify.checker.statements.cell_size import outside, proven_radius
from sae_verify.checker.statements.cell_unbounded import proven_ray
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.cell_recession import Recession
from sae_verify.geometry.cell_size import nearest_thresholds
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.problem import LARGEST, ErrorBall

BEYOND = (2.0**-40, 2.0**-30, 2.0**-20, 2.0**-10)
"""Relative: how far past the nearest threshold the point outside is put, so that rounding does not leave it in doubt.
Costs tightness of the upper side; the least that the checker accepts is taken."""


def inner_radius_step(
    subject: Subject, point: int, threat: ErrorBall, cell: HeldCell | None = None, centre: Array | None = None
) -> dict[str, Any]:
    """The `cell-inner-radius` step with the largest radius that the checker proves.

    Args:
        subject: the weights and residuals of the file, as the checker decodes them.
        point: index of the residual at which the threat holds features.
        threat: what is held; its radius and its point play no part.
        cell: the held cell, for an upper side (a point just past the nearest threshold); None for none.
        centre: (d,) of a ball that is not around zero, as `inscribed_ball` gives it; it has no upper side.

    Returns:
        The step. It has no upper side when nothing binds, or where the checker cannot place the point outside (for
        example TopK with some features held). A radius without end is given as the largest that is accepted anywhere.

    Raises:
        InputError: the checker knows no ball around the centre.
    """
    around = np.zeros(subject.d) if centre is None else centre
    asked = _asked(subject, point, threat)
    with np.errstate(all="ignore"):
        try:
            radius = min(proven_radius(asked, around), LARGEST)
        except Rejected as reason:
            raise InputError(f"the checker proves no ball around the centre: {reason}") from None
        beyond = None if cell is None or around.any() else _beyond(asked, subject.points[point], cell)
    return {
        **_head("cell-inner-radius", point, threat),
        "centre": around.tolist() if around.any() else None,
        "radius": radius,
        "beyond": beyond,
    }


def _beyond(asked: Cell, x: Array, cell: HeldCell) -> dict[str, Any] | None:
    nearest = nearest_thresholds(cell, 1)
    if not len(nearest):
        return None
    assert nearest.direction is not None
    feature, distance = int(nearest.feature[0]), float(nearest.distance[0])
    for margin in BEYOND:
        delta = nearest.direction[0] * (distance + margin * max(distance, BEYOND[0] * float(np.linalg.norm(x))))
        try:
            upper = outside(asked, feature, delta)
        except Rejected:
            continue
        return {"feature": feature, "delta": delta.tolist(), "upper": upper}
    return None


def bounded_step(subject: Subject, point: int, threat: ErrorBall, cell: HeldCell, found: Weighted) -> dict[str, Any]:
    """The `cell-bounded` step of the multipliers that `recession` found for a bounded cell; arguments as above.

    Raises:
        InputError: the checker does not accept them: weights or cell are of another question, or rounding decides.
        UnsupportedError: the cell holds features at x and at h at once, and a statement file speaks of one point.
    """
    by_point = sparse_multipliers(found, cell)
    if len(by_point) > 1:
        raise UnsupportedError("the cell is held at x and at h", rule="a statement speaks of one residual")
    multipliers = dict(zip(["x"], by_point.values(), strict=False))  # the file has one point a step
    with np.errstate(all="ignore"):
        try:
            radius = proven_size(_asked(subject, point, threat), read_multipliers(multipliers, "multipliers"))
        except Rejected as reason:
            raise InputError(f"the checker rejects the multipliers: {reason}") from None
    if not radius <= LARGEST:
        raise InputError(f"the checker proves a size of {radius:g}", rule=f"a claim is at most {LARGEST:g}")
    return {**_head("cell-bounded", point, threat), "radius": radius, "multipliers": multipliers}


def unbounded_step(subject: Subject, point: int, threat: ErrorBall, found: Recession) -> dict[str, Any]:
    """The `cell-unbounded` step of the direction that `recession` found; arguments as above.

    Raises:
        InputError: nothing was found, or the checker does not accept it (for example because the rows that must not
            move are not provably independent).
    """
    if found.direction is None:
        raise InputError(f"the cell is {found.verdict}", rule="a direction is there for unbounded cells only")
    with np.errstate(all="ignore"):
        try:
            proven_ray(_asked(subject, point, threat), found.direction, found.still)
        except Rejected as reason:
            raise InputError(f"the checker rejects the direction: {reason}") from None
    return {
        **_head("cell-unbounded", point, threat),
        "direction": found.direction.tolist(),
        "still": found.still.tolist(),
    }


def _asked(subject: Subject, point: int, threat: ErrorBall) -> Cell:
    if threat.features is None and threat.held in ("preactivations", "defended"):
        raise InputError(f"held={threat.held!r} without features", rule="a statement names the features that it holds")
    return Cell(subject.sae, {"x": Ball.exact(subject.points[point])}, threat.held, threat.features, ())


def _head(kind: str, point: int, threat: ErrorBall) -> dict[str, Any]:
    features = None if threat.features is None else list(threat.features)
    return {"kind": kind, "theorem": KIND.theorem, "point": point, "held": threat.held, "features": features}
