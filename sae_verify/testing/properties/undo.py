"""undo: delta = x - h takes a clamp back exactly, and a held cell allows no better than the package says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.clamp_effect import ClampEffect, Undo, clamp_effect, undo
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import Clamp, ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.sae.normalization import Identity, InputScale
from sae_verify.testing.inputs import clamp
from sae_verify.testing.properties.admissible import Place, climb, place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.clamping import shown
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.properties.linear_dual import rounding_of
from sae_verify.testing.rounding import TINY, U, norm, norms, wide

PROJECTED = 1e-9
"""Relative to the clamp's effect: the projection is a search in floats that follows faces with violations of 1e-12 and
factors with a condition of up to 1e10; what it says is not proven, and this is what it may be off."""


@dataclass(frozen=True)
class UndoProperty:
    """See the module.

    Attributes:
        effect, back, cells: the code under test.
    """

    effect: Callable[[SAE, Clamp, Array], ClampEffect] = clamp_effect
    back: Callable[[HeldCell, Array], Undo] = undo
    cells: Cells = held_cell
    name: str = "undo"
    statement: str = "adding x - h takes a clamp back; with the code held, nothing comes nearer to that than said"
    reads: str = "what is left of the clamp, against what is said to be left"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """A clamp at x, with nothing held and with the code held at x."""
        sae, best = wide(sae), Strongest()
        setting = clamp(sae, x, rng)
        found = self.effect(sae, setting, x)
        if not np.isfinite(found.h).all():
            return best.attempt("the SAE gives no finite code at this residual")
        free = self.back(HeldCell(len(x), np.zeros((0, len(x))), (), ()), found.effect)
        rounding = 4.0 * U * (norm(x) + norm(found.h)) + TINY
        again = norm(found.h + free.delta - x)
        best.offer(again, rounding, lambda: shown(setting, x) | {"claim": "h + delta = x"})
        best.offer(norm(free.remaining), rounding, lambda: shown(setting, x) | {"claim": "nothing is left"})
        if found.norm > 0 and isinstance(sae.normalization, (Identity, InputScale)):
            self._nearest(best, place(sae, x), found.effect, setting, rng)
        return best.attempt()

    def _nearest(self, best: Strongest, at: Place, effect: Array, setting: Clamp, rng: np.random.Generator) -> None:
        """No kept perturbation comes nearer to cancelling the clamp than the one that is said to be nearest.

        With v = -effect - nearest, everything admissible has v . delta <= v . nearest. What rounding adds to that is
        found with the multipliers of the linear worst case along v.
        """
        size, cell = norm(effect), self.cells(at.sae, ErrorBall(1.0, held="code"), (), at.x, at.x, "outer")
        back = self.back(cell, effect)
        starts = np.stack([back.nearest, at.held.rest(-effect), -effect])
        delta, value, tried = climb(at, lambda deltas: -norms(effect + deltas), starts, size, rng)
        v = -effect - back.nearest
        claimed, lost = norm(v), PROJECTED * size
        if claimed > lost:
            dual = worst_case(cell, v, size)
            lost += rounding_of(at, cell, v, delta, size, dual.equal, dual.upper) / claimed
        best.offer(
            claimed,
            lost - value,
            lambda: shown(setting, at.x) | {"claim": "nearest admissible", "delta": delta},
            tried,
        )
