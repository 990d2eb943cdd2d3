"""Ascent and shortest perturbation with features held at several layers: every iterate is restored to the joint set.

A step goes along the readout's gradient, projected onto the null space of the joint feature map's Jacobian and the
half-spaces that bind (least distance programming on the linearised constraints). Newton steps on the same constraints
then restore feasibility: what is held, the ball, and, for the shortest perturbation, the readout's level. An iterate
that cannot be restored is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_verify.attacks.closed_form import value_and_gradient, values
from sae_verify.attacks.joint import Joint
from sae_verify.attacks.joint_features import displacements, pull_back
from sae_verify.attacks.pgd import Attack, Pgd
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.nearest_point import nearest_point

NEWTON = 9
"""Newton steps of a restoration at most."""
STALE = 0.1
"""The Jacobian is computed anew where a step with the old one left more than this share of the violation."""
EXACT = 1e-11
"""Relative to a displacement's length: how well equalities hold after a restoration. float64 reaches 1e-15."""
BAND = 1e-9
"""Relative to a displacement's length: half-spaces that are nearer than this take part in a step from the start."""
INNER = 1e-10
"""Relative to the radius or the displacement: how far inside the ball and half-spaces Newton steps aim."""
FIRST, LEAST = 0.5, 1e-4
"""Length of the first step, and of the last that is tried, in units of the radius."""
LEVEL = 2e-5
"""How far above the claim the shortest perturbation is sought, so that rounding of the run does not undo it."""
ROUNDS = 40
"""Steps of the search for the shortest perturbation at most."""
ENOUGH = 1e-3
"""Relative shortening below which its steps are shortened."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """Constraints beside what is held: the ball's radius, (N,), and a level of the readout, (N,), or None."""

    radii: Array
    level: Array | None = None

    def select(self, rows: Indices) -> Wanted:
        """The same for some rows."""
        return Wanted(self.radii[rows], None if self.level is None else self.level[rows])


@dataclass(frozen=True, eq=False)
class _Point:
    """Where rows are: delta (N, d), displacements of every layer, and the readout with its gradient if it is needed."""

    delta: Array
    moved: list[Array]
    value: Array | None
    gradient: Array | None

    @classmethod
    def at(cls, joint: Joint, delta: Array, *, readout: bool) -> _Point:
        moved = [one[:, 0] for one in displacements(joint, delta[:, None])]
        value, gradient = value_and_gradient(joint.batch, delta[:, None]) if readout else (None, None)
        return cls(delta, moved, None if value is None else value[:, 0], None if gradient is None else gradient[:, 0])

    def select(self, rows: Indices) -> _Point:
        value = None if self.value is None else self.value[rows]
        gradient = None if self.gradient is None else self.gradient[rows]
        return _Point(self.delta[rows], [where[rows] for where in self.moved], value, gradient)

    def excess(self, joint: Joint) -> list[Array]:
        """By how much half-spaces of every layer are exceeded, (N, M) each."""
        return [where @ kept.normals.T - kept.room for kept, where in zip(joint.layers, self.moved, strict=True)]

    def violation(self, joint: Joint, wanted: Wanted) -> Array:
        """How far each row is from satisfying everything, (N,), relative; 0 where it does."""
        worst = np.maximum(np.linalg.norm(self.delta, axis=1) / wanted.radii - 1.0, 0.0)
        for kept, where, over in zip(joint.layers, self.moved, self.excess(joint), strict=True):
            size = np.maximum(np.linalg.norm(where, axis=1), 1e-300)
            along = np.linalg.norm(np.einsum("nkd,nd->nk", kept.basis, where), axis=1) / size
            worst = np.maximum(worst, np.where(along <= EXACT, 0.0, along))
            worst = np.maximum(worst, np.maximum(over.max(axis=1, initial=0.0), 0.0) / size)
        if self.value is not None and wanted.level is not None:
            short = np.maximum(wanted.level - 0.25 * LEVEL - self.value, 0.0)
            worst = np.maximum(worst, short / (1.0 + np.abs(wanted.level)))
        return worst


