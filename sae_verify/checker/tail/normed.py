"""Taylor models through LayerNorm and RMSNorm.

z = c + u, s0 = |c|^2 + d epsilon (rounded up), a = c.u / s0, p = |u_perp|^2 / s0 + e u_r^2 / s0 with u_r the part of u
along c and e = (s0 - |c|^2) / s0. Then |z|^2 + d epsilon = s0 ((1 + a)^2 + p), and the terms up to the second order of
z / rho are

    (c + u - c a + c (3 a^2 / 2 - |u|^2 / (2 s0)) - u a) / sqrt(s0).

What remains, along c and across, is a matter of |a| <= A and p <= P alone. Theorem: norm-remainder.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arithmetic import gamma
from .curves import Forms, Products
from .sizes import grow, length
from .sources import Carried, Line, along
from .taylor import Taylor
from .weights import NormWeights

FAR = 0.5
"""Remainder, in units of what is not linear in the argument, from which on it is tried to leave that out."""

UNDIRECTED = 2.0**-900
"""Of a centre's squared length: up to it no direction is told apart from others, which says less."""


def normed(x: Taylor, norm: NormWeights) -> Taylor:
    """The model of gain * z / sqrt(|z|^2 / d + epsilon) + shift; z is x or, for a LayerNorm, x - mean(x)."""
    d = x.width
    z = x.centred() if norm.centred else x
    unit = _direction(z, norm.epsilon)
    if unit.errors[-1][0].norm > FAR * z.rest_norm / float(np.sqrt(z.centre @ z.centre + d * norm.epsilon)):
        for part in (replace(z, errors=(), loose=np.zeros(d)), replace(z, curves=(), errors=(), loose=np.zeros(d))):
            unit = _shorter(unit, _apart(part, z, norm.epsilon))
    root = np.sqrt(float(d))
    factor = norm.gain.mid * root
    return unit.scaled(factor, norm.shift, grow(norm.gain.rad * root + 2.0**-51 * np.abs(factor)))


def _shorter(one: Taylor, other: Taylor) -> Taylor:
    """Of two models of the same vector, the one with less that is not linear."""
    return other if other.errors[-1][0].norm < one.errors[-1][0].norm else one


def _apart(part: Taylor, z: Taylor, epsilon: float) -> Taylor:
    """The model of z / sqrt(|z|^2 + d epsilon) from that of a part of z; the rest m of z only turns it a little.

    In one dimension more, |a / |a| - b / |b|| <= 2 |a - b| / (|a| + |b|). Here |a - b| <= |m|, |b| >= |a| - |m| and
    |a| >= |c|' - |part - c|, with |c|'^2 = |c|^2 + d epsilon. Theorem: norm-remainder.
    """
    d = z.width
    left_out = grow(z.error_norm if part.curves else z.quadratic_norm + z.error_norm)
    whole = float(np.sqrt((z.centre @ z.centre + d * epsilon) * (1 - 8 * gamma(d))))
    least = (whole - grow(part.linear_norm + part.rest_norm)) * (1 - 2.0**-40)
    turned = 2 * left_out / (2 * least - left_out) if 2 * least > 2 * left_out else 2.0
    turned = float(grow(min(turned, 2.0)))
    return _direction(part, epsilon).with_source("norm", np.full(d, turned), turned)


