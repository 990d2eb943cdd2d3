"""The worst case of a linear function over the held cell of one residual and a ball, from both sides.

Theorem: linear-dual. The upper side touches the columns with multipliers alone; the lower side compares every
half-space with one exactly admissible point (theorem: witness-nearby).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..admissible import admissible_within
from ..arithmetic import Array, Ball, dot, norm
from ..cell import HELD, Cell
from ..errors import Rejected
from ..multipliers import Multipliers, read_multipliers
from ..reader import Reader
from .ball import Region, read_region
from .subject import Kind, Subject, need


@dataclass(frozen=True, eq=False)
class Question:
    """max direction . delta over the held cell of one residual and a ball."""

    cell: Cell
    region: Region
    direction: Ball

    def upper(self, multipliers: Multipliers) -> float:
        """The dual value, rounded up; theorem: linear-dual."""
        v, cost = self.cell.span(multipliers)
        return float((cost + self.region.dual(self.direction - v)).high)

    def lower(self, delta: Array) -> float:
        """What some exactly admissible point near delta reaches, rounded down; theorem: witness-nearby.

        Args:
            delta: (d,), or y with delta = L y for an ellipsoid.

        Raises:
            Rejected: delta leaves the cell or the ball, or no exactly admissible point is known near it.
        """
        ball = self.region.point(delta)
        slack = admissible_within(self.cell, ball) if delta.any() else 0.0
        need(self.region.holds(delta, slack), "the point is not proven to lie within the ball")
        return float((dot(self.direction, ball) - norm(self.direction) * Ball.exact(slack)).low)


def read_question(subject: Subject, step: Reader) -> Question:
    """The question of a step, from its keys point, held, features, ball and direction."""
    held = step.text("held", HELD)
    features = None if step.raw("features") is None else tuple(int(f) for f in subject.features(step))
    if features is None and held in ("preactivations", "defended"):
        raise step.fail("features", f"must name what held={held!r} holds")
    if features is not None and held in ("free", "code"):
        raise step.fail("features", f"must be null for held={held!r}")
    cell = Cell(subject.sae, {"x": subject.point(step)}, held, features, ())
    return Question(cell, read_region(subject, step), Ball.exact(subject.vector(step, "direction")))


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    question = read_question(subject, step)
    region, parts = question.region, []
    values: dict[str, Any] = {"upper": None, "lower": None, "radius": region.radius, "norm": region.norm}
    if (step.raw("upper") is None) != (step.raw("multipliers") is None):
        raise step.fail("multipliers", "must be given with an upper side, and only then")
    if step.raw("upper") is not None:
        values["upper"] = claimed = step.number("upper")
        proven = question.upper(read_multipliers(step.raw("multipliers"), "multipliers"))
        need(proven <= claimed, f"the dual value exceeds {claimed:.9g} by {proven - claimed:.3g}")
        parts.append(f"<= {claimed!r}")
    if (step.raw("lower") is None) != (step.raw("delta") is None):
        raise step.fail("delta", "must be given with a lower side, and only then")
    if step.raw("delta") is not None:
        values["lower"] = claimed = step.number("lower")
        proven = question.lower(subject.vector(step, "delta"))
        need(proven >= claimed, f"the point reaches {proven:.9g}, not {claimed:.9g}")
        parts.append(f">= {claimed!r}")
    if not parts:
        raise Rejected("a worst case needs an upper side, a lower side or both")
    held = f"held={question.cell.held}" + (f" ({len(question.cell.chosen)} features)" if question.cell.chosen else "")
    where = f"point {step.integer('point')}, {held}, {region.norm} radius {region.radius!r}"
    return f"largest first-order change at {where}: {' and '.join(parts)}", values


KIND = Kind(
    theorem="linear-dual",
    keys=("point", "held", "features", "ball", "direction", "upper", "multipliers", "lower", "delta"),
    prove=_prove,
)
