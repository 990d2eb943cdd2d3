"""held-cell: what is held is exactly the polyhedron that the package builds.

Perturbations are put just inside and just outside of single half-spaces and of corners, along the equalities, and at
random at all lengths; the encoder says which features changed, the cell says which it expects to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.held_cell import Array, HeldCell, Side, held_cell
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.sae.topk import TopKSAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.observe import KEPT, Observed, changed, observe, surely_on
from sae_verify.testing.rounding import gamma, norm, norms, wide

Cells = Callable[[SAE, ErrorBall, tuple[int, ...], Array, Array, Side], HeldCell]

FACETS, CORNERS, RANDOM = 8, 4, 12
"""Candidates of each kind in one attempt."""
STEP = 3.0
"""Bands by which a candidate is put inside and outside of a half-space: clear of rounding, and as near as that allows.
It moves candidates and excuses nothing."""
ALONG = 1e-6
"""Relative length of what the equalities leave of a half-space's normal, below which it is not aimed at: the way to it
would be so long that rounding is all that could be seen."""


@dataclass(frozen=True)
class HeldCellProperty:
    """See the module.

    Attributes:
        cells: the code under test.
    """

    cells: Cells = held_cell
    name: str = "held-cell"
    statement: str = "a perturbation keeps the held features' values iff it lies in the held cell"
    reads: str = "disagreement between cell and encoder, in units of what rounding explains"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The whole code or some features held, at x."""
        sae = wide(sae)
        count = int(rng.integers(1, min(sae.d_sae, 6) + 1))
        chosen = tuple(sorted(int(j) for j in rng.choice(sae.d_sae, count, replace=False)))
        before = observe(sae, x[None])
        active = np.flatnonzero(before.on[0])
        if active.size and rng.random() < 0.5:  # a defended feature that is on, so that there is something to keep
            chosen = tuple(sorted({*chosen[1:], int(rng.choice(active))}))
        whole = rng.random() < 0.7
        threat = ErrorBall(1.0, held="code") if whole else ErrorBall(1.0, held="defended", features=chosen)
        held = np.ones(sae.d_sae, dtype=bool)
        if not whole:
            held[:] = False
            held[list(chosen)] = True
        side: Side = "outer" if whole or rng.random() < 0.5 else "inner"
        cell = self.cells(sae, threat, chosen, x, x, side)
        deltas = candidates(cell, before, x, rng)
        after = observe(sae, x + deltas)
        best = Strongest()
        view = _View(cell, before, after, deltas, held, x, best)
        if not isinstance(sae, TopKSAE):
            view.each_feature()
        elif whole:
            view.the_whole_code()
        elif side == "outer":
            view.what_is_kept_is_inside()
        else:
            view.what_is_inside_is_kept()
        return best.attempt()