def restore(joint: Joint, delta: Array, aim: Array, wanted: Wanted) -> tuple[Array, NDArray[np.bool_]]:
    """From delta (N, d) to a point of the joint set near delta + aim; and whether it was reached, (N,).

    The first Newton step goes to the point of the linearised set nearest to delta + aim, the others to the nearest one.
    A Jacobian is used again as long as steps with it shrink the violation fast.

    Args:
        joint: one prompt a row; the same prompt may come several times.
        delta: where steps start.
        aim: a step that is wanted; zero only restores.
        wanted: what is to hold beside.
    """
    result, reached = delta.copy(), np.zeros(len(delta), dtype=bool)
    rows, tangents = np.arange(len(delta)), _Tangents([], [])
    part, point = joint, _Point.at(joint, delta, readout=wanted.level is not None)
    before, fresh = np.full(len(delta), np.inf), True
    for step in range(NEWTON):
        tangents.refresh(part, point, anew=fresh)
        moves = [_newton(part, i, point, aim[row], tangents, wanted.select(rows)) for i, row in enumerate(rows)]
        there = point.delta + np.stack([np.zeros(delta.shape[1]) if move is None else move for move in moves])
        point = _Point.at(part, there, readout=wanted.level is not None)
        far = point.violation(part, wanted.select(rows))
        alive = np.array([move is not None for move in moves]) & np.isfinite(far)
        done = alive & (far == 0.0)
        result[rows[done]], reached[rows[done]] = there[done], True
        left = np.flatnonzero(alive & ~done)
        if not left.size or step == NEWTON - 1:
            break
        aim = np.zeros_like(aim)
        fresh = step == 0 or bool((far[left] > STALE * before[left]).any())
        before, rows, part = far[left], rows[left], part.select(left.tolist())
        point, tangents = point.select(left), tangents.select(left)
    return result, reached


@dataclass(eq=False)
class _Tangents:
    """Half-spaces that take part, by row and layer, and gradients of equalities and of these at the later layers."""

    working: list[list[list[int]]]
    gradients: list[list[Array]]

    def select(self, rows: Indices) -> _Tangents:
        return _Tangents([self.working[i] for i in rows], [self.gradients[i] for i in rows])

    def refresh(self, joint: Joint, point: _Point, *, anew: bool) -> None:
        """Take in half-spaces that are violated or nearly, and compute gradients where that is asked for or needed."""
        if not self.working:
            self.working = [[[] for _ in joint.layers] for _ in point.delta]
        for layer, (where, excess) in enumerate(zip(point.moved, point.excess(joint), strict=True)):
            near = excess > -BAND * np.linalg.norm(where, axis=1, keepdims=True)
            for i in np.flatnonzero(near.any(axis=1)):
                present = self.working[i][layer]
                new = [int(row) for row in np.flatnonzero(near[i]) if int(row) not in present]
                anew |= bool(new) and layer > 0
                self.working[i][layer] = present + new
        if anew:
            self.gradients = _gradients(joint, point.delta, self.working)


def _gradients(joint: Joint, delta: Array, working: list[list[list[int]]]) -> list[list[Array]]:
    """For each row and each later layer: gradients of its equalities, then of its working half-spaces."""
    stacks, counts = [], []
    for layer, one in enumerate(joint.later, start=1):
        rank = one.kept.basis.shape[1]
        most = max(len(some[layer]) for some in working)
        stack = np.zeros((len(delta), 1, rank + most, delta.shape[1]))
        stack[:, 0, :rank] = one.kept.basis
        for i, some in enumerate(working):
            stack[i, 0, rank : rank + len(some[layer])] = one.kept.normals[some[layer]]
        stacks.append(stack)
        counts.append([rank + len(some[layer]) for some in working])
    whole = pull_back(joint, delta[:, None], stacks)[:, 0]
    places = np.cumsum([0, *(stack.shape[2] for stack in stacks)])
    return [
        [whole[i, start : start + count[i]] for start, count in zip(places, counts, strict=False)]
        for i in range(len(delta))
    ]


def _newton(joint: Joint, i: int, point: _Point, aim: Array, tangents: _Tangents, wanted: Wanted) -> Array | None:
    """The step of one row: nearest to its aim on the linearised constraints."""
    here, radius = point.delta[i], float(wanted.radii[i])
    basis = joint.first.basis[i]
    equal, level = [basis], [-(basis @ here)]
    upper, room = [here[None]], [np.array([0.5 * ((radius * (1 - INNER)) ** 2 - here @ here)])]
    for layer, (kept, where) in enumerate(zip(joint.layers, point.moved, strict=True)):
        rows, place = tangents.working[i][layer], where[i]
        room.append(kept.room[i, rows] - kept.normals[rows] @ place - INNER * float(np.linalg.norm(place)))
        if layer:
            mine, rank = tangents.gradients[i][layer - 1], kept.basis.shape[1]
            equal.append(mine[:rank])
            level.append(-(kept.basis[i] @ place))
            upper.append(mine[rank:])
        else:
            upper.append(kept.normals[rows])
    if point.value is not None and point.gradient is not None and wanted.level is not None:
        upper.append(-point.gradient[i][None])
        room.append(np.array([point.value[i] - wanted.level[i]]))
    return nearest_point(aim, np.concatenate(equal), np.concatenate(level), np.concatenate(upper), np.concatenate(room))


