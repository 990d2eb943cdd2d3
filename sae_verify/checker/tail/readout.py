"""From a Taylor model of the final residual to an affine bound of the claim.

readout <= tau is w.z + (constant - tau) rho <= 0 with z the centred final residual and rho = sqrt(|z|^2 + d epsilon):
the norm itself need not be modelled. Theorem: final-norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arithmetic import TINY, Array, Ball, U, gamma
from .domain import Domain
from .sizes import grow, length
from .taylor import Taylor, asked


@dataclass(frozen=True, eq=False)
class Functional:
    """readout = w.z / rho + constant, z centred or not; `d_epsilon` is d times the final norm's epsilon."""

    weight: Ball
    constant: Ball
    centred: bool
    d_epsilon: Ball


@dataclass(frozen=True, eq=False)
class Affine:
    """(readout - tau) rho <= constant + gradient.y for every y of the domain.

    Attributes:
        value: at the centre, a float near it. curve: the part of `constant` that the second order makes.
        errors: the part that each kind of site makes.
    """

    domain: Domain
    constant: float
    gradient: Array
    value: float
    curve: float
    errors: dict[str, float]

    @property
    def top(self) -> float:
        """The largest value over the domain."""
        return float(grow_sum(self.constant, self.domain.row(self.gradient)))


def grow_sum(a: float, b: float) -> float:
    """a + b rounded up."""
    total = a + b
    return total + 4 * U * (abs(a) + abs(b)) if np.isfinite(total) else np.inf


def affine(resid: Taylor, readout: Functional, tau: float) -> Affine:
    """The bound for readout <= tau, from the model of the final residual."""
    z = resid.centred() if readout.centred else resid
    c, domain, lost = z.centre, z.domain, gamma(z.width)
    kappa_ball = readout.constant - Ball.exact(tau)
    kappa = float(kappa_ball.mid)
    s = float(np.sqrt(c @ c + readout.d_epsilon.mid)) or 1.0
    # rho <= (rho^2 + s^2) / 2s for kappa > 0, and rho >= its tangent at c otherwise: both begin with s + c.u / s.
    weight = readout.weight.mid + (kappa / s) * c
    row = z.moving.mapped(weight[None])
    sizes = z.parts
    slope = readout.weight.rad + 8 * U * (np.abs(readout.weight.mid) + abs(kappa) / s * np.abs(c))
    norms = s + (float(readout.d_epsilon.high) + length(c) * length(sizes)) / s
    hessian, off = row.hessian(0)
    rounding = slope @ sizes + 32 * lost * (abs(kappa) * norms + np.abs(readout.weight.mid) @ sizes)
    rounding += float(kappa_ball.rad) * (length(sizes) + s) + off + TINY
    curved = 0.0
    if kappa > 0:
        # kappa |u|^2 / 2s, with u = l + r.
        hessian = hessian + (kappa / s) * (z.jacobian.T @ z.jacobian)
        curved = kappa / s * (z.linear_norm * z.rest_norm + 0.5 * z.rest_norm * z.rest_norm)
        rounding += 8 * lost * kappa / s * (length(sizes) * length(sizes))
    errors: dict[str, float] = {"final norm": float(grow(curved)), "rounding": float(grow(rounding + row.loose[0]))}
    curve = domain.form_above(hessian)
    coarse = [np.array([source.coarse_size(gain)]) for source, gain in row.errors]
    sizes = asked(row.errors, coarse, np.array([curve]), lambda source, gain: np.array([source.row(gain)]))
    for (source, _), size in zip(row.errors, sizes, strict=True):
        errors[source.site] = errors.get(source.site, 0.0) + float(size[0])
    value = float(readout.weight.mid @ c) + kappa * s
    constant = grow_sum(value, float(grow(curve + sum(errors.values()))))
    return Affine(domain, constant, row.jacobian[0], value, curve, errors)
