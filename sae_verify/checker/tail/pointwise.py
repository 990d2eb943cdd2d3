"""Taylor models through scalar functions of each entry, and through products of entries.

sigma(c + u), u = l + q + e, has the model sigma(c) + sigma'(c) (l + q + e) + sigma''(c) l^2 / 2. What remains is
sigma''(c) [l (q + e) + (q + e)^2 / 2] + sigma'''(xi) u^3 / 6. Theorem: activation-remainder.
"""

from __future__ import annotations

import numpy as np

from ..arithmetic import TINY, Array, U
from .activations import jet, slope, third
from .crossed import crossing, linear, nonlinear
from .curves import Products
from .sizes import grow, length
from .sources import Steep
from .taylor import Pairs, Taylor, added


def activated(z: Taylor, kind: str) -> Taylor:
    """The model of sigma(z), entry by entry."""
    value, first, second = jet(kind, z.centre)
    s1, s2 = first.mid, second.mid
    reach, rest = z.reach, z.rest
    bend = np.abs(s2)
    # sup |sigma(c + u) - s0 - s1 u - s2 u^2 / 2| / |u|, by the third derivative, or by the slope where that is less.
    cubic = third(kind, z.centre, reach) / 6
    steep = grow(np.minimum(cubic * reach**2, slope(kind) + np.abs(s1) + 0.5 * bend * reach))
    third_order = grow(steep * reach)
    box = third_order + bend * rest * (z.linear + 0.5 * rest)
    # Far out the series says nothing, but the slope does: |sigma(c + u) - s0| and the model are at most this.
    whole = grow((slope(kind) + np.abs(s1)) * reach + 0.5 * bend * z.linear**2)
    near = box <= whole
    steep, squared, apart = (
        np.where(near, steep, 0.0),
        np.where(near, grow(cubic * reach), 0.0),
        np.where(near, 0.0, whole),
    )
    together = z.domain.matrix(steep[:, None] * z.jacobian) + length(steep * rest + apart)
    bent = np.where(near, s2, 0.0)
    moves, rests = linear(z.domain, z.jacobian).scaled(bent), nonlinear(z)
    cross = crossing(kind, moves, rests, z.domain.matrix((bent * rest)[:, None] * z.jacobian))
    square = crossing(kind, rests.scaled(0.5 * bent), rests)
    rounding = value.rad + first.rad * reach + 0.5 * second.rad * reach**2
    rounding = rounding + 8 * U * (np.abs(value.mid) + (np.abs(s1) + bend * z.parts) * z.parts) + TINY
    model = Taylor(
        z.domain,
        value.mid,
        s1[:, None] * z.jacobian,
        (*_weighted(s1, z.curves), (Products(z.jacobian, z.jacobian), np.diag(0.5 * s2))),
        _weighted(s1, z.errors),
        grow(np.abs(s1) * z.loose + rounding + z.vanishing),
    )
    model = model.with_error(cross).with_error(square)
    box = np.where(near, third_order, whole)
    norm = float(min(grow(together), length(box)))
    return model.with_error(Steep(kind, np.minimum(box, norm), norm, z.domain, z.jacobian, rest, steep, squared, apart))


def product(a: Taylor, b: Taylor) -> Taylor:
    """The model of a * b, entry by entry; both may share sources."""
    domain = a.domain
    moves = (linear(domain, a.jacobian), nonlinear(a)), (linear(domain, b.jacobian), nonlinear(b))
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
        grow(np.abs(a.centre) * b.loose + np.abs(b.centre) * a.loose + 16 * U * size + a.vanishing + b.vanishing),
    )
    for one, other in ((0, 1), (1, 0), (1, 1)):
        model = model.with_error(crossing("gate", moves[0][one], moves[1][other]))
    return model


def _weighted(weight: Array, pairs: Pairs) -> Pairs:
    return tuple((part, weight[:, None] * gain) for part, gain in pairs)  # type: ignore[return-value]


def capped(scores: Taylor, cap: float) -> Taylor:
    """The model of cap * tanh(scores / cap)."""
    inverse = np.full(scores.width, 1.0 / cap)
    small = activated(scores.scaled(inverse, factor_error=U * inverse), "tanh")
    return small.scaled(np.full(scores.width, cap))
