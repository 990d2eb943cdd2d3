"""linear-dual: no perturbation that keeps the code moves a linear readout further than the dual value.

The dual value is the package's own at its optimum, and that of the statement for multipliers rounded and shaken. The
attack starts at the package's own maximiser and along the readout, keeps what the encoder keeps, and climbs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.inside import STEP_BACK, inside
from sae_verify.geometry.worst_case import LinearOptimum, worst_case
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.testing.inputs import readout
from sae_verify.testing.properties.admissible import Place, climb, exits, place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.rounding import gamma, lengths, norm, wide

Upper = tuple[tuple[np.ndarray, Array], ...]
Solve = Callable[[HeldCell, Array, float], LinearOptimum]
Dual = Callable[[HeldCell, Array, float, Array, Upper], float]

RAYS = 6
"""Directions along which the attack goes out, beside the package's own maximiser."""
SHAKES = 3
"""Further multipliers for which the statement is tried at each maximiser."""


def dual_value(cell: HeldCell, g: Array, radius: float, equal: Array, upper: Upper) -> float:
    """nu . s + r ||g - A^T mu - B^T nu||: the statement itself."""
    rest, cost = g - equal @ cell.equal, 0.0
    for half, (rows, weights) in zip(cell.half_spaces, upper, strict=True):
        rest = rest - half.sign * (weights @ half.normals[rows])
        cost += float(weights @ half.slack[rows])
    return cost + radius * norm(rest)


@dataclass(frozen=True)
class LinearDualProperty:
    """See the module.

    Attributes:
        cells, solve, dual: the code under test: the cell, the maximiser with its multipliers, the statement's formula.
    """

    cells: Cells = held_cell
    solve: Solve = worst_case
    dual: Dual = dual_value
    name: str = "linear-dual"
    statement: str = "no perturbation that keeps the code moves a linear readout beyond the dual value"
    reads: str = "readout change reached, against the dual value"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The whole code held at x, a readout direction and a radius of any size."""
        at = place(wide(sae), x)
        g = readout(at.sae, x, rng)
        radius = at.size * 10.0 ** rng.uniform(-4, 1)
        cell = self.cells(at.sae, ErrorBall(1.0, held="code"), (), x, x, "outer")
        found = self.solve(cell, g, radius)
        rays = at.free(np.vstack([g[None], rng.standard_normal((RAYS - 1, len(x)))]))
        rays = rays * np.where(rays @ g < 0, -1.0, 1.0)[:, None]
        ends = exits(at, np.zeros_like(x), rays, radius)
        starts = [found.delta, inside(cell, found.delta, radius, STEP_BACK), *(ends.good[:, None] * rays)]
        delta, value, tried = climb(at, lambda deltas: deltas @ g, np.stack(starts), radius, rng)
        best = Strongest()
        for equal, upper, claimed in self._claims(cell, g, radius, found, rng):
            extra = rounding_of(at, cell, g, delta, radius, equal, upper)
            best.offer(
                value,
                claimed + extra,
                lambda claimed=claimed: {"g": g, "radius": radius, "dual": claimed, "x": x, "delta": delta},
                tried,
            )
        return best.attempt()

    def _claims(
        self, cell: HeldCell, g: Array, radius: float, found: LinearOptimum, rng: np.random.Generator
    ) -> list[tuple[Array, Upper, float]]:
        """Multipliers with the bound that they are said to prove."""
        claims = [(found.equal, found.upper, found.dual)]
        for i in range(SHAKES):
            noise = 10.0 ** rng.uniform(-12, 0)
            equal = found.equal * (1.0 + noise * rng.standard_normal(len(found.equal)))
            upper = tuple((rows, np.abs(v * (1.0 + noise * rng.standard_normal(len(v))))) for rows, v in found.upper)
            if i == 0:  # the formula at the package's own multipliers
                equal, upper = found.equal, found.upper
            claims.append((equal, upper, self.dual(cell, g, radius, equal, upper)))
        return claims


def rounding_of(at: Place, cell: HeldCell, g: Array, delta: Array, radius: float, equal: Array, upper: Upper) -> float:
    """What rounding may add to the bound: kept features move by bands, and multipliers make them count.

    g . delta = mu . A delta + nu . B delta + rest . delta holds for any delta, so that what w_j . delta has beyond zero
    or the slack enters times its multiplier, and nothing else does.
    """
    bands = at.bands(delta[None])[0]
    size = lengths(at.sae).encoder
    extra, moved = 0.0, radius * norm(g)
    for row, weight in zip(cell.rows, np.abs(equal), strict=True):
        extra += weight * bands[row.feature]
        moved += weight * radius * size[row.feature]
    for half, (rows, weights) in zip(cell.half_spaces, upper, strict=True):
        features = half.named(rows)
        extra += float(weights @ bands[features])
        moved += float(weights @ (radius * size[features] + half.slack[rows]))
    return extra + gamma(len(g) + len(equal)) * moved
