"""Where the code may drift: the ellipsoid around what is admissible that a bound through blocks starts from.

Theorem: drift (features), (d). The weight is the one that is best for the readout's linearisation at the radius where
that breaks the claim; the checker makes the ellipsoid from it anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from sae_verify.bounds.through_blocks import linear_radius, slope_at
from sae_verify.checker.setting import Setting
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Instance

LARGEST = 1e6
"""Of weight times ||G||^2: beyond it rounding would decide, and next to nothing is gained."""
LEAST = 1e-12
"""Times the largest: the least weight that is tried. Less is as good as none."""
FARTHEST = 100.0
"""Times the radius where the linearisation breaks the claim without any restriction: the longest that is looked at."""
HALVINGS = 20
GAIN = 1e-6
"""Relative: an ellipsoid that shortens the linear worst case by less is not used; the plain ball is sound as it is."""


def confined(setting: Setting, instance: Instance, ceiling: float) -> Relaxation:
    """The relaxation of a prompt whose code may drift, or the plain one where nothing is fixed."""
    relaxation, drift = setting.relaxation, instance.outer.drift
    if drift is None or not drift.fixed.any():
        return relaxation
    functional = setting.functional(instance.members(1)[0])
    value, gradient = slope_at(relaxation, functional, instance.tau)
    rows = drift.normals[drift.fixed] * drift.gain[drift.fixed, None]
    reach = _reach(rows, drift.most, gradient)
    low = linear_radius(relaxation, functional, instance.tau)
    if low is None:  # the claim is broken at once
        radius = instance.radius
    else:  # where the linearisation breaks it, with the drift that there may be
        radius = min(ceiling, FARTHEST * low)
        for _ in range(HALVINGS if reach(radius)[0] > -value else 0):
            middle = 0.5 * (low + radius)
            low, radius = (low, middle) if reach(middle)[0] > -value else (middle, radius)
    weight = reach(radius)[1]
    return setting.confined(weight) if weight > 0 else relaxation


def _reach(rows: Array, most: float, gradient: Array) -> Callable[[float], tuple[float, float]]:
    """Of a radius: the worst case of the linearisation over ball and drift, and the weight whose ellipsoid gives it."""
    _, sigma, right = np.linalg.svd(rows, full_matrices=False)
    along = right @ gradient
    rest = max(float(gradient @ gradient - along @ along), 0.0)
    top = LARGEST / float(sigma[0]) ** 2

    def at(radius: float) -> tuple[float, float]:
        def worst(log_weight: float) -> float:
            weight = np.exp(log_weight)
            size = rest + float((along**2 / (1.0 + weight * sigma**2)).sum())
            return float(np.sqrt((radius**2 + weight * most**2) * size))

        found = minimize_scalar(worst, bounds=(np.log(LEAST * top), np.log(top)), method="bounded")
        weight = float(np.exp(found.x))
        plain = radius * float(np.linalg.norm(gradient))
        return (worst(found.x), weight) if worst(found.x) < plain * (1 - GAIN) else (plain, 0.0)

    return at
