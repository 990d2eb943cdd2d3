"""Activation functions of exact floats: values, derivatives and bounds of derivatives over intervals, rounded outward.

    gelu        u Phi(u), Phi the standard normal distribution function
    gelu_tanh   u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3)))
    silu        u / (1 + exp(-u))
    tanh        tanh(u)

The first three are gated: sigma(u) = u G(u) with G(-u) = 1 - G(u). So sigma(u) = max(u, 0) - v G(-v) with v = |u|, and
all is computed from the tail G(-v) and the derivatives of G at v, which share one factor of known relative accuracy.
Left of zero sigma' is G(-v) - v G'(v), right of it one minus that; sigma'' is even and sigma''' odd.

An input that is not finite gives "nothing known", except that an interval may be the whole line.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arithmetic import TINY, Array, Ball, U, up
from ..errors import Rejected
from .elementary import erf, exp, nothing_known_unless, tanh

SQRT_HALF = 0.7071067811865476
PER_SQRT_TAU = 0.3989422804014327
"""1 / sqrt(2 pi)."""
TWICE_SQRT_2_PER_PI = 1.5957691216057308
"""2 sqrt(2 / pi): (1 + tanh(y)) / 2 is the logistic function of 2 y."""
CUBIC = 0.044715


class Facts(NamedTuple):
    """What is known of one activation over the whole line; every number is rounded outward.

    `tests/checker/tail/test_activations.py` proves each by subdivision of [0, `beyond`] in interval arithmetic.
    """

    slope: float
    """At least |sigma'|; for tanh 1 - tanh^2 <= 1."""
    curvature: float
    """At least |sigma''|."""
    turns: tuple[tuple[float, float, float], ...]
    """(from, to, height): on [0, beyond] sigma'''' is zero inside these intervals only; there |sigma'''| <= height."""
    beyond: float
    """From here on sigma and three derivatives are within TINY of those of max(u, 0), for tanh of those of 1.

    The difference is at most p(u) exp(-s(u)) with p of degree 7, its coefficients positive with a sum below 1000, and
    s(u) = u^2 / 2 for gelu, u for silu, 2 u for tanh, 1.59 u + 0.0713 u^3 for gelu_tanh. It falls, as 7 / u < s'(u),
    and is already below 2^-1000.
    """


FACTS: dict[str, Facts] = {
    "gelu": Facts(1.1289042, 0.7978846, ((0.7922, 0.7924, 0.7787697), (2.5242, 2.5244, 0.0987417)), 40.0),
    "gelu_tanh": Facts(1.1289931, 0.7978846, ((0.7875, 0.7877, 0.7766915), (2.5533, 2.5535, 0.0987875)), 25.0),
    "silu": Facts(1.0998394, 0.5000001, ((1.0319, 1.0321, 0.3081816), (4.4291, 4.4293, 0.0138623)), 790.0),
    "tanh": Facts(1.0, 0.7698004, ((0.0, 0.0001, 2.0000001), (1.1461, 1.1463, 0.6666667)), 400.0),
}


def facts(kind: str) -> Facts:
    """What is known of one activation.

    Raises:
        Rejected: there is no such activation.

    """
    if kind not in FACTS:
        raise Rejected(f"activation {kind!r} is none of {', '.join(FACTS)}")
    return FACTS[kind]


def slope(kind: str) -> float:
    """An upper bound of |sigma'| over the reals."""
    return facts(kind).slope


def curvature(kind: str) -> float:
    """An upper bound of |sigma''| over the reals."""
    return facts(kind).curvature


def constant(value: float) -> Ball:
    """A real number known by the float nearest to it, and the floats next to that: models compute with one of them."""
    return Ball(np.asarray(value), np.asarray(2 * U * abs(value)))


def times(factor: float, a: Ball) -> Ball:
    """A float times a ball."""
    return Ball.exact(factor) * a


ONE = Ball.exact(1.0)
ZERO = Ball.exact(0.0)


def exp_of(z: Ball) -> Ball:
    """Exponential of a ball: exp(mid) times at most exp(rad) <= 1 + 2 rad and at least 1 - rad, for rad <= 1."""
    value = exp(z.mid)
    return Ball(value.mid, np.where(z.rad <= 1.0, up(value.rad + 2.0 * z.rad * value.high), np.inf))


