"""What the error term can do about a clamp, to first order: undo it, restore a linear readout, counter a share of it.

Theorem: decoder-blindness (d). A clamp takes x to h; `effect` is h - x. A perturbation delta is added to h and has to
stay in a held cell. The readout is linear: g . delta, with g the gradient of whatever is read at h. Search in floats;
a bound of `restore` is certified by the linear worst case at its radius (theorem: linear-dual), which
`certificates.linear` writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.least_norm import least_norm
from sae_verify.geometry.worst_case import LinearOptimum, project, worst_case
from sae_verify.problem import Clamp
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import clamped

ADMISSIBLE = 1e-10
"""Relative to a row's and the perturbation's length: by how much rounding may violate a constraint of the cell."""
ROUNDED = 2.0**-48
"""Relative to ||g|| ||effect||: an effect along g below this is rounding, and no share of it is given."""
CANCELS = 1e-12
"""Relative: what is left of g beside the multipliers is nothing below this, so that no radius at all is enough."""


@dataclass(frozen=True, eq=False)
class ClampEffect:
    """A clamp at one residual, in float64.

    Attributes:
        x: (d,) residual. h: (d,) after the clamp.
        effect: (d,) h - x.
        norm_h: ||h||. norm_e: ||x - D(E(x))||. norm: ||h - x||.
    """

    x: Array
    h: Array
    effect: Array
    norm_h: float
    norm_e: float
    norm: float


@dataclass(frozen=True, eq=False)
class Undo:
    """Cancelling a clamp.

    Attributes:
        delta: (d,) -effect, the one perturbation that cancels it.
        norm: ||delta||.
        admissible: whether it lies in the cell and the ball, up to rounding.
        nearest: (d,) the admissible perturbation nearest to it.
        remaining: (d,) effect + nearest: what cannot be undone.
        remaining_share: ||remaining|| / ||effect||, from 0 to 1; 0 for no effect.
    """

    delta: Array
    norm: float
    admissible: bool
    nearest: Array
    remaining: Array
    remaining_share: float


@dataclass(frozen=True, eq=False)
class Restore:
    """Bringing a linear readout up to a level.

    Attributes:
        level: that g . delta has to reach.
        delta: (d,) the shortest such perturbation; None when none up to `largest` was found.
        norm: ||delta||, None likewise. in_h, in_e: the same in units of ||h|| and ||e||.
        lower: no shorter admissible perturbation reaches the level, by weak duality, up to rounding; inf where none at
            all does.
        largest: radius at which the search gives up.
        optimum: the linear worst case whose multipliers give `lower`; None for a level that zero reaches. With a radius
            just below `lower` it is the evidence that `certificates.linear` writes.
    """

    level: float
    delta: Array | None
    norm: float | None
    in_h: float | None
    in_e: float | None
    lower: float
    largest: float
    optimum: LinearOptimum | None


@dataclass(frozen=True)
class Counterable:
    """How much of a clamp's effect lies where the error term may move: P projects onto the equalities' null space.

    Half-spaces are not counted: it is the share that no held equality protects.

    Attributes:
        vector: ||P effect|| / ||effect||, from 0 to 1; 0 for no effect.
        along: (P g . effect) / (g . effect); may be negative or above 1, as P g need not point as g does. None where
            g . effect is nothing but rounding.
        readout: g . effect.
    """

    vector: float
    along: float | None
    readout: float


def clamp_effect(sae: SAE, clamp: Clamp, x: Array) -> ClampEffect:
    """What a clamp does at one residual; its positions are not looked at.

    Args:
        sae: any dtype; widened to float64.
        clamp: kind, features and values.
        x: (d,) residual.

    Raises:
        ShapeError: x is not d finite numbers.
    """
    x = _vector(x, sae.d_in, "x")
    exact = sae.to(torch.float64)
    point = torch.from_numpy(x)
    h, error = clamped(exact, clamp, point).numpy(), exact.error(point)
    effect = h - x
    return ClampEffect(x, h, effect, _norm(h), float(error.norm()), _norm(effect))


def undo(cell: HeldCell, effect: Array, radius: float = np.inf) -> Undo:
    """Cancel a clamp's effect, or as much of it as the cell and the ball allow.

    Args:
        cell: that the perturbation has to stay in.
        effect: (d,) h - x.
        radius: that it may have; not negative, may be inf.

    Raises:
        ShapeError: the effect is not d finite numbers. InputError: the radius is negative or NaN.
    """
    effect = _vector(effect, cell.width, "the effect")
    if not radius >= 0:
        raise InputError(f"radius is {radius!r}", rule="it must not be negative")
    delta, length = -effect, _norm(effect)
    if length == 0.0:
        return Undo(delta, 0.0, True, np.zeros_like(delta), np.zeros_like(delta), 0.0)
    admissible = _admissible(cell, delta) and length <= radius * (1.0 + ADMISSIBLE)
    # Zero is admissible, so the nearest point is no longer than what it is near to.
    nearest = delta if admissible else project(cell, delta, min(radius, length))
    remaining = effect + nearest
    return Undo(delta, length, admissible, nearest, remaining, min(_norm(remaining) / length, 1.0))


def restore(
    cell: HeldCell, g: Array, level: float, largest: float, *, norm_h: float = np.nan, norm_e: float = np.nan
) -> Restore:
    """The shortest admissible perturbation with g . delta >= level.

    Args:
        cell: the held cell.
        g: (d,) gradient of the readout.
        level: to be reached, for example g . (x - h) for what the clamp took away.
        largest: radius beyond which the search gives up; positive and finite.
        norm_h: unit of `in_h`; NaN gives NaN there.
        norm_e: unit of `in_e`.

    Raises:
        ShapeError: g is not d finite numbers. InputError: the level or the largest radius is not finite.
    """
    g = _vector(g, cell.width, "g")
    if not (np.isfinite(level) and np.isfinite(largest) and largest > 0):
        raise InputError(f"level {level!r}, largest radius {largest!r}", rule="both are finite, the radius positive")
    if level <= 0:
        return Restore(level, np.zeros_like(g), 0.0, 0.0, 0.0, 0.0, largest, None)
    delta = least_norm(cell, g, level, largest)
    if delta is None:
        optimum = worst_case(cell, g, largest)
        return Restore(level, None, None, None, None, _reached(cell, g, level, optimum), largest, optimum)
    norm = _norm(delta)
    optimum = worst_case(cell, g, norm)
    lower = min(_reached(cell, g, level, optimum), norm)
    return Restore(level, delta, norm, _in(norm, norm_h), _in(norm, norm_e), lower, largest, optimum)


def counterable(cell: HeldCell, effect: Array, g: Array) -> Counterable:
    """How much of a clamp's effect, and of its effect on a linear readout, no held equality protects.

    Args:
        cell: its equalities alone count.
        effect: (d,) h - x.
        g: (d,) gradient of the readout.

    Raises:
        ShapeError: the effect or g is not d finite numbers.
    """
    effect, g = _vector(effect, cell.width, "the effect"), _vector(g, cell.width, "g")
    length, readout = _norm(effect), float(g @ effect)
    free = cell.free_part(effect)
    along = float(g @ free) / readout if abs(readout) > ROUNDED * _norm(g) * length else None
    return Counterable(min(_norm(free) / length, 1.0) if length else 0.0, along, readout)


def _reached(cell: HeldCell, g: Array, level: float, optimum: LinearOptimum) -> float:
    """The least radius at which the level can be reached, by multipliers that were found at any other.

    g . delta <= nu . s + ||delta|| ||g - A^T mu - B^T nu||, whatever the length of delta.
    """
    cost, rest = 0.0, g - optimum.equal @ cell.equal
    for half, (rows, values) in zip(cell.half_spaces, optimum.upper, strict=True):  # rows of the cell's own family
        cost += float(values @ half.slack[rows])
        rest = rest - half.sign * (values @ half.normals[rows])
    slope = _norm(rest)
    if level <= cost:
        return 0.0
    return (level - cost) / slope if slope > CANCELS * _norm(g) else np.inf


def _admissible(cell: HeldCell, delta: Array) -> bool:
    size = _norm(delta)
    if (np.abs(cell.equal @ delta) > ADMISSIBLE * size * np.linalg.norm(cell.equal, axis=1)).any():
        return False
    for half in cell.half_spaces:
        excess = half.sign * (half.normals @ delta) - half.slack
        near = np.flatnonzero(excess > 0)
        if (excess[near] > ADMISSIBLE * size * np.linalg.norm(half.normals[near], axis=1)).any():
            return False
    return True


def _vector(v: Array, width: int, what: str) -> Array:
    v = np.asarray(v, dtype=np.float64)
    if v.shape != (width,) or not np.isfinite(v).all():
        raise ShapeError(f"{what} has shape {v.shape}", rule=f"it is {width} finite numbers")
    return v


def _norm(v: Array) -> float:
    return float(np.linalg.norm(v))


def _in(length: float, unit: float) -> float:
    return length / unit if unit > 0 else np.nan
