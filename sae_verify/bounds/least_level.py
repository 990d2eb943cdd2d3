"""The least level that one pass proves: affine bounds of one model of the tail, at one level after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from scipy.optimize import brentq

from sae_verify.bounds.single_passes import NOTHING
from sae_verify.checker.tail.readout import Functional, affine
from sae_verify.checker.tail.taylor import Taylor

SECANTS = 8
"""Steps at most to the least level that is proved; a search by bisection follows where they do not end there."""
NEAR = 1e-7
"""Relative to the largest level: how near to the least level that is proved a search stops."""
ROUNDING = 1e-9
"""Relative amount by which a searched value is raised, so that its check does not fail on rounding. Upward only."""


def least(resid: Taylor, functional: Functional) -> float:
    """The least tau that one affine bound proves, to rounding; infinity if it is none below the cap."""
    size = float(np.linalg.norm(functional.weight.mid)) + abs(float(functional.constant.mid))
    low, high = -1.01 * size, 1.01 * size
    root = _crossing(resid, functional, NEAR * size)
    if root is None or not root < high:
        if not affine(resid, functional, high).top <= 0:
            return np.inf  # above the cap: there is nothing to say
        if np.isfinite(affine(resid, functional, low).top):
            root = cast(float, brentq(lambda tau: affine(resid, functional, tau).top, low, high, xtol=NEAR * size))
    if root is not None:
        for above in (2 * NEAR, 8 * NEAR):
            if affine(resid, functional, root + above * size).top <= 0:
                return float(root + (above + ROUNDING) * size)
    while high - low > NEAR * size:
        middle = 0.5 * (low + high)
        if affine(resid, functional, middle).top <= 0:
            high = middle
        else:
            low = middle
    return float(high + ROUNDING * size)


def likely(resid: Taylor, functionals: Sequence[Functional], at_most: int) -> list[int]:
    """Which of a family's members have the least levels, by what is known of the model but for its errors. A guess."""
    if len(functionals) <= at_most:
        return list(range(len(functionals)))
    smooth = replace(resid, errors=(), loose=np.zeros(resid.width))
    levels = [least(smooth, functional) for functional in functionals]
    return [int(i) for i in np.argsort(levels)[:at_most]]


def _crossing(resid: Taylor, functional: Functional, near: float) -> float | None:
    """Where the affine bound's top falls through zero, by secants: it falls nearly as a line does; or None."""
    c = resid.centre - resid.centre.mean() if functional.centred else resid.centre
    rho = float(np.sqrt(c @ c + functional.d_epsilon.mid))
    if not rho > 0:
        return None
    tau, slope = float(functional.weight.mid @ c) / rho + float(functional.constant.mid), -rho
    top = affine(resid, functional, tau).top
    for _ in range(SECANTS):
        step = -top / slope
        if not abs(step) < np.inf:
            return None
        before, tau = top, tau + step
        if abs(step) < near:
            return tau
        top = affine(resid, functional, tau).top
        slope = min((top - before) / step, -NOTHING)
    return None