class Gate(NamedTuple):
    """G(-v); and G'(v), G''(v), G'''(v), as many as asked for, as numbers times one positive density."""

    tail: Ball
    density: Ball
    shape: tuple[Ball, ...]


def normal_gate(v: Array, order: int) -> Gate:
    """G = Phi: G' = phi, G'' = -v phi, G''' = (v^2 - 1) phi. The tail is (1 - erf(v / sqrt(2))) / 2.

    The argument x of erf is known to 3.1 U |x|, but for underflow. As erf'(y) <= 1.13 and y erf'(y) <= 0.49, that moves
    erf by at most 1.13 times its radius, and by at most 0.49 * 3.2 U < 2 U. Beyond 8.5, where erf says little of the
    tail, 0 <= Phi(-v) <= phi(v) / v does.
    """
    u = Ball.exact(v)
    square = u * u
    density = exp_of(times(-0.5, square)) * constant(PER_SQRT_TAU)
    argument = u * constant(SQRT_HALF)
    about = erf(argument.mid)
    tail = times(0.5, ONE - Ball(about.mid, up(about.rad + np.minimum(1.13 * argument.rad, 2 * U))))
    far = v > 8.5
    half = density.high / (2.0 * np.maximum(v, 1.0))
    tail = Ball(np.where(far, half, tail.mid), np.where(far, up(half), tail.rad))
    return Gate(tail, density, (ONE, -u, square - ONE)[:order])


def logistic_gate(z: Ball, derivatives: tuple[Ball, Ball, Ball], order: int) -> Gate:
    """G = S(z(v)), S the logistic function, at a place where z >= 0 and z', z'', z''' are known.

    With e = exp(-z), t = tanh(z / 2) = (1 - e) / (1 + e) and q = S' = e / (1 + e)^2: S'' = -t q, S''' = (1 - 6 q) q;
    G' = S' z', G'' = S'' z'^2 + S' z'', G''' = S''' z'^3 + 3 S'' z' z'' + S' z'''.
    """
    e = exp_of(-z)
    whole = ONE + e
    tail = e / whole
    density = tail / whole
    if not order:
        return Gate(tail, density, ())
    z1, z2, z3 = derivatives
    t = (ONE - e) / whole
    square = z1 * z1
    shape = [z1, z2 - t * square]
    if order > 2:
        shape.append((ONE - times(6.0, density)) * square * z1 - times(3.0, t * z1 * z2) + z3)
    return Gate(tail, density, tuple(shape[:order]))


def gate(kind: str, v: Array, order: int) -> Gate:
    """The gate of a gated activation at floats 0 <= v <= `beyond`, with `order` of its derivatives, at most 3."""
    if kind == "gelu":
        return normal_gate(v, order)
    u = Ball.exact(v)
    if kind == "silu":
        return logistic_gate(u, (ONE, ZERO, ZERO), order)
    a, b = constant(TWICE_SQRT_2_PER_PI), constant(CUBIC)
    square, sixfold = b * u * u, times(6.0, a * b)
    return logistic_gate(a * u * (ONE + square), (a * (ONE + times(3.0, square)), sixfold * u, sixfold), order)


def tanh_slope(v: Array) -> Ball:
    """1 - tanh(v)^2 = 4 e / (1 + e)^2 with e = exp(-2 v), to relative accuracy, for v >= 0."""
    e = exp(-2.0 * v)
    whole = ONE + e
    return times(4.0, e) / (whole * whole)


def settled(far: Any, a: Ball, limit: float = 0.0) -> Ball:
    """The ball, but within TINY of the limit where an entry is `far`."""
    return Ball(np.where(far, limit, a.mid), np.where(far, TINY, a.rad))


def mirrored(left: Any, a: Ball) -> Ball:
    """The ball, with the sign of the entries on the `left` changed."""
    return Ball(np.where(left, -a.mid, a.mid), a.rad)


class Place(NamedTuple):
    """Floats c of any shape: which are finite, not positive, past `beyond`; |c| cut there, and max(c, 0)."""

    known: Any
    left: Any
    far: Any
    v: Array
    ramp: Ball