def ascend_jointly(joint: Joint, radii: Array, start: Array, steps: int) -> Attack:
    """Monotone projected ascent from `start`, (B, R, d), which is restored first; the best of each prompt.

    Step lengths grow while steps succeed, and are cut where a step cannot be restored or does not lift the readout.
    """
    count, starts, width = start.shape
    many = joint.select([b for b in range(count) for _ in range(starts)])
    bounds = np.repeat(radii, starts)  # (N,)
    delta, _ = restore(many, np.zeros((len(bounds), width)), start.reshape(-1, width), Wanted(bounds))
    value, gradient = _readout(many, delta)
    size, every = FIRST * bounds, np.arange(len(bounds))
    for _ in range(steps):
        rows = every[size > LEAST * bounds]
        if not rows.size:
            break
        part = many if rows.size == len(every) else many.select(rows.tolist())
        unit = gradient[rows] / np.maximum(np.linalg.norm(gradient[rows], axis=1, keepdims=True), 1e-300)
        trial, good = restore(part, delta[rows], unit * size[rows, None], Wanted(bounds[rows]))
        reached, slope = _readout(part, trial)
        better = good & (reached > value[rows])
        kept = rows[better]
        delta[kept], value[kept], gradient[kept] = trial[better], reached[better], slope[better]
        size[rows] = np.where(better, np.minimum(1.5 * size[rows], 2.0 * bounds[rows]), 0.4 * size[rows])
    by_prompt = value.reshape(count, starts)
    rows, best = np.arange(count), by_prompt.argmax(axis=1)
    return Attack(delta.reshape(count, starts, width)[rows, best], by_prompt[rows, best])


def _readout(joint: Joint, delta: Array) -> tuple[Array, Array]:
    value, gradient = value_and_gradient(joint.batch, delta[:, None])
    return value[:, 0], gradient[:, 0]


def attack_jointly(joint: Joint, radii: Array, settings: Pgd, hints: Array | None = None) -> Attack:
    """Worst perturbation found that keeps everything held at every layer, within each prompt's radius.

    Args:
        joint: the layers.
        radii: (B,) absolute.
        settings: steps and restarts; random starts only where there are no hints.
        hints: (B, H, d) further starting points, for example what was found at a smaller radius.
    """
    count, width = joint.batch.h.shape
    starts = [np.zeros((count, 1, width))]
    if hints is not None:
        starts.append(hints)
    else:
        noise = np.random.default_rng(settings.seed).normal(size=(count, settings.restarts, width))
        starts.append(noise * (0.5 * radii[:, None, None] / np.linalg.norm(noise, axis=2, keepdims=True)))
    return ascend_jointly(joint, radii, np.concatenate(starts, axis=1), settings.steps)


def shorten_jointly(joint: Joint, tau: Array, start: Array) -> tuple[Array, Array]:
    """Shortest recovery from `start`, (B, d), which keeps what is held: lengths (B,), inf where none, and (B, d).

    Sequential quadratic programming: the shortest point of the linearised set at the readout's level, a share of the
    way, restored.
    """
    delta, value = start.copy(), values(joint.batch, start[:, None])[:, 0]
    length = np.where(value > tau + 0.5 * LEVEL, np.linalg.norm(delta, axis=1), np.inf)
    share, rows = np.full(len(delta), 0.5), np.flatnonzero(np.isfinite(length) & (length > 0))
    for _ in range(ROUNDS):
        if not rows.size:
            break
        wanted = Wanted(length[rows], tau[rows] + LEVEL)
        trial, good = restore(joint.select(rows.tolist()), delta[rows], -share[rows, None] * delta[rows], wanted)
        size = np.where(good, np.linalg.norm(trial, axis=1), np.inf)
        better = size < length[rows]
        gained = size < (1 - ENOUGH) * length[rows]
        delta[rows] = np.where(better[:, None], trial, delta[rows])
        length[rows] = np.where(better, size, length[rows])
        share[rows] = np.where(gained, np.minimum(1.0, 1.5 * share[rows]), 0.3 * share[rows])
        rows = rows[share[rows] > 1e-2]
    return length, delta
