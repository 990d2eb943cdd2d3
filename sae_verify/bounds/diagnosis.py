"""Why a bound through blocks is as loose as it is: what each kind of site loses, in units of the claim's margin."""

from __future__ import annotations

from dataclasses import dataclass

from sae_verify.bounds.over_ball import kept_radii, over_ball
from sae_verify.checker.tail.readout import Affine, Functional
from sae_verify.checker.tail.relaxation import Relaxation

HALVINGS = 6
SMALLEST = 2.0**-HALVINGS
"""Of the radius: the smallest part of it that is tried, in search of one at which losses can be told apart."""
TELLING = 10.0
"""Margins. Where more is lost, each error feeds the next, and their sizes say little about where they began."""
SHOWN = 3
"""Losses that are named."""
NEGLIGIBLE = 0.01
"""Of the margin: smaller losses are not named."""


@dataclass(frozen=True)
class Diagnosis:
    """One affine bound of the claim over a ball, taken apart; the claim holds there if linear + losses <= 1.

    Attributes:
        fraction: of the problem's radius, at which this was found.
        linear: what the linear part can do, in units of the margin: the distance of the claim at no perturbation.
        losses: (site, size) in the same units, largest first; the second order is one of them.
    """

    fraction: float
    linear: float
    losses: tuple[tuple[str, float], ...]

    @property
    def lost(self) -> float:
        """All losses together."""
        return sum(size for _, size in self.losses)

    def __str__(self) -> str:
        where = "at the radius" if self.fraction == 1 else f"at {self.fraction:.2g} of the radius"
        named = [f"{site} {size:.2g}" for site, size in self.losses[:SHOWN] if not size < NEGLIGIBLE]
        rest = ", ".join(named) or "nothing else any"
        return f"{where} the linear part takes {self.linear:.2g} of the margin, {rest}"

    def advice(self) -> str:
        """What would help, in words."""
        if self.fraction < 1:
            return "a smaller radius, or a later layer: beyond it the errors feed each other"
        if self.linear >= 1:
            return "a smaller radius: to first order the claim breaks within this one"
        return "more effort"


def diagnose(relaxation: Relaxation, readout: Functional, radius: float, tau: float) -> Diagnosis | None:
    """At the radius, or below it where less is lost, so that it can be said where; None if there is no margin.

    Smaller radii are those of passes that are kept, then halves.
    """
    known = [smaller for smaller in kept_radii(relaxation) if SMALLEST * radius <= smaller < radius]
    halves = [radius * 2.0**-i for i in range(1, HALVINGS + 1)]
    found = None
    for tried in (radius, *known, *halves):
        found = _apart(over_ball(relaxation, tried).claim(readout, tau), tried / radius)
        if found is None or found.lost <= TELLING:
            break
    return found


def _apart(bound: Affine, fraction: float) -> Diagnosis | None:
    margin = -bound.value
    if not margin > 0:
        return None
    sizes = {"second order": bound.curve, **bound.errors}
    losses = sorted(((site, size / margin) for site, size in sizes.items()), key=lambda loss: -loss[1])
    return Diagnosis(fraction, bound.domain.row(bound.gradient) / margin, tuple(losses))
