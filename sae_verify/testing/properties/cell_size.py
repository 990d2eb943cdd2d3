"""cell-size: the inner radius is exact, the inscribed ball is inside, and the cell ends where it is said to end.

Rays are sent out until the encoder changes its mind: towards the nearest thresholds, from zero and from the ball's
centre, and in random directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from sae_verify.geometry.cell_recession import Recession, recession
from sae_verify.geometry.cell_size import InscribedBall, Thresholds, inner_radius, inscribed_ball, nearest_thresholds
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.admissible import Exit, Place, exits, place
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.held_cell import Cells
from sae_verify.testing.properties.observe import changed
from sae_verify.testing.rounding import gamma, lengths, norm, norms, wide

RAYS = 6
FAR = 30.0
"""Times ||x||: how far rays go where nothing is said about the cell's end."""
BEYOND = 2.0
"""Times the claimed outer radius: how far rays go to leave it."""
FACTORISED = 1e-6
"""Relative, outward: what the search may lose in the outer radius, which comes from a triangular factor with a
condition of up to 1e7 and has not been proven; `certify_cell_size` moves it outward before it is."""
BESIDE = 1e-9
"""Relative: columns of which less is left beside the active ones bind nothing, as the package's `SPAN` of 1e-10 says up
to the rounding of its own and of this factorisation."""
RESTS = 1e-9
"""Relative to a column's length: by how much one may rise along a direction without end. The search takes columns of
which 1e-10 is left beside the equalities for combinations of them, and its projections leave 1e-11; an exact direction
is near, and the checker proves that."""
TURNS = 1e-6
"""Relative: what is left of a normal beside the equalities is known to 1e-16 of the normal, and the search goes down to
1e-10 of it. Where the active columns are so nearly dependent that their span is known less well, nothing is judged."""


