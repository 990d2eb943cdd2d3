"""Linear worst cases over a ball and what drift(t) leaves: two balls at once, and half-spaces.

The constraints are linear in (delta, u), u the change of the code. With u = c y, a cell of one more dimension a feature
has delta and y in one ball: its worst case is that over an ellipsoid, for one weight of the two balls. Every weight
gives multipliers whose bound is proved (theorem: drift, features), and the least over the weights is exact.
"""

from __future__ import annotations

import numpy as np

from sae_verify.geometry.drift import Drift
from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell, Row
from sae_verify.geometry.worst_case import LinearOptimum, worst_case

MET = 1e-9
"""Relative: how nearly what is proved and what is reached meet when the search for the weight stops."""
STEPS = 24
EXTREME = 16.0
"""Of the logarithm of the odds of the two balls: beyond it one of them plays no part."""
NEWTON = 30
PRECISION = 1e-7
"""Relative: how near the level that search stops. A search tolerance, no part of a proof."""
LEAST_STEP = 1e-9
NOTHING = 1e-300
"""Keeps quotients of the search finite; nothing that is claimed depends on it."""


def lifted(drift: Drift, c: float) -> HeldCell:
    """The cell of (delta, y), (d + n), with u = c y."""
    n, d = drift.normals.shape
    whole = np.concatenate([drift.normals, -np.diag(c * drift.share / drift.gain)], axis=1)
    rows = tuple(Row(drift.point, "equal", int(f)) for f in drift.features[drift.fixed])
    half = HalfSpaces(drift.point, 1.0, whole[~drift.fixed], drift.room[~drift.fixed], drift.others)
    return HeldCell(d + n, whole[drift.fixed], rows, (half,))


def drift_worst_case(drift: Drift, g: Array, radius: float) -> LinearOptimum:
    """max g . delta over drift and ball; `equal` beside the features that are fixed, `upper` by feature.

    The weight of the two balls is found by a search that makes both reached at once.
    """
    radius = max(radius, NOTHING)
    drift = drift.reached(radius)
    d, none = len(g), np.zeros(len(drift.others))
    straight = g * (radius / max(float(np.linalg.norm(g)), NOTHING))
    delta, proven = np.zeros(d), (radius * float(np.linalg.norm(g)), np.zeros(int(drift.fixed.sum())), none)
    if drift.least_move(straight) <= drift.most:
        return _optimum(drift, g, straight, proven)
    aim = np.concatenate([g, np.zeros(len(drift.features))])
    low, high, odds = -EXTREME, EXTREME, 0.0
    before: tuple[float, float] | None = None
    for _ in range(STEPS):
        # (1 - w) ||delta||^2 / r^2 + w ||u||^2 / T^2 <= 1 with w / (1 - w) = e^odds, and u = c y.
        c = drift.most / radius * float(np.exp(-0.5 * odds))
        found = worst_case(lifted(drift, c), aim, radius * float(np.sqrt(1.0 + np.exp(odds))))
        upper = none.copy()
        upper[found.upper[0][0]] = found.upper[0][1]
        lengths = (
            float(np.linalg.norm(found.delta[:d])) / radius,
            c * float(np.linalg.norm(found.delta[d:])) / drift.most,
        )
        # What is too long for one of the balls is shortened: zero is allowed, and the lifted set is convex.
        here = found.delta[:d] / max(1.0, *lengths)
        delta = here if g @ here > g @ delta else delta
        dual = drift.dual(g, radius, found.equal, upper)
        proven = (dual, found.equal, upper) if dual < proven[0] else proven
        if proven[0] <= float(g @ delta) * (1.0 + MET):
            break
        gap = float(np.log(max(lengths[1], NOTHING)) - np.log(max(lengths[0], NOTHING)))
        low, high = (odds, high) if gap > 0 else (low, odds)
        step = 2.0 * gap  # the slope where one feature or none is held
        if before is not None and before[1] != gap:
            step = -gap * (odds - before[0]) / (gap - before[1])
        before = odds, gap
        odds = odds + step if low < odds + step < high else 0.5 * (low + high)
        if high - low <= MET:
            break
    return _optimum(drift, g, delta, proven)


def _optimum(drift: Drift, g: Array, delta: Array, proven: tuple[float, Array, Array]) -> LinearOptimum:
    dual, equal, upper = proven
    used = np.flatnonzero(upper > 0)
    return LinearOptimum(delta, float(g @ delta), dual, equal, ((drift.others[used], upper[used]),))


def least_drift_norm(drift: Drift, g: Array, level: float, largest: float) -> Array | None:
    """argmin ||delta|| with g . delta >= level and no more drift than there may be, as `least_norm`.

    The largest value over the ball of radius r is concave in r, with slope ||g - W (mu, nu)||: Newton's method.
    """
    if level <= 0:
        return np.zeros_like(g)
    size = float(np.linalg.norm(g))
    radius = level / size if size > 0 else np.inf
    for _ in range(NEWTON):
        if not radius <= largest:
            return None
        found = drift_worst_case(drift, g, radius)
        if found.value >= level * (1.0 - PRECISION):
            return found.delta
        ((features, weights),) = found.upper
        at = np.searchsorted(drift.features, features, sorter=np.argsort(drift.features))
        held = found.equal @ drift.normals[drift.fixed]
        slope = float(np.linalg.norm(g - held - weights @ drift.normals[np.argsort(drift.features)[at]]))
        if not slope > 0:
            return None
        radius += max((level - found.value) / slope, LEAST_STEP * radius)
    return None
