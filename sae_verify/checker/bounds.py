"""Acceptance of the bound steps: one function a method, each the statement of one theorem.

A function returns nothing when the step's inequality holds in exact reals and raises `Rejected` otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .arithmetic import Array, Ball, clip_low, dot, norm, sqrt, squared_norm
from .errors import Rejected
from .format import BoundStep
from .independence import spans_everything
from .setting import Setting
from .statements.cell_bounded import proven_size
from .tail.proof import MAX_NODES, read_node, verify


def check_bound(setting: Setting, step: BoundStep) -> None:
    """Accept the step or say why not."""
    method = _METHODS.get(step.method)
    if method is None or step.theorem != method[0]:
        raise Rejected(f"method {step.method[:40]!r} with theorem {step.theorem[:40]!r} is not known")
    if step.radius is None and step.method == "final-norm":
        raise Rejected("the final-norm bound speaks of one radius")
    method[1](setting, step)


def _at_most(total: Ball, what: str) -> None:
    """The exact total is <= 0; NaN is a rejection."""
    if not bool(total.high <= 0.0):
        raise Rejected(f"{what}: the inequality misses by {float(total.high):.3g}")


def _final_norm(setting: Setting, step: BoundStep) -> None:
    """Theorem: final-norm. w.z + const <= value with z = P(h + delta) and rho^2 = ||z||^2 + d eps0."""
    if setting.blocks_after != 0:
        raise Rejected(f"{setting.blocks_after} blocks lie between the hook and the final norm")
    w, constant = setting.readout(step.against)
    t = float((Ball.exact(step.value) - constant).low)
    zh, radius = setting.centred_h, Ball.exact(step.radius)
    held, cost = setting.cell.span(step.multipliers)
    if t >= 0:
        # rho(z) >= q.z + q0 sqrt(d eps0) for every |q|^2 + q0^2 <= 1.
        if step.tangent is None or step.tangent.shape != w.mid.shape or (step.secant, step.mean) != (None, None):
            raise Rejected("a bound above the constant needs a tangent, (d,), and nothing else")
        q = Ball.exact(step.tangent)
        spare = Ball.exact(1.0) - squared_norm(q)
        if not bool(spare.low >= 0):
            raise Rejected("the tangent is longer than 1")
        slope = setting.centre(w - q * Ball.exact(t))
        q0 = Ball.exact(np.nextafter(np.sqrt(spare.low), -np.inf)) if spare.low > 0 else Ball.exact(0.0)
        at_centre = dot(slope, zh) - Ball.exact(t) * q0 * sqrt(setting.d_epsilon)
    else:
        # rho <= (rho^2 + s^2) / 2s for every s > 0, and ||P delta||^2 <= radius^2 - 2 m sum(delta) + d m^2 for every m.
        if step.secant is None or step.tangent is not None or not step.secant > 0:
            raise Rejected("a bound below the constant needs a positive secant")
        s = Ball.exact(step.secant)
        if setting.head.centred != (step.mean is not None):
            raise Rejected("a mean is given for a LayerNorm, and for nothing else")
        m, d = Ball.exact(step.mean or 0.0), Ball.exact(float(setting.head.d_model))
        weight = Ball.exact(-t) / s
        slope = w + (zh - m) * weight
        squares = squared_norm(zh) + radius * radius + setting.d_epsilon + s * s + d * m * m
        at_centre = dot(w, zh) + weight * squares * Ball.exact(0.5)
    worst = at_centre + cost + radius * norm(slope - held)
    _at_most(worst, "final-norm")


def _cap(setting: Setting, step: BoundStep) -> None:
    """Theorem: all-radius-cap. The normalised residual is shorter than sqrt(d), whatever happens before it."""
    w, constant = setting.readout(step.against)
    _at_most(norm(w) + constant - Ball.exact(step.value), "cap")


def _pinned(setting: Setting, step: BoundStep) -> None:
    """Theorem: pinned. d independent held equalities leave only delta = 0."""
    if setting.blocks_after != 0:
        raise Rejected("the value at delta = 0 is only recomputed for a hook before the final norm")
    rows = held_rows(setting, step)
    if not spans_everything(rows):
        raise Rejected("the held equalities are not proven to span the residual stream")
    w, constant = setting.readout(step.against)
    _at_most(
        value_at(setting, w, Ball.exact(np.zeros(setting.head.d_model)), 0.0) + constant - Ball.exact(step.value),
        "pinned",
    )


def _through_blocks(setting: Setting, step: BoundStep) -> None:
    """Theorem: through-blocks. A tree of regions, on each of which the tail is enclosed anew."""
    _by_regions(setting, step, 2)


def _linear_relaxation(setting: Setting, step: BoundStep) -> None:
    """Theorem: lowered-degree. The same, with models that are linear after every site."""
    _by_regions(setting, step, 1)


def _interval(setting: Setting, step: BoundStep) -> None:
    """Theorem: lowered-degree. The same, with a box and a length after every site."""
    _by_regions(setting, step, 0)


def _by_regions(setting: Setting, step: BoundStep, degree: int) -> None:
    if setting.blocks_after == 0:
        raise Rejected("a bound through blocks needs blocks after the hook")
    radius = _size(setting, step) if step.radius is None else step.radius
    relaxation = setting.relaxation if step.weight is None else setting.confined(step.weight)
    relaxation = replace(relaxation, degree=degree)
    root = read_node(step.regions, "regions", len(relaxation.basis), [MAX_NODES])
    verify(relaxation, setting.functional(step.against), radius, step.value, root)


def _size(setting: Setting, step: BoundStep) -> float:
    """Theorem: every-radius, (a). No admissible perturbation of any length is longer than this, rounded up."""
    if len(setting.places) != 1:
        raise Rejected("a bound for every radius speaks of one perturbed position")
    size = proven_size(setting.cell, step.multipliers)
    if not size < np.inf:
        raise Rejected("what is held is not proven to be bounded")
    return size


def held_rows(setting: Setting, step: BoundStep) -> Array:
    """The normals of the held equalities that a pinned step names, (n, d); the values beside them play no part."""
    setting.cell.span(step.multipliers)  # the same rules decide which features may be used
    if setting.cell.moves:
        raise Rejected("what may drift is not held exactly, and pins nothing")
    rows = [np.zeros((0, setting.head.d_model))]
    for _, equal, upper, decoder in step.multipliers:
        if upper.features.size:
            raise Rejected("a half-space pins nothing")
        rows += [setting.sae.W_enc[:, equal.features].T, setting.sae.W_dec[decoder.features]]
    return np.concatenate(rows)


def value_at(setting: Setting, w: Ball, delta: Ball, slack: float) -> Ball:
    """w.z / rho for every point within `slack` of delta (l2)."""
    z, rho = final_state(setting, delta, slack)
    return (dot(w, z) + norm(w) * Ball(np.asarray(0.0), np.asarray(slack))) / rho


def final_state(setting: Setting, delta: Ball, slack: float) -> tuple[Ball, Ball]:
    """Centred final residual at delta, (d,), and rho at every point within `slack` of it."""
    z = setting.centre(setting.h + delta)
    length = clip_low(norm(z) + Ball(np.asarray(0.0), np.asarray(slack)), 0.0)
    return z, sqrt(length * length + setting.d_epsilon)


_METHODS = {
    "final-norm": ("final-norm", _final_norm),
    "cap": ("all-radius-cap", _cap),
    "pinned": ("pinned", _pinned),
    "through-blocks": ("through-blocks", _through_blocks),
    "linear-relaxation": ("lowered-degree", _linear_relaxation),
    "interval": ("lowered-degree", _interval),
}
