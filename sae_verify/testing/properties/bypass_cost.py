"""bypass-cost: with equalities alone a readout moves iff it leaves their row space, and then by r ||P g|| exactly.

The attack projects the readout by a factorisation of its own and asks the encoder: whether the package's bypass really
leaves what is on alone, and how far the code is kept along P g, which `free_until` says exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.curve import free_until
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.testing.inputs import readout
from sae_verify.testing.properties.admissible import NOTHING, Place, exits, place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.cell_size import FAR, TURNS
from sae_verify.testing.properties.exact import exact_rank
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.properties.linear_dual import Solve
from sae_verify.testing.properties.observe import KEPT
from sae_verify.testing.properties.rows import WIDTH
from sae_verify.testing.rounding import gamma, lengths, norm, wide


def numerical_rank(cell: HeldCell) -> int:
    """The package's count of dimensions that the equalities take away."""
    return cell.rank


@dataclass(frozen=True)
class BypassCostProperty:
    """See the module.

    Attributes:
        cells, rank, free, solve, until: the code under test.
    """

    cells: Cells = held_cell
    rank: Callable[[HeldCell], int] = numerical_rank
    free: Callable[[HeldCell, Array], Array] = HeldCell.free_part
    solve: Solve = worst_case
    until: Callable[[HeldCell, Array], float] = free_until
    name: str = "bypass-cost"
    statement: str = (
        "a bypass exists iff the equalities leave a dimension; the most it does is r ||P g||, which it does"
    )
    reads: str = (
        "readout change claimed or reached, against the other; and where the encoder changes its mind along P g"
    )

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The pre-activations of all features on at x held, a readout and a radius of any size."""
        at, best = place(wide(sae), x), Strongest()
        if at.held.rounding > TURNS:
            return best.attempt("active encoder columns are too close to dependent to be judged in floats")
        cell = self.cells(at.sae, ErrorBall(1.0, held="code"), (), x, x, "outer")
        g = readout(at.sae, x, rng)
        radius = at.size * 10.0 ** rng.uniform(-4, 1)
        self._exists(best, at, cell)
        self._most(best, at, cell, g, radius)
        self._until(best, at, cell, g)
        return best.attempt()

    def _exists(self, best: Strongest, at: Place, cell: HeldCell) -> None:
        """(a): no more dimensions are said to be taken away than the columns have over the rationals."""
        columns = at.sae.W_enc.numpy().T[at.active]
        exact = exact_rank(columns) if cell.width <= WIDTH else at.held.basis.shape[1]
        best.offer(2.0 * (self.rank(cell) - exact), 1.0, lambda: {"claim": "no bypass", "rows": columns, "x": at.x})

    def _most(self, best: Strongest, at: Place, cell: HeldCell, g: Array, radius: float) -> None:
        """(b) to (d): ||P g|| from both sides, the same of the worst case, and what it does to the encoder."""
        rest = at.held.rest(g)
        size, lost = norm(rest), (at.held.rounding + gamma(len(g))) * norm(g)
        shown = {"g": g, "radius": radius, "x": at.x}
        bare = HeldCell(cell.width, cell.equal, cell.rows, ())
        found = self.solve(bare, g, radius)
        bypass = self.free(cell, g)
        for claim, least, most in (
            ("||P g||", norm(bypass), norm(bypass)),
            ("worst case", found.value / radius, found.dual / radius),
        ):
            best.offer(least, size + lost, lambda claim=claim: shown | {"claim": f"{claim} is attained"})
            best.offer(size, most + lost, lambda claim=claim: shown | {"claim": f"{claim} bounds", "delta": rest})
        if norm(bypass) > NOTHING * norm(g):
            self._unseen(best, at, bypass * (radius / norm(bypass)))

    def _unseen(self, best: Strongest, at: Place, delta: Array) -> None:
        """What is on does not move; what rounding adds is the encoder's and that of the projection."""
        if not at.active.size:
            return
        after = at.look(delta[None])
        moved = np.abs(after.affine - at.here.affine)[0, at.active]
        turned = (at.held.rounding + gamma(len(delta))) / NOTHING
        own = at.here.scale * turned * norm(delta) * lengths(at.sae).encoder[at.active]
        allowed = (KEPT * (at.here.band + after.band))[0, at.active] + own
        k = int((moved / allowed).argmax())
        best.offer(
            float(moved[k]),
            float(allowed[k]),
            lambda: {"claim": "unseen", "feature": int(at.active[k]), "delta": delta, "x": at.x},
            len(moved),
        )

    def _until(self, best: Strongest, at: Place, cell: HeldCell, g: Array) -> None:
        """With half-spaces, r ||P g|| holds as far as the code is kept along P g, and no further.

        The package's ray and this one differ by a `turn`, and so do the speeds at which features rise along them.
        """
        rays = at.free(g[None])
        if not len(rays):
            return
        claimed = self.until(cell, g)
        limit = max(2.0 * claimed, FAR * at.size) if np.isfinite(claimed) else FAR * at.size
        end = exits(at, np.zeros_like(at.x), rays, limit)
        turn = (at.held.rounding + gamma(len(g))) * norm(g) / norm(at.held.rest(g))
        speed = rays[0] @ at.sae.W_enc.numpy()
        unsure = turn * lengths(at.sae).encoder
        good, bad, first = float(end.good[0]), float(end.bad[0]), int(end.feature[0])
        shown = {"g": g, "until": claimed, "x": at.x}
        if np.isfinite(bad):
            clear = abs(float(speed[first])) - unsure[first]
            late = bad * abs(float(speed[first])) / clear if clear > 0 else np.inf
            best.offer(
                min(claimed, limit),
                late + float(end.explained[0]),
                lambda: shown | {"claim": "kept until", "feature": first, "delta": bad * rays[0]},
            )
        soonest, binding = np.inf, -1
        for half in cell.half_spaces:
            names = half.named(np.arange(len(half.slack)))
            rise = half.sign * (half.normals @ rays[0]) + unsure[names]
            reach = np.where(rise > 0, half.slack / np.where(rise > 0, rise, 1.0), np.inf)
            if reach.size and reach.min() < soonest:
                soonest, binding = float(reach.min()), int(names[reach.argmin()])
        clear = float(abs(speed[binding]) - unsure[binding]) if binding >= 0 else 0.0
        if clear > 0:
            band = float(at.bands(good * rays)[0, binding])
            allowed = claimed * (clear + 2.0 * unsure[binding]) / clear + band / clear
            best.offer(
                good,
                allowed,
                lambda: shown | {"claim": "not beyond", "feature": binding, "delta": good * rays[0]},
            )
