"""first-order-closure: what is left of a readout when more features are held, and how few may close it.

The attack projects the readout by a factorisation of its own, off everything that is said to be held, and sees whether
the readout moves further than is said to be possible; and it looks for a smaller set than is said to exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.closing import CLOSED, ClosingSet, Closure, closes, closing_set
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.testing.inputs import readout
from sae_verify.testing.properties.admissible import place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.rounding import gamma, norm, norms, span, wide

SINGLES, PAIRS = 16, 32
"""Smaller sets that are tried against a claim of how few are needed."""
BESIDE = 1e-9
"""Relative: a row of which less is left beside the others adds no direction, as the package documents. Sets with such
rows are not judged."""


@dataclass(frozen=True)
class FirstOrderClosureProperty:
    """See the module.

    Attributes:
        cells, one, smallest: the code under test.
        candidates: encoder columns that a closing set is searched among.
    """

    cells: Cells = held_cell
    one: Callable[[HeldCell, Array, Array, list[int]], Closure] = closes
    smallest: Callable[[HeldCell, Array, Array, int], ClosingSet] = closing_set
    candidates: int = 512
    name: str = "first-order-closure"
    statement: str = "with further features held, the readout moves by exactly the share that is said to be left"
    reads: str = "readout change a unit of length, against what is said to be left"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The whole code held at x, and more pre-activations with it."""
        at, best = place(wide(sae), x), Strongest()
        g = readout(at.sae, x, rng)
        cell = self.cells(at.sae, ErrorBall(1.0, held="code"), (), x, x, "outer")
        count = min(at.sae.d_sae, self.candidates)
        names = np.sort(rng.choice(at.sae.d_sae, count, replace=False))
        rows = np.ascontiguousarray(at.sae.W_enc.numpy().T[names])
        held = at.sae.W_enc.numpy().T[at.active]
        few = rng.choice(count, min(count, int(rng.integers(1, 6))), replace=False)
        if rng.random() < 0.5:  # a readout that the rows close
            g = rng.standard_normal(len(few)) @ _unit(rows[few])
            g = g + (rng.standard_normal(len(held)) @ _unit(held) if len(held) else 0.0)
        found = self.one(cell, g, rows, [int(j) for j in few])
        self._left(best, held, rows[few], g, found.reach, {"x": x, "features": names[few]})
        at_most = int(rng.integers(1, 4))
        chosen = self.smallest(cell, g, rows, at_most)
        self._left(
            best,
            held,
            rows[chosen.features],
            g,
            float(chosen.shares[-1]) * norm(span(held).rest(g)),
            {"x": x, "features": names[chosen.features]},
        )
        self._fewer(best, held, rows, g, chosen, {"x": x}, rng)
        return best.attempt()

    def _left(
        self, best: Strongest, held: Array, rows: Array, g: Array, claimed: float, more: dict[str, object]
    ) -> None:
        """A perturbation that keeps all of these rows moves the readout by no more than is claimed."""
        together = span(np.concatenate([held, rows]))
        rest = together.rest(g)
        size, whole = norm(rest), norm(g)  # along the rest, the readout moves by its length
        allowed = claimed + (together.rounding + span(held).rounding + BESIDE) * whole
        best.offer(size, allowed, lambda: {"g": g, "delta": rest, **more})

    def _fewer(
        self,
        best: Strongest,
        held: Array,
        rows: Array,
        g: Array,
        chosen: ClosingSet,
        more: dict[str, object],
        rng: np.random.Generator,
    ) -> None:
        """No smaller set leaves as little as counts as closed."""
        base = span(held)
        free, whole = base.rest(g), norm(base.rest(g))
        if chosen.at_least < 1 or not whole > BESIDE * norm(g):
            return
        units = base.rest(rows)
        size = norms(units)
        usable = np.flatnonzero(size > 1e-3 * norms(rows))  # clearly beside what is held
        aim = np.abs(units[usable] @ free) / np.where(size[usable] > 0, size[usable], 1.0)
        top = usable[np.argsort(-aim)[:SINGLES]]
        sets: list[list[int]] = [[]]
        sets += [[int(j)] for j in top] if chosen.at_least >= 2 else []
        if chosen.at_least >= 3 and len(usable) > 1:
            sets += [[int(j) for j in rng.choice(usable, 2, replace=False)] for _ in range(PAIRS)]
            sets += [[int(top[0]), int(j)] for j in top[1:]]
        for some in sets:
            both = span(np.concatenate([held, rows[some]]))
            left = norm(both.rest(g)) / whole
            allowed = left + (both.rounding + base.rounding + gamma(len(g))) * norm(g) / whole
            best.offer(CLOSED, allowed, lambda some=some: {"g": g, "closed_by": some, **more})


def _unit(rows: Array) -> Array:
    size = norms(rows)
    return rows / np.where(size > 0, size, 1.0)[:, None]
