"""Perturbations that keep an SAE's code because its encoder says so: the candidates for counter-examples.

Nothing of the package's cells is used: the directions are orthogonal to the active encoder columns by a factorisation
made here, and how far each may go is found by asking `encode`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.observe import KEPT, Observed, changed, kept, observe
from sae_verify.testing.rounding import Span, gamma, lengths, norm, norms, span

BISECTIONS = 44
"""Of the way out along a ray: the end is known to 2^-44 of the limit."""
CLIMBS, STEPS = 6, 8
"""Rounds of the local search, and steps tried in each."""


@dataclass(frozen=True, eq=False)
class Place:
    """One residual of an SAE in float64.

    Attributes:
        sae, x: the point, (d,). here: what the encoder says there.
        active: features that are on. held: the span of their encoder columns.
    """

    sae: SAE
    x: Array
    here: Observed
    active: np.ndarray
    held: Span

    @property
    def size(self) -> float:
        """||x||, or 1."""
        return norm(self.x) or 1.0

    def look(self, deltas: Array) -> Observed:
        """The encoder at x + delta, for (n, d)."""
        return observe(self.sae, self.x + deltas)

    def kept(self, deltas: Array) -> np.ndarray:
        """Which of (n, d) perturbations keep the code, (n,)."""
        return kept(self.here, self.look(deltas))

    def bands(self, deltas: Array) -> Array:
        """What rounding explains of w_j . delta at each perturbation that is kept, (n, m)."""
        after = self.look(deltas)
        return (KEPT * (self.here.band + after.band) + self.here.level + after.level) / self.here.scale

    def directions(self, rng: np.random.Generator, count: int) -> Array:
        """Unit vectors orthogonal to the active columns, (<= count, d)."""
        return self.free(rng.standard_normal((count, len(self.x))))

    def free(self, rows: Array) -> Array:
        """Unit vectors along the parts of (n, d) rows orthogonal to the active columns, (<= n, d)."""
        return unit(self.held.rest(rows), norms(rows))


def place(sae: SAE, x: Array) -> Place:
    """Look at a residual; raises UnsupportedError where the normalisation is not linear."""
    here = observe(sae, x[None])
    active = np.flatnonzero(here.on[0])
    return Place(sae, x, here, active, span(sae.W_enc.numpy().T[active]))


NOTHING = 1e-6
"""Relative length below which a projected direction is mostly rounding and is left out as a candidate."""


def unit(rows: Array, full: Array) -> Array:
    """Rows scaled to length 1; those shorter than NOTHING of their `full` length (n,) are left out."""
    size = norms(rows)
    there = size > NOTHING * full
    return rows[there] / size[there, None]


@dataclass(frozen=True, eq=False)
class Exit:
    """Where rays leave what is kept, n of them.

    Attributes:
        good: (n,) a length that is kept. bad: (n,) a length that is not; inf where the limit is kept.
        explained: (n,) by how much rounding may have ended each ray too early; inf where that cannot be told.
        feature: (n,) one that changes there, -1 for none.
    """

    good: Array
    bad: Array
    explained: Array
    feature: np.ndarray


def exits(at: Place, start: Array, rays: Array, limit: float) -> Exit:
    """How far the code is kept along rays.

    Args:
        at: the residual.
        start: (d,) perturbation where all rays begin; kept.
        rays: (n, d) unit vectors.
        limit: positive.
    """
    good, bad = np.zeros(len(rays)), np.full(len(rays), np.inf)
    length = np.full(len(rays), limit)
    for _ in range(BISECTIONS):
        inside = at.kept(start + length[:, None] * rays)
        good, bad = np.where(inside, length, good), np.where(inside, bad, length)
        if np.isinf(bad).all():
            break
        length = np.where(np.isinf(bad), limit, 0.5 * (good + bad))
    ended = np.isfinite(bad)
    explained, feature = np.zeros(len(rays)), np.full(len(rays), -1)
    if ended.any():
        deltas = start + bad[ended, None] * rays[ended]
        after = at.look(deltas)
        change = changed(at.here, after)
        speed = rays[ended] @ at.sae.W_enc.numpy()  # (n, m)
        band = (at.here.band + after.band + at.here.level + after.level) / at.here.scale
        noise = gamma(len(at.x)) * lengths(at.sae).encoder
        with np.errstate(divide="ignore", invalid="ignore"):
            early = np.where(np.abs(speed) > noise, band / (np.abs(speed) - noise), np.inf)
        early = np.where(change, early, np.inf)
        feature[ended] = early.argmin(axis=1)
        explained[ended] = KEPT * early.min(axis=1)
        # A jump of a feature that is on and at its own edge says nothing about the others.
        doubtful = (change & at.here.on & (at.here.edge <= band * at.here.scale * KEPT)).any(axis=1)
        explained[np.flatnonzero(ended)[doubtful]] = np.inf
    return Exit(good, bad, explained, feature)


def climb(
    at: Place, value: Callable[[Array], Array], starts: Array, radius: float, rng: np.random.Generator
) -> tuple[Array, float, int]:
    """Gradient-free search for the kept perturbation with the largest value.

    Args:
        at: the residual.
        value: of (n, d) perturbations, (n,).
        starts: (n, d), n may be 0; those that are not kept, or longer than the radius, are pulled towards zero.
        radius: largest length.
        rng: of the steps.

    Returns:
        The best perturbation (d,), its value, and how many were looked at. Zero is always among them.
    """
    best, top, tried = np.zeros_like(at.x), float(value(np.zeros((1, len(at.x))))[0]), 1
    for round_ in range(CLIMBS):
        if not len(starts):
            break
        found = pulled(at, starts, radius)
        values = value(found)
        tried += len(found)
        if values.max() > top:
            best, top = found[int(values.argmax())], float(values.max())
        spread = norm(best) * 4.0 ** -(round_ + 1) or radius * 4.0 ** -(round_ + 1)
        starts = best + spread * at.directions(rng, STEPS)
    return best, top, tried


PULLS = (1.0, 1.0 - 1e-12, 1.0 - 1e-9, 1.0 - 1e-6, 1.0 - 1e-3, 0.9, 0.5, 0.1, 1e-2, 1e-4, 1e-6)
"""Shares of a perturbation that are tried, the longest that is kept is taken."""


def pulled(at: Place, deltas: Array, radius: float) -> Array:
    """Perturbations (n, d) shortened until they are kept and within the radius; zero where none of PULLS is enough."""
    size = norms(deltas)
    deltas = deltas * np.minimum(1.0, radius / np.where(size > 0, size, np.inf))[:, None]
    result, open_ = np.zeros_like(deltas), np.arange(len(deltas))
    for share in PULLS:
        if not open_.size:
            break
        inside = at.kept(share * deltas[open_])
        result[open_[inside]] = share * deltas[open_[inside]]
        open_ = open_[~inside]
    return result
