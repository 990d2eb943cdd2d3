"""Models of a lower degree: what is above it becomes an error, so that later sites are cheaper and say less.

Degree 2 keeps a model as it is. Degree 1 keeps what is linear in y: each quadratic form of the model lies between two
numbers, whose middle goes to the centre, and what is left is an error. Degree 0 keeps only the centre: all that moves
is one error, known by a box and a norm: interval arithmetic with a length beside it. Theorem: lowered-degree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arithmetic import TINY, Array, U, gamma
from .curves import Curve, Forms
from .domain import Domain
from .signless import signs_free
from .sizes import grow, length, spectral
from .taylor import Taylor

SLACK = 2.0**-48
"""Relative to the product of two factors' sizes: what rounding makes of their quotients, sums and squares."""
VANISHING = 2.0**-400
"""Factors this small, or this small in the inverse, are not divided by: their product is taken with both signs."""


def lowered(z: Taylor, degree: int) -> Taylor:
    """A model of the same vector, of this degree at most."""
    if degree >= 2:
        return z
    z = replace(z, errors=tuple((source.plain, gain) for source, gain in z.errors))
    return _linear(z) if degree == 1 else _constant(z)


def _constant(z: Taylor) -> Taylor:
    """What moves as one error."""
    norm = float(grow(z.linear_norm + z.rest_norm))
    nothing = np.zeros(z.width)
    return Taylor(z.domain, z.centre, np.zeros_like(z.jacobian), (), (), nothing).with_source("moves", z.reach, norm)


def _linear(z: Taylor) -> Taylor:
    """The quadratic part as its middle and an error."""
    if not z.curves:
        return z
    centre, loose, box, norm = z.centre, np.zeros(z.width), np.zeros(z.width), 0.0
    for curve, gain in z.curves:
        low, high = ranges(curve, z.domain)
        middle, half = 0.5 * low + 0.5 * high, grow(0.5 * high - 0.5 * low)
        middle = np.where(np.isfinite(middle), middle, 0.0)  # where nothing is known, half is infinite
        moved, apart = gain @ middle, grow(np.abs(gain) @ half)
        off = 4 * gamma(curve.count) * (np.abs(gain) @ np.abs(middle)) + TINY
        centre = centre + moved
        loose = loose + off + 2 * U * np.abs(centre)
        box = box + apart
        norm = norm + min(length(apart), together(curve, gain, z.domain) + length(moved) + length(off))
    model = replace(z, centre=centre, curves=(), origin=None).loosened(grow(loose))
    return model.with_source("second order", grow(box), float(grow(norm)))


def ranges(curve: Curve, domain: Domain) -> tuple[Array, Array]:
    """low <= q_j(y) <= high over the domain, (m,) each, low <= 0 <= high.

    Of a product of factors a, b that are at most 1 in size: a b = ((a + b)^2 - (a - b)^2) / 4.
    """
    if isinstance(curve, Forms):
        both = curve.forms + curve.forms.transpose(0, 2, 1)
        off = 4 * U * curve.size * domain.reach**2
        high = np.array([domain.form_above(form) for form in both])
        low = np.array([domain.form_above(-form) for form in both])
        return -grow(low + off), grow(high + off)
    left, right = domain.rows(curve.left), domain.rows(curve.right)  # (m,), and (m,) or (1,)
    size = grow(left * right)
    usual = (np.minimum(left, right) > VANISHING) & (np.maximum(left, right) < 1 / VANISHING)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = curve.left / left[:, None], curve.right / right[:, None]
        above, below = (np.minimum(0.25 * domain.rows(x) ** 2, 1.0) for x in (a + b, a - b))
    return -grow(size * np.where(usual, below + SLACK, 1.0)), grow(size * np.where(usual, above + SLACK, 1.0))


def together(curve: Curve, gain: Array, domain: Domain) -> float:
    """sup ||sum_j G_j q_j(y)||_2 over the domain, not from its entries."""
    if isinstance(curve, Forms):
        low, high = ranges(curve, domain)
        return float(grow(spectral(gain) * length(np.maximum(-low, high))))
    left, right = domain.rows(curve.left), domain.rows(curve.right)
    if len(right) < curve.count:  # one factor for all
        lost = 2 * gamma(curve.count) * length(np.abs(gain) @ left) + TINY
        return float(grow((domain.matrix(gain @ curve.left) + lost) * right[0]))
    rows = left[:, None] * curve.right
    own = np.diag(gain)
    if gain.shape[0] == gain.shape[1] and np.count_nonzero(gain) == np.count_nonzero(own):
        return domain.matrix(own[:, None] * rows)  # a number for each entry
    return signs_free(domain, gain, rows)
