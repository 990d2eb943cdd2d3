"""Models of the final residual over regions, and the last few over whole balls: searches come back to those.

A model does not depend on the claim, so one pass serves every level, every member of a readout's family, the search
for a proof and the diagnosis.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from sae_verify.checker.tail.readout import Affine, Functional, affine
from sae_verify.checker.tail.region import Frame, Region
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.checker.tail.taylor import Taylor

KEPT = 2
"""The latest models of each relaxation that are kept: they are large. Others are found while somebody holds them."""


@dataclass(frozen=True)
class Over:
    """The model of the final residual over one region."""

    region: Region
    frame: Frame
    resid: Taylor

    def claim(self, functional: Functional, tau: float) -> Affine:
        """An affine bound of (readout - tau) rho over the region."""
        with np.errstate(all="ignore"):
            return affine(self.resid, functional, tau)


@dataclass(eq=False)
class _Balls:
    """Models by radius: those that are alive, and the latest."""

    alive: WeakValueDictionary[float, Over] = field(default_factory=WeakValueDictionary)
    latest: deque[Over] = field(default_factory=lambda: deque(maxlen=KEPT))


_balls: WeakKeyDictionary[Relaxation, _Balls] = WeakKeyDictionary()
_lowered: WeakKeyDictionary[Relaxation, dict[int, Relaxation]] = WeakKeyDictionary()


def over_region(relaxation: Relaxation, region: Region) -> Over | None:
    """One pass over a region; None where the region is empty."""
    frame = region.frame()
    if frame is None:
        return None
    with np.errstate(all="ignore"):
        return Over(region, frame, relaxation.resid(region, frame))


def over_ball(relaxation: Relaxation, radius: float) -> Over:
    """One pass over the whole ball, or what is kept of it."""
    kept = _balls.setdefault(relaxation, _Balls())
    found = kept.alive.get(radius) or over_region(relaxation, relaxation.ball(radius))
    assert found is not None  # a ball is not empty
    kept.alive[radius] = found
    if not any(found is other for other in kept.latest):
        kept.latest.append(found)
    return found


def kept_radii(relaxation: Relaxation) -> tuple[float, ...]:
    """The radii for which `over_ball` costs no pass, the largest first."""
    kept = _balls.get(relaxation)
    return () if kept is None else tuple(sorted(kept.alive, reverse=True))


def is_kept(relaxation: Relaxation, radius: float) -> bool:
    """Whether `over_ball` costs no pass."""
    return radius in kept_radii(relaxation)


def of_degree(relaxation: Relaxation, degree: int) -> Relaxation:
    """The same with models of another degree; one object for each, so that what is kept of it is found again."""
    kept = _lowered.setdefault(relaxation, {})
    if degree not in kept:
        kept[degree] = replace(relaxation, degree=degree)
    return kept[degree]
