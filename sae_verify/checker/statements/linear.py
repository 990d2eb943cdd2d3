"""The worst case of a linear function over the held cell of one residual and a ball, from both sides.

Theorem: linear-dual. The upper side touches the columns with multipliers alone; the lower side compares every
half-space with one exactly admissible point (theorem: witness-nearby).
"""

from __future__ import annotations

from typing import Any

from ..admissible import admissible_within
from ..arithmetic import Array, Ball, dot, norm
from ..cell import HELD, Cell
from ..errors import Rejected
from ..multipliers import read_multipliers
from ..reader import Reader
from .ball import Region, read_region
from .subject import Kind, Subject, need


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    point, g = subject.point(step), Ball.exact(subject.vector(step, "direction"))
    held = step.text("held", HELD)
    features = None if step.raw("features") is None else tuple(int(f) for f in subject.features(step))
    if features is None and held in ("preactivations", "defended"):
        raise step.fail("features", f"must name what held={held!r} holds")
    cell = Cell(subject.sae, {"x": point}, held, features, ())
    region = read_region(subject, step)
    values: dict[str, Any] = {"upper": None, "lower": None, "radius": region.radius, "norm": region.norm}
    parts = []
    if step.raw("upper") is not None:
        v, cost = cell.span(read_multipliers(step.raw("multipliers"), "multipliers"))
        claimed = step.number("upper")
        total = cost + region.dual(g - v)
        need(total.high <= claimed, f"the dual value exceeds {claimed:.9g} by {float(total.high) - claimed:.3g}")
        values["upper"] = claimed
        parts.append(f"<= {claimed:.9g}")
    if step.raw("delta") is not None:
        delta = subject.vector(step, "delta")
        claimed = step.number("lower")
        values["lower"] = _lower(cell, region, g, delta, claimed)
        parts.append(f">= {claimed:.9g}")
    if not parts:
        raise Rejected("a worst case needs an upper side, a lower side or both")
    ball = f"the {region.norm} ball of radius {region.radius:.9g}"
    return f"max of a linear function with held={held} in {ball} is {' and '.join(parts)}", values


def _lower(cell: Cell, region: Region, g: Ball, delta: Array, claimed: float) -> float:
    """Some exactly admissible point near delta has g . delta at least as claimed."""
    ball = Ball.exact(delta)
    slack = admissible_within(cell, ball) if delta.any() else 0.0
    if not bool(region.holds(ball, slack)):
        raise Rejected("the point is not proven to lie within the ball")
    value = dot(g, ball) - norm(g) * Ball.exact(slack)
    if not bool(value.low >= claimed):
        raise Rejected(f"the point reaches {float(value.low):.9g}, not {claimed:.9g}")
    return claimed


KIND = Kind(
    theorem="linear-dual",
    keys=("point", "held", "features", "ball", "direction", "upper", "multipliers", "lower", "delta"),
    prove=_prove,
)
