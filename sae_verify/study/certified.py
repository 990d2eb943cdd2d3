"""Certified radii beside attacked ones, and what one certificate says about stricter threats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_verify.errors import SoundnessError
from sae_verify.pipeline import certify
from sae_verify.problem import Problem

ROUNDING = 1e-9
"""Relative: how far below a certified radius the float64 length of an attack may lie, by the rounding of both."""
INHERITS: dict[str, tuple[str, ...]] = {
    "free": ("free",),
    "preactivations": ("preactivations", "free"),
    "defended": ("defended", "free"),
    "code": ("code", "free"),
    "drift": ("drift", "free"),
}
"""Whose certificates hold for a threat: its own, and that of `free`, which admits everything the others do."""


@dataclass(frozen=True)
class Radius:
    """A certified radius.

    Attributes:
        value: absolute; inf when every radius is certified; None when there is none.
        by: the threat whose certificate it is.
        trivial: that certificate leaves only delta = 0.
        why_not: why there is no radius; empty when there is one.

    """

    value: float | None
    by: str
    trivial: bool
    why_not: str


def certified_radius(problem: Problem, out: Path | None, effort: int) -> Radius:
    """Have one prompt's claim proved at the largest radius that the search finds; the checker has accepted it.

    Args:
        problem: one prompt; its threat's radius is where the bound is sought first.
        out: directory for the certificate; None keeps none.
        effort: passes through the blocks.

    """
    (result,) = certify(problem, out=out, effort=effort)
    value = result.radius.certified
    reason = ""
    if not value:
        reason = getattr(result.verdict, "reason", "no bound met the claim at any radius that was tried")
    return Radius(value or None, problem.threat.held, result.trivial, reason)


def inherited(threat: str, certificates: Mapping[str, Radius], skipped: str) -> Radius:
    """The largest certified radius that holds for a threat; with the reason when there is none."""
    own = [certificates[name] for name in INHERITS[threat] if name in certificates]
    proved = [one for one in own if one.value is not None]
    if proved:
        return max(proved, key=lambda one: one.value or 0.0)
    return Radius(None, "", trivial=False, why_not=own[0].why_not if own else skipped)


def check_sandwich(threat: str, certified: Radius, attacked: float | None) -> None:
    """An admissible recovery within a certified radius is a defect, never a result.

    Raises:
        SoundnessError: there is one.

    """
    if certified.value is not None and attacked is not None and attacked < certified.value * (1 - ROUNDING):
        raise SoundnessError(
            f"threat {threat}: a recovery of length {attacked!r} lies within the radius {certified.value!r} that "
            f"{certified.by} certifies",
            rule="a certified radius admits no recovery",
            remedy="report this with the study's settings",
        )


def at_radius(problem: Problem, held: str, radius: float, title: str, drift: float | None = None) -> Problem:
    """The problem of one prompt under a restriction, at a radius relative to ||h||; `drift` where that is the one."""
    threat = dataclasses.replace(
        problem.threat,
        held=held,  # type: ignore[arg-type]
        at=None,
        features=None,
        radius=radius,
        relative_to="h",
        drift=drift,
    )
    return dataclasses.replace(problem, threat=threat, title=title)
