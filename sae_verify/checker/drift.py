"""The threat drift(t): the code of some features S may move, but by no more than the share t of its length.

||E_S(y + delta) - E_S(y)|| <= T with T = t ||E_S(y)||, codes after the activation. Theorem: drift (features).
Nothing derived is read from a certificate: T and which features cannot turn off are recomputed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .arithmetic import Array, Ball, clip_low, dot, exp, gamma, norm
from .errors import Rejected
from .multipliers import Sparse
from .sae import Sae, State, decoder_norms, state
from .tail.sizes import grow, length

if TYPE_CHECKING:
    from .cell import Cell

LARGEST_SLIP = 1e-6
"""Relative: what rounding may add to a perturbation's part outside the ellipsoid, and to the ellipsoid itself."""


def limit(cell: Cell, point: str) -> Ball:
    """T = t ||E_S(y)||; exactly zero where nothing may move."""
    now = cell.state_of(point, np.array(cell.chosen, dtype=np.intp))
    if cell.drift == 0.0 or now.off.all():
        return Ball.exact(0.0)  # rounding a product up would make it positive
    return clip_low(Ball.exact(cell.drift) * norm(now.value), 0.0)


def stays_on(now: State, most: Ball) -> np.ndarray:
    """Which features cannot turn off while the code moves by at most T: those on with a value above it, (n,)."""
    return now.on & (now.value.low > most.high)


def gain(sae: Sae, features: np.ndarray) -> Ball:
    """By how much the value of a feature that is on moves for a unit of w_j . delta, (n,)."""
    scale = Ball.exact(np.full(features.shape, sae.input_scale))
    if sae.architecture == "gated":
        return exp(sae.parameters["r_mag"][features]) * scale
    if sae.architecture == "topk" and sae.parameters["rescale"]:
        return decoder_norms(sae, features) * scale
    return scale


def price(cell: Cell, point: str, equal: Sparse, upper: Sparse) -> Ball:
    """At least sum mu_i w_i . delta + sum nu_j w_j . delta for every admissible delta; `nu` is not negative.

    Theorem: drift (features). With u the change of the code, w_i . delta = u_i / gain_i for a feature that stays on and
    w_j . delta <= room_j + share_j max(u_j, 0) / gain_j for any other: nu . room + T ||(mu / gain, share nu / gain)||.

    Raises:
        Rejected: an equality's feature may turn off, or a feature is used twice: the norm counts each once.
    """
    if np.intersect1d(equal.features, upper.features).size:
        raise Rejected("a feature has a multiplier as an equality and as a half-space")
    most = limit(cell, point)
    if equal.features.size and not stays_on(cell.state_of(point, equal.features), most).all():
        raise Rejected(f"an equality is used for a feature that may turn off at {point} within the drift")
    cost, above = Ball.exact(0.0), np.zeros(0)
    if upper.features.size:
        now = cell.state_of(point, upper.features)
        assert now.room is not None  # span has refused normalisations that are not affine
        cost = dot(Ball.exact(upper.values), Ball.exact(np.maximum(now.room.high, 0.0)))
        above = rise(cell.sae, now, most)
    moves = np.concatenate([np.full(equal.features.shape, float(most.high)), above])  # T, or T times the share
    if not moves.any():
        return cost
    every = np.concatenate([equal.features, upper.features])
    weights = Ball.exact(np.concatenate([equal.values, upper.values]))
    return cost + norm(Ball.exact(moves) * weights / gain(cell.sae, every))


def rise(sae: Sae, now: State, most: Ball) -> Array:
    """T times the share of the half-space of each feature, (n,): T - theta_j for one that is off, never below zero.

    A JumpReLU feature that turns on has a value above its threshold at once, so a threshold above T lets none turn on.
    """
    top = np.full(now.features.shape, float(most.high))
    if sae.architecture != "jumprelu":
        return top
    least = np.maximum(sae.parameters["threshold"][now.features], 0.0)
    left = np.maximum(np.nextafter(top - least, np.inf), 0.0)
    return np.where(now.off, np.where(least >= top, 0.0, left), top)


def rise_of(cell: Cell, point: str, now: State) -> Array:
    """By how much more than its room w_j . delta may be, (n,), rounded up: one feature by itself takes all of T."""
    above = Ball.exact(rise(cell.sae, now, limit(cell, point))) / gain(cell.sae, now.features)
    return np.maximum(above.high, 0.0)


def within(cell: Cell, delta: Ball) -> bool:
    """Whether the float vector delta itself provably moves the code by at most T, at every point."""
    chosen = np.array(cell.chosen, dtype=np.intp)
    for point in cell.points:
        before, after = cell.state_of(point, chosen), state(cell.sae, cell.points[point] + delta, chosen)
        if not bool(norm(after.value - before.value).high <= limit(cell, point).low):
            return False
    return True


def confined(cell: Cell, weight: float, width: int) -> tuple[Array, float, float, float]:
    """(B, slip, stretch, spread) with delta = B y + x, ||x|| <= slip ||delta||, ||y||^2 <= (stretch r)^2 + spread^2.

    Theorem: drift (features), (d): B is near (I + weight G^T G)^(-1/2), and symmetric, so that no other basis of the
    same space could stand for it.

    Raises:
        Rejected: the weight is so large that rounding would decide.
    """
    if len(cell.points) != 1:
        raise Rejected(f"the ellipsoid speaks of one point, and the drift is held at {sorted(cell.points)}")
    (point,) = cell.points
    chosen = np.array(cell.chosen, dtype=np.intp)
    most, now = limit(cell, point), cell.state_of(point, chosen)
    if not cell.sae.affine:
        raise Rejected(f"with normalisation {cell.sae.normalization!r} nothing is known of how values move")
    chosen = chosen[stays_on(now, most)]
    # Gains rounded down, and each product by a relative U: both are paid for in `over`.
    rows = gain(cell.sae, chosen).low[:, None] * cell.sae.W_enc.T[chosen]
    gram = np.eye(width) + weight * (rows.T @ rows)
    values, vectors = np.linalg.eigh(gram)
    if not (np.isfinite(values).all() and (values > 0.5).all()):
        raise Rejected(f"a weight of {weight:.3g} is too large")
    onto, back = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    basis, read = 0.5 * (back + back.T), 0.5 * (onto + onto.T)
    size, lost = length(read), gamma(width + len(rows))
    slip = grow(length(np.eye(width) - basis @ read) + 4 * lost * (1 + length(basis) * size))
    over = grow(length(read.T @ read - gram) + 8 * lost * (1 + size * size + weight * length(rows) ** 2))
    if not (slip < LARGEST_SLIP and over < LARGEST_SLIP):
        raise Rejected(f"a weight of {weight:.3g} is too large")
    spread = grow(np.sqrt(weight) * float(most.high)) if len(chosen) else 0.0
    return basis, float(slip), float(grow(np.sqrt(1 + over))), float(spread)