def _direction(z: Taylor, epsilon: float) -> Taylor:
    """The model of z / sqrt(|z|^2 + d epsilon), whose norm is less than 1."""
    d, c, jacobian = z.width, z.centre, z.jacobian
    lost = gamma(d)
    s0 = float((c @ c + d * epsilon) * (1 + 8 * lost))
    if not 2.0**-900 < s0 < 2.0**900:  # squares overflow or vanish; the direction is still shorter than 1
        nothing = Taylor(z.domain, np.zeros(d), np.zeros_like(jacobian), (), (), np.zeros(d))
        return nothing.with_source("norm", np.ones(d), 1.0)
    nc, r0 = length(c), np.sqrt(s0)
    e = grow(d * epsilon / s0 + 16 * lost)
    whole = grow(z.linear_norm + z.rest_norm)
    # Covers what is off where `unit`, of length 1 to a few roundings, stands for the direction of c.
    slip = 8 * lost * whole
    directed = float(c @ c) > UNDIRECTED
    unit = c / np.sqrt(c @ c) if directed else np.zeros(d)
    ul, um = z.linear_norm, z.rest_norm
    if directed:
        ahead_of = z.mapped(unit[None])
        ul, um = ahead_of.linear[0] + slip, ahead_of.rest[0] + slip
    across = jacobian - np.outer(unit, unit @ jacobian)
    bl = min(grow(z.domain.matrix(across) + slip), z.linear_norm)
    bm = z.rest_norm
    al, am = nc * ul / s0, nc * um / s0
    ahead, f = _remainder(nc, s0, e, (ul, um), (bl, bm), (al, am))
    # Across there remain f u_p, and of the second order what is not linear in the argument.
    beside = bm * (f + al + am)
    norm = float(grow(np.hypot(ahead, bl * (f + am) + beside)))
    model = _second_order(z, s0, r0)
    lost_root = 8 * lost * (nc + whole) / r0 * _cube(al + am)
    remainder, bounded = float(grow(norm / r0 + lost_root)), np.inf
    if not remainder < 1.0:
        # Its own size, should the series not converge: both the exact value and the polynomial are bounded.
        bounded = float(grow(1.0 + length(model.centre) + model.linear_norm + model.quadratic_norm + model.error_norm))
    if not (directed and remainder < bounded):
        remainder = min(remainder, bounded)
        return model.with_source("norm", np.full(d, remainder), remainder)
    # Across, beside f u_p: s m_p = s m - s (m along c), m what is not linear in z and |s| <= f + al + am.
    factor = float(grow((f + al + am) / r0))
    more = float(grow(z.quadratic_norm + length(z.loose) + slip + lost_root / factor))
    others = float(grow(factor * (bm + slip) + lost_root))
    carried = Carried("norm", np.full(d, others), others, factor, tuple((s.shallow, g) for s, g in z.errors), more)
    lines = (
        Line(None, unit[:, None], float(grow(ahead / r0 + factor * um))),
        Line(z.domain, across, float(grow((f + am) / r0))),
    )
    return model.with_error(along("norm", lines, carried, remainder))


def _cube(a: float) -> float:
    """(1 - A)^-3, or infinity."""
    return (1.0 - a) ** -3 if a < 0.99 else np.inf


def _remainder(
    nc: float, s0: float, e: float, u: tuple[float, float], b: tuple[float, float], a: tuple[float, float]
) -> tuple[float, float]:
    """What is beyond the second order along c, times sqrt(s0), and f of norm-remainder (d).

    Pairs: the linear part's size, and the rest's.
    """
    (ul, um), (bl, bm), (al, am) = u, b, a
    radial, cross, A = ul + um, bl + bm, grow(al + am)
    if not A < 0.99:
        return np.inf, np.inf
    i = 1.0 / (1.0 - A)
    p = (cross * cross + e * (radial * radial)) / s0
    f = max(A * A * i, 0.5 * p * i**3)
    along = nc * (0.5 * p * A * (2 - A) * i**2 + 0.375 * (p * p) * i**4) + radial * e * f
    # The second-order terms are taken at the linear part of u alone.
    du = 2 * ul * um + um * um
    along += 0.5 * nc * (2 * bl * bm + bm * bm + e * du) / s0 + e * nc / s0 * du
    return float(grow(along)), float(grow(f))


def _second_order(z: Taylor, s0: float, r0: float) -> Taylor:
    """The polynomial of the module's head divided by r0, with rounding in `loose`."""
    d, c, jacobian = z.width, z.centre, z.jacobian
    gradient = (c @ jacobian) / s0
    common = Forms((1.5 * np.outer(gradient, gradient) - 0.5 / s0 * (jacobian.T @ jacobian))[None])
    mixed = Products(jacobian, gradient[None])
    moving = length(z.moving.parts)
    a, b = length(c) * moving / s0, moving * moving / s0
    size = z.parts * (1 + a) + np.abs(c) * (1 + a + b + 3 * a * a)
    loose = z.loose + np.abs(c) * min(length(c) * length(z.loose), float(np.abs(c) @ z.loose)) / s0
    # A product that vanishes is divided by s0, and stands before what gains do, or before what moves, over r0.
    vanished = d * z.vanishing * (1 + 1 / s0) * (1 + moving / r0)
    return Taylor(
        z.domain,
        c / r0,
        (jacobian - np.outer(c, gradient)) / r0,
        (
            *((curve, (gain - np.outer(c, (c @ gain) / s0)) / r0) for curve, gain in z.curves),
            (common, c[:, None] / r0),
            (mixed, np.eye(d) / -r0),
        ),
        tuple((source, (gain - np.outer(c, (c @ gain) / s0)) / r0) for source, gain in z.errors),
        grow((loose + 64 * gamma(d) * size) / r0 + vanished),
    )