def place(kind: str, c: Array) -> Place:
    """Where the entries of c lie; those that are not finite are put at 0 for now."""
    c, limit = np.asarray(c, dtype=np.float64), facts(kind).beyond
    known = np.isfinite(c)
    c = np.where(known, c, 0.0)
    size = np.abs(c)
    return Place(known, c <= 0, size > limit, np.minimum(size, limit), Ball.exact(np.maximum(c, 0.0)))


def value(kind: str, x: Array) -> Ball:
    """The activation at floats of any shape."""
    at = place(kind, x)
    if kind == "tanh":
        result = mirrored(at.left, settled(at.far, tanh(at.v), 1.0))
    else:
        result = at.ramp - settled(at.far, Ball.exact(at.v) * gate(kind, at.v, 0).tail)
    return nothing_known_unless(at.known, result.mid, result.rad)


def jet(kind: str, c: Array) -> tuple[Ball, Ball, Ball]:
    """The activation, its first and its second derivative at floats of any shape."""
    at = place(kind, c)
    u = Ball.exact(at.v)
    if kind == "tanh":
        zeroth, first = settled(at.far, tanh(at.v), 1.0), settled(at.far, tanh_slope(at.v))
        parts = (mirrored(at.left, zeroth), first, mirrored(at.left, times(-2.0, zeroth * first)))
    else:
        g = gate(kind, at.v, 2)
        below = settled(at.far, g.tail - u * g.density * g.shape[0])  # sigma'(-v)
        above = ONE - below
        parts = (
            at.ramp - settled(at.far, u * g.tail),
            Ball(np.where(at.left, below.mid, above.mid), np.where(at.left, below.rad, above.rad)),
            settled(at.far, g.density * (times(2.0, g.shape[0]) + u * g.shape[1])),
        )
    zeroth, first, second = (nothing_known_unless(at.known, b.mid, b.rad) for b in parts)
    return zeroth, first, second


def third_at(kind: str, v: Array) -> Array:
    """Upper bounds of |sigma'''| at floats 0 <= v <= `beyond`."""
    if kind == "tanh":
        t = tanh(v)
        return (times(2.0, tanh_slope(v)) * (ONE - times(3.0, t * t))).magnitude
    g = gate(kind, v, 3)
    return (g.density * (times(3.0, g.shape[1]) + Ball.exact(v) * g.shape[2])).magnitude


def third(kind: str, c: Array, w: Array) -> Array:
    """Upper bounds of |sigma'''| over [c - w, c + w] for floats c and w >= 0, w infinite or not; else inf.

    Between two zeros of sigma'''' the third derivative is monotone, so |sigma'''| is largest at an end of the interval
    or where it turns: a turn's height counts if the interval meets it. Beyond `beyond` it is at most TINY.
    """
    c, w = np.broadcast_arrays(np.asarray(c, dtype=np.float64), np.asarray(w, dtype=np.float64))
    known = np.isfinite(c) & (w >= 0)
    about = facts(kind)
    with np.errstate(over="ignore"):
        centre, reach = np.where(known, c, 0.0), np.where(known, w, 0.0)
        low = np.clip(np.nextafter(centre - reach, -np.inf), -about.beyond, about.beyond)
        high = np.clip(np.nextafter(centre + reach, np.inf), -about.beyond, about.beyond)
    bound = np.maximum(third_at(kind, np.abs(np.stack([low, high]))).max(axis=0), TINY)
    for start, end, height in about.turns:
        meets = ((low <= end) & (high >= start)) | ((low <= -start) & (high >= -end))
        bound = np.where(meets, np.maximum(bound, height), bound)
    return np.where(known, bound, np.inf)


def value_range(kind: str, ball: Ball) -> Ball:
    """The activation of a ball: |sigma(c + t) - sigma(c)| <= slope |t|, and <= |sigma'(c)| |t| + curvature t^2 / 2."""
    known = np.isfinite(ball.mid) & np.isfinite(ball.rad)
    zeroth, first, _ = jet(kind, np.where(known, ball.mid, 0.0))
    r = np.where(known, ball.rad, 0.0)
    with np.errstate(over="ignore"):
        steepest = np.minimum(slope(kind), up(first.magnitude + 0.5 * curvature(kind) * r))
        rad = up(r * steepest + zeroth.rad)
    return nothing_known_unless(known, zeroth.mid, rad)