def candidates(cell: HeldCell, before: Observed, x: Array, rng: np.random.Generator) -> Array:
    """Perturbations where a wrong cell shows, (n, d); zero among them."""
    d = cell.width
    size = norm(x) or 1.0
    found = [np.zeros(d)]
    raw = rng.standard_normal((RANDOM, d))
    raw[RANDOM // 2 :] = cell.free_part(raw[RANDOM // 2 :])
    found += list(raw * (size * 10.0 ** rng.uniform(-8, 1, (RANDOM, 1)) / np.sqrt(d)))
    found.append(raw[-1] * 1e6 * size / np.sqrt(d))
    for row in cell.equal[rng.permutation(len(cell.equal))[:FACETS]]:
        length = norm(row)
        if length > 0:
            found += [row / length * step for step in (1e-6 * size, -0.1 * size)]
    for half in cell.half_spaces:
        found += _at_half_spaces(cell, half.sign, half.normals, half.slack, before, size, rng)
    return np.stack(found)


def _at_half_spaces(
    cell: HeldCell, sign: float, normals: Array, slack: Array, before: Observed, size: float, rng: np.random.Generator
) -> list[Array]:
    """Just inside and just outside of half-spaces and of corners."""
    finite = np.flatnonzero(np.isfinite(slack))
    if not finite.size:
        return []
    length = norms(normals[finite])
    near = finite[np.argsort(slack[finite] / np.where(length > 0, length, np.inf), kind="stable")]
    spread = finite[rng.permutation(len(finite))]
    chosen = np.unique(np.concatenate([near[: FACETS // 2], spread[: FACETS // 2], near[slack[near] == 0][:2]]))
    rows = cell.free_part(sign * normals[chosen])
    found = []
    for j, row in zip(chosen, rows, strict=True):
        square = float(row @ row)
        if not np.sqrt(square) > ALONG * norm(normals[j]):
            continue
        step = STEP * _band(before, int(j), size, float(slack[j] / np.sqrt(square)), norm(normals[j]))
        found += [row * ((slack[j] + side * step) / square) for side in (-1.0, 1.0)]
    usable = chosen[norms(rows) > ALONG * norms(normals[chosen])]
    for _ in range(CORNERS if usable.size > 1 else 0):
        few = rng.permutation(usable)[: rng.integers(2, min(len(usable), 4) + 1)]
        corner = cell.free_part(sign * normals[few])
        unit = norms(corner)
        step = np.array([_band(before, int(j), size, size, norm(normals[j])) for j in few]) * STEP
        aim = (slack[few] + rng.choice([-1.0, 1.0], len(few)) * step) / unit
        found.append(np.linalg.lstsq(corner / unit[:, None], aim, rcond=1e-12)[0])
    return found


def _band(before: Observed, j: int, size: float, distance: float, length: float) -> float:
    """About the rounding of w_j . delta against a slack, for a delta of this length; a place to aim at, no more."""
    return (2.0 * (before.band + before.level)[0, j] + gamma(16) * length * (size + distance)) / before.scale


@dataclass(frozen=True, eq=False)
class _View:
    """One cell, what the encoder showed, and the comparisons. B perturbations, m features."""

    cell: HeldCell
    before: Observed
    after: Observed
    deltas: Array
    held: np.ndarray
    x: Array
    best: Strongest

    @property
    def _bands(self) -> Array:
        """Rounding of pre-activations, (B, m), in units of w_j . delta."""
        return (self.before.band + self.after.band) / self.before.scale

    @property
    def _levels(self) -> Array:
        """Rounding of what a TopK SAE compares them with, likewise."""
        return (self.before.level + self.after.level) / self.before.scale

    def _moved(self, rows: Array) -> tuple[Array, Array]:
        """w . delta (B, n), and its own rounding."""
        return self.deltas @ rows.T, gamma(rows.shape[1]) * norms(self.deltas)[:, None] * norms(rows)

    def _offer(self, found: Array, allowed: Array, features: np.ndarray, **more: Array) -> None:
        """The strongest of (B, n) candidates."""
        if not found.size:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(found > 0, found / allowed, 0.0)
        b, k = np.unravel_index(int(np.argmax(np.where(np.isnan(ratio), np.inf, ratio))), found.shape)
        self.best.offer(
            float(found[b, k]),
            float(allowed[b, k]),
            lambda: {
                "feature": int(features[k]),
                "code_before": float(self.before.code[0, features[k]]),
                "code_after": float(self.after.code[b, features[k]]),
                **{name: float(value[b, k]) for name, value in more.items()},
                "x": self.x,
                "delta": self.deltas[b],
            },
            found.size,
        )

    def _off(self) -> tuple[np.ndarray, Array, Array]:
        """Features that are off and held (n,), by how much each delta is outside (B, n), and the rounding of that."""
        names, outside, lost = [], [], []
        for half in self.cell.half_spaces:
            features = half.named(np.arange(len(half.slack)))
            mine = np.flatnonzero(self.held[features] & ~self.before.on[0, features])
            moved, rounding = self._moved(half.normals[mine])
            room = half.slack[mine]
            names.append(features[mine])
            outside.append(half.sign * moved - room)
            own = np.where(np.isfinite(room), gamma(1) * np.abs(room), 0.0)
            lost.append(rounding + (self._bands + self._levels)[:, features[mine]] + own)
        if not names:
            empty = np.zeros((len(self.deltas), 0))
            return np.zeros(0, dtype=np.intp), empty, empty
        return np.concatenate(names), np.concatenate(outside, axis=1), np.concatenate(lost, axis=1)

    def _on(self) -> tuple[np.ndarray, Array, Array]:
        """Features of the equalities (n,), |w . delta| (B, n) by the cell's rows, and its rounding."""
        features = np.array([row.feature for row in self.cell.rows], dtype=np.intp)
        moved, rounding = self._moved(self.cell.equal)
        return features, np.abs(moved), rounding + self._bands[:, features]

    def each_feature(self) -> None:
        """(a): an off feature stays off iff it is inside; one that is on keeps its value iff it does not move."""
        features, outside, lost = self._off()
        turned_on = self.after.on[:, features]
        wrong = np.where(turned_on, -outside, outside)  # on although inside, off although outside
        self._offer(wrong, lost, features, outside_by=outside)
        features, moved, lost = self._on()
        unit, scale = self.before.unit[features], self.before.scale
        change = np.abs(self.after.code[:, features] - self.before.code[:, features])
        jumps = self.before.edge[:, features] <= scale * (moved + lost)
        beyond = np.where(jumps, 0.0, change - unit * scale * moved)
        self._offer(beyond, KEPT * unit * scale * lost, features, moved_by=moved)
        self._offer(np.where(change == 0, moved, 0.0), KEPT * lost, features, moved_by=moved)
        missing = np.setdiff1d(np.flatnonzero(self.held & self.before.on[0]), features)
        if missing.size:  # nothing is claimed to hold them, so nothing may be needed to
            change = np.abs(self.after.code[:, missing] - self.before.code[:, missing])
            bands = self._bands[:, missing] * self.before.unit[missing] * scale
            sure = np.where(self.before.edge[:, missing] <= bands, 0.0, change)
            self._offer(sure, KEPT * bands, missing)

    def _still(self) -> np.ndarray:
        """Perturbations that obey the equalities up to rounding, (B,) bool."""
        features, moved, _ = self._on()
        return np.asarray((moved <= self._bands[:, features]).all(axis=1))

    def the_whole_code(self) -> None:
        """(b) for TopK: clearly inside means kept, clearly outside means changed."""
        features, outside, lost = self._off()
        on, moved, lost_on = self._on()
        still, sure = self._still()[:, None], surely_on(self.before, self.after)[:, on]
        change = changed(self.before, self.after)
        same = ~change.any(axis=1, keepdims=True)
        # Outside, and yet the same code: as far outside as rounding explains, at most.
        self._offer(np.where(same & still, outside, 0.0), KEPT * lost, features, outside_by=outside)
        self._offer(np.where(same & sure, moved, 0.0), KEPT * lost_on, on, moved_by=moved)
        # Another code although everything is inside: then something is nearly outside.
        depth = np.where(still & ~same, -outside / np.where(lost > 0, lost, 1.0), 0.0)
        least = depth.min(axis=1, keepdims=True, initial=np.inf)
        least = np.where(np.isfinite(least), least, np.where(still & ~same, np.inf, 0.0))
        which = np.argmax(change, axis=1)[:1] if not features.size else features[:1]
        self._offer(least, np.full_like(least, KEPT), which)

    def what_is_kept_is_inside(self) -> None:
        """(c), outer: where the code of S is kept, the equalities hold."""
        same = ~changed(self.before, self.after)[:, self.held].any(axis=1, keepdims=True)
        features, moved, lost = self._on()
        sure = surely_on(self.before, self.after)[:, features]
        self._offer(np.where(same & sure, moved, 0.0), KEPT * lost, features, moved_by=moved)
        features, outside, lost = self._off()
        self._offer(np.where(same, outside, 0.0), KEPT * lost, features, outside_by=outside)

    def what_is_inside_is_kept(self) -> None:
        """(c), inner: clearly inside of every half-space, and still on every equality, S keeps its values."""
        inside = self._still()
        depth = np.full(len(self.deltas), np.inf)
        for half in self.cell.half_spaces:
            there = np.flatnonzero(np.isfinite(half.slack))
            features = half.named(there)
            rise, rounding = self._moved(half.normals[there])
            lost = rounding + (self._bands + self._levels)[:, features]
            room = half.slack[there] - half.sign * rise
            depth = np.minimum(depth, (room / np.where(lost > 0, lost, 1.0)).min(axis=1, initial=np.inf))
        kept = np.flatnonzero(self.held)
        change = changed(self.before, self.after)[:, kept]
        found = np.where(inside[:, None] & change, depth[:, None], 0.0)
        self._offer(found, np.full_like(found, KEPT), kept)
