"""Models of the final residual over regions, and the last few over whole balls: searches come back to those.

A model does not depend on the claim, so one pass serves every level, every member of a readout's family, the search
for a proof and the diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from sae_verify.checker.tail.readout import Affine, Functional, affine
from sae_verify.checker.tail.region import Frame, Region
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.checker.tail.taylor import Taylor

KEPT = 10
"""Models of each relaxation that are kept: of the centre, of the problem's radius, and of those tried for the largest
one by single passes."""


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


_balls: WeakKeyDictionary[Relaxation, dict[float, Over]] = WeakKeyDictionary()
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
    kept = _balls.setdefault(relaxation, {})
    found = kept.pop(radius, None) or over_region(relaxation, relaxation.ball(radius))
    assert found is not None  # a ball is not empty
    kept[radius] = found  # now the latest
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
    return found


def kept_radii(relaxation: Relaxation) -> tuple[float, ...]:
    """The radii for which `over_ball` costs no pass, the largest first."""
    return tuple(sorted(_balls.get(relaxation, {}), reverse=True))


def is_kept(relaxation: Relaxation, radius: float) -> bool:
    """Whether `over_ball` costs no pass."""
    return radius in _balls.get(relaxation, {})


def of_degree(relaxation: Relaxation, degree: int) -> Relaxation:
    """The same with models of another degree; one object for each, so that what is kept of it is found again."""
    kept = _lowered.setdefault(relaxation, {})
    if degree not in kept:
        kept[degree] = replace(relaxation, degree=degree)
    return kept[degree]
