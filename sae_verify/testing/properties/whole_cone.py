"""whole-cone: non-negative codes reach everything within the sum that is claimed, or miss what they are said to miss.

If every vector of length 1 is f W with f >= 0 and sum(f) <= t, then in every direction y of length 1 some row has
d_j . y >= 1 / t. The attack looks for the direction in which the rows have least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.whole_cone import WholeCone, whole_cone
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.cone_membership import improved
from sae_verify.testing.rounding import gamma, norm, norms, wide

FEATURES = 2048
"""Rows of the decoder, at most."""
STARTS, STEPS = 4, 150
"""Directions from which the search starts, and its steps."""


@dataclass(frozen=True)
class WholeConeProperty:
    """See the module.

    Attributes:
        decide: the code under test.
    """

    decide: Callable[[Array], WholeCone] = whole_cone
    name: str = "whole-cone"
    statement: str = "non-negative codes reach every vector within the claimed sum, or stay as far away as claimed"
    reads: str = "a claimed reach or distance, against the direction or the code that does worst"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Some decoder rows; the residual is one of the directions."""
        sae, best = wide(sae), Strongest()
        most = min(sae.d_sae, FEATURES)
        count = most if rng.random() < 0.5 else int(rng.integers(1, most + 1))
        some = np.sort(rng.choice(sae.d_sae, count, replace=False))
        rows = np.ascontiguousarray(sae.W_dec.numpy()[some])
        if rng.random() < 0.3:  # a cone that is not everything: no row rises along the first coordinate
            rows[:, 0] = -np.abs(rows[:, 0])
        try:
            found = self.decide(rows)
        except InputError as error:
            return best.attempt(str(error))
        if found.whole:
            self._everything(best, rows, found, x, some, rng)
        elif found.separated is not None and found.separated.separation is not None:
            claim, target = found.separated.separation, found.separated.question.x
            code = improved(rows, target, np.zeros(len(rows)), None, claim.total)
            lost = gamma(len(rows) + len(x)) * (norm(target) + float(code @ norms(rows)))
            best.offer(
                claim.distance,
                norm(target - code @ rows) + lost,
                lambda: {"claim": "not reached", "features": some, "x": target, "code": code},
            )
        return best.attempt("floats cannot tell whether these rows reach everything")

    def _everything(
        self, best: Strongest, rows: Array, found: WholeCone, x: Array, some: np.ndarray, rng: np.random.Generator
    ) -> None:
        d = rows.shape[1]
        starts = rng.standard_normal((STARTS, d))
        starts[0] = -rows.sum(axis=0)
        if norm(x):
            starts[1] = x
        starts[2] = np.eye(d)[0]
        size = float(norms(rows).max())
        for start in starts[norms(starts) > 0]:
            y, reached = worst_direction(rows, start)
            lost = gamma(d) * size
            claimed = 0.0 if found.total is None else 1.0 / found.total
            # "Everything is reached" alone says that some row rises along y, however little.
            beyond = max(claimed, -reached)
            best.offer(
                beyond,
                max(reached, 0.0) + lost,
                lambda y=y: {"claim": "everything is reached", "features": some, "direction": y, "total": found.total},
                STEPS,
            )


def worst_direction(rows: Array, y: Array) -> tuple[Array, float]:
    """A unit vector along which the rows have little: descent of the smoothed maximum of d_j . y from a y != 0."""
    y = y / norm(y)
    best, least = y, float((rows @ y).max())
    for step in range(STEPS):
        rise = rows @ y
        top = float(rise.max())
        if top < least:
            best, least = y, top
        spread = 0.3 * (abs(top) + 1e-3 * float(np.abs(rise).max())) * 0.97**step or 1.0
        weight = np.exp((rise - top) / spread)
        slope = weight @ rows / weight.sum()
        slope = slope - (slope @ y) * y
        length = norm(slope)
        if not length > 0:
            break
        y = y - slope / length * (0.5 * 0.96**step)  # at least 1 long, as the slope is tangential
        y = y / norm(y)
    return best, least
