"""Taylor models through scalar functions of each entry, and through products of entries.

sigma(c + u), u = l + q + e, has the model sigma(c) + sigma'(c) (l + q + e) + sigma''(c) l^2 / 2. What remains is
sigma''(c) [l (q + e) + (q + e)^2 / 2] + sigma'''(xi) u^3 / 6. Theorem: activation-remainder.
"""

from __future__ import annotations

import numpy as np

from ..arithmetic import TINY, Array, U
from .activations import jet, slope, third
from .curves import Products
from .sizes import grow, length
from .taylor import Pairs, Taylor, added


def activated(z: Taylor, kind: str) -> Taylor:
    """The model of sigma(z), entry by entry."""
    value, first, second = jet(kind, z.centre)
    s1, s2 = first.mid, second.mid
    reach, rest = z.reach, z.rest
    bend = np.abs(s2)
    # sup |sigma(c + u) - s0 - s1 u - s2 u^2 / 2| / |u|, by the third derivative, or by the slope where that is less.
    steep = grow(np.minimum(third(kind, z.centre, reach) * reach**2 / 6, slope(kind) + np.abs(s1) + 0.5 * bend * reach))
    box = grow(bend * rest * (z.linear + 0.5 * rest) + steep * reach)
    # Far out the series says nothing, but the slope does: |sigma(c + u) - s0| and the model are at most this.
    whole = grow((slope(kind) + np.abs(s1)) * reach + 0.5 * bend * z.linear**2)
    bent = bend * rest
    near = box <= whole
    together = z.domain.matrix(np.where(near, bent + steep, 0.0)[:, None] * z.jacobian)
    together += length(np.where(near, 0.5 * bend * rest**2 + steep * rest, whole))
    box = np.minimum(box, whole)
    rounding = value.rad + first.rad * reach + 0.5 * second.rad * reach**2
    rounding = rounding + 8 * U * (np.abs(value.mid) + (np.abs(s1) + bend * z.parts) * z.parts) + TINY
    model = Taylor(
        z.domain,
        value.mid,
        s1[:, None] * z.jacobian,
        (*_weighted(s1, z.curves), (Products(z.jacobian, z.jacobian), np.diag(0.5 * s2))),
        _weighted(s1, z.errors),
        grow(np.abs(s1) * z.loose + rounding),
    )
    return model.with_source(kind, box, float(grow(together)))


def product(a: Taylor, b: Taylor) -> Taylor:
    """The model of a * b, entry by entry; both may share sources."""
    ra, rb = a.rest, b.rest
    box = grow(a.linear * rb + ra * b.linear + ra * rb)
    domain = a.domain
    left = min(domain.matrix(rb[:, None] * a.jacobian), float(a.linear.max(initial=0.0)) * b.rest_norm)
    right = min(domain.matrix(ra[:, None] * b.jacobian), float(b.linear.max(initial=0.0)) * a.rest_norm)
    norm = float(grow(left + right + length(ra * rb)))
    size = a.parts * b.parts
    model = Taylor(
        domain,
        a.centre * b.centre,
        a.centre[:, None] * b.jacobian + b.centre[:, None] * a.jacobian,
        (
            *added(_weighted(b.centre, a.curves), _weighted(a.centre, b.curves)),
            (Products(a.jacobian, b.jacobian), np.eye(a.width)),
        ),
        added(_weighted(b.centre, a.errors), _weighted(a.centre, b.errors)),
        grow(np.abs(a.centre) * b.loose + np.abs(b.centre) * a.loose + 16 * U * size + TINY),
    )
    return model.with_source("gate", box, norm)


def _weighted(weight: Array, pairs: Pairs) -> Pairs:
    return tuple((part, weight[:, None] * gain) for part, gain in pairs)  # type: ignore[return-value]


def capped(scores: Taylor, cap: float) -> Taylor:
    """The model of cap * tanh(scores / cap)."""
    inverse = np.full(scores.width, 1.0 / cap)
    small = activated(scores.scaled(inverse, factor_error=U * inverse), "tanh")
    return small.scaled(np.full(scores.width, cap))