@dataclass(frozen=True)
class CellSizeProperty:
    """See the module.

    Attributes:
        cells, inner, nearest, ball, far: the code under test.
        ball_width, far_width: widths up to which `ball` and `far` are attacked: their cost grows with the third power,
            and at width 768 a ball takes half a minute and an end a few seconds.
    """

    cells: Cells = held_cell
    inner: Callable[[HeldCell], float] = inner_radius
    nearest: Callable[[HeldCell, int], Thresholds] = nearest_thresholds
    ball: Callable[[HeldCell, float], InscribedBall] = inscribed_ball
    far: Callable[[HeldCell], Recession] = recession
    ball_width: int = 256
    far_width: int = 1024
    name: str = "cell-size"
    statement: str = (
        "within the inner radius the code is kept, at its nearest threshold it is not, and cells end as said"
    )
    reads: str = "a length claimed, against where the encoder changes its mind"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The whole code held at x."""
        at, best = place(wide(sae), x), Strongest()
        cell = self.cells(at.sae, ErrorBall(1.0, held="code"), (), x, x, "outer")
        zero = np.zeros_like(x)
        if at.held.rounding > TURNS:
            return best.attempt("active encoder columns are too close to dependent to be judged in floats")
        self._inner(at, cell, zero, best, rng)
        if len(x) <= self.ball_width and rng.random() < 0.5:
            self._ball(at, cell, best, rng)
        elif len(x) <= self.far_width:
            self._end(at, cell, zero, best, rng)
        return best.attempt("no direction is free, or nothing is ever off")

    def _inner(self, at: Place, cell: HeldCell, zero: Array, best: Strongest, rng: np.random.Generator) -> None:
        radius, near = self.inner(cell), self.nearest(cell, RAYS)
        rays = at.directions(rng, RAYS)
        towards = at.free(near.direction) if near.direction is not None and len(near) else rays[:0]
        rays = np.vstack([towards, rays])
        if not len(rays):
            return
        limit = max(2.0 * radius, FAR * at.size) if np.isfinite(radius) else FAR * at.size
        ends = exits(at, zero, rays, limit)
        claimed = min(radius, limit)
        _reaches(at, best, ends, rays, claimed, zero, "inner radius")
        if len(towards) and near.direction is not None and towards[0] @ near.direction[0] > 1.0 - TURNS:
            aim = at.free(near.direction[:1])  # the theorem is an iff: the nearest threshold ends the ray
            end = exits(at, zero, aim, limit)
            feature = int(near.feature[0])
            slow = lengths(at.sae).encoder[feature] * gamma(len(zero))
            speed = abs(float(aim[0] @ at.sae.W_enc.numpy()[:, feature])) - slow
            band = float(at.bands(end.good[:1, None] * aim)[0, feature])
            late = band / speed if speed > 0 else np.inf
            allowed = float(near.distance[0]) * (1.0 + TURNS) + late
            best.offer(
                float(end.good[0]),
                allowed,
                lambda: {"claim": "nearest threshold", "feature": feature, "delta": end.good[0] * aim[0], "x": at.x},
            )

    def _ball(self, at: Place, cell: HeldCell, best: Strongest, rng: np.random.Generator) -> None:
        inner = self.inner(cell)
        found = self.ball(cell, 10.0 * max(at.size, inner if np.isfinite(inner) else 0.0))
        centre = at.held.rest(found.centre)
        if norm(centre - found.centre) > TURNS * norm(found.centre) or not at.kept(centre[None])[0]:
            if norm(centre) and found.radius > 0:
                _centre(at, best, centre, found.radius)
            return
        columns = at.sae.W_enc.numpy().T[np.argsort(_gaps(at, centre))[:RAYS]]
        rays = np.vstack([at.free(columns), at.directions(rng, RAYS)])
        if len(rays):
            limit = min(2.0 * found.radius, FAR * at.size) or FAR * at.size
            ends = exits(at, centre, rays, limit)
            _reaches(at, best, ends, rays, min(found.radius, limit), centre, "inscribed ball")

    def _end(self, at: Place, cell: HeldCell, zero: Array, best: Strongest, rng: np.random.Generator) -> None:
        found = self.far(cell)
        if found.verdict == "bounded":
            rays, radius = at.directions(rng, 2 * RAYS), found.radius
            if radius is None or not len(rays):
                return
            ends = exits(at, zero, rays, BEYOND * radius + FAR * at.size)
            k = int(ends.good.argmax())
            length, delta = float(ends.good[k]), ends.good[k] * rays[k]
            if length > radius:  # perhaps because slacks are only known so well, that far out
                relaxed = self.far(_relaxed(cell, at.bands(delta[None])[0]))
                radius = np.inf if relaxed.radius is None else max(relaxed.radius, radius)
            allowed = radius * (1.0 + FACTORISED) + gamma(len(zero)) * at.size
            best.offer(length, allowed, lambda: {"claim": "outer radius", "delta": delta, "x": at.x}, len(rays))
        elif found.verdict == "unbounded" and found.direction is not None:
            _endless(at, found.direction, best)


def _reaches(at: Place, best: Strongest, ends: Exit, rays: Array, claimed: float, start: Array, claim: str) -> None:
    """Every ray is kept up to the claimed length."""
    ended = np.isfinite(ends.bad)
    if not ended.any():
        best.offer(0.0, claimed, lambda: {"claim": claim, "x": at.x}, len(rays))
        return
    allowed = np.where(ended, ends.bad * (1.0 + TURNS) + ends.explained, np.inf)
    k = int(allowed.argmin())
    best.offer(
        claimed,
        float(allowed[k]),
        lambda: {
            "claim": claim,
            "claimed_length": claimed,
            "feature": int(ends.feature[k]),
            "delta": start + ends.bad[k] * rays[k],
            "x": at.x,
        },
        len(rays),
    )


def _centre(at: Place, best: Strongest, centre: Array, radius: float) -> None:
    """A centre that is not kept: the features that change have the whole radius as room, or so it is claimed."""
    after = at.look(centre[None])
    features = np.flatnonzero(changed(at.here, after)[0] & ~at.here.on[0])
    if not features.size:
        return
    free = norms(at.held.rest(at.sae.W_enc.numpy().T[features]))
    free = np.where(free > BESIDE * lengths(at.sae).encoder[features], free, 0.0)
    band = at.bands(centre[None])[0][features]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(free > 0, radius * free / np.where(band > 0, band, 1.0), 0.0)
    k = int(ratio.argmax())
    best.offer(
        float(radius * free[k]),
        float(band[k]),
        lambda: {"claim": "centre of the inscribed ball", "feature": int(features[k]), "delta": centre, "x": at.x},
        len(features),
    )


def _gaps(at: Place, delta: Array) -> Array:
    """About how far the pre-activation of each feature that is off is below its switch, for each unit of length."""
    sae, size = at.sae, lengths(at.sae).encoder
    slack = sae.slack(torch.from_numpy(at.x + delta)).numpy()
    return np.where(at.here.on[0] | (size == 0), np.inf, slack / np.where(size > 0, size, 1.0))


def _relaxed(cell: HeldCell, bands: Array) -> HeldCell:
    """The cell with every slack enlarged by what rounding explains, (m,)."""
    families = []
    for half in cell.half_spaces:
        more = bands[half.named(np.arange(len(half.slack)))]
        families.append(replace(half, slack=half.slack + more))
    return HeldCell(cell.width, cell.equal, cell.rows, tuple(families))


def _endless(at: Place, direction: Array, best: Strongest) -> None:
    """No feature turns on however far the direction goes: none that is off rises, and those that are on rest."""
    rise = direction @ at.sae.W_enc.numpy()
    rise = np.where(at.here.on[0], np.abs(rise), rise)
    size = lengths(at.sae).encoder
    deltas = direction * (at.size * np.array([1.0, 1e3, 1e6]))[:, None]
    after = at.look(deltas)
    flipped = changed(at.here, after).any(axis=0) & (size > 0)
    best.tried += len(deltas)
    if flipped.any():
        ratio = np.where(flipped, rise / np.where(size > 0, size, 1.0), -np.inf)
        k = int(ratio.argmax())
        band = float(at.bands(deltas[-1:])[0, k]) / norm(deltas[-1])
        best.offer(
            float(rise[k]),
            RESTS * float(size[k]) + band,
            lambda: {"claim": "direction without end", "feature": k, "delta": direction, "x": at.x},
        )
