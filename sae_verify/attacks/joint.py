"""Several layers clamped at once: one perturbation at the first hook, held features at every one of them.

The perturbation delta is added to the first layer's defended state. What it does to the state of a later clamped layer,
its displacement there, is a nonlinear function of delta: the blocks between, with the clamps between. What is held at a
later layer is the same polyhedron as anywhere (`geometry/held_cell.py`), of that displacement. Source of the setting:
arXiv 2606.18322, which projects the gradient away from the Jacobian of the joint feature map.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.held_cell import Array, HeldCell, held_cells
from sae_verify.geometry.instance import Batch, clamp_edit, prepare
from sae_verify.model import HookPoint, Tail, check_tail, make_tail, run
from sae_verify.model.sites import edit_at
from sae_verify.problem import Clamp, Problem
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import clamped

RUN_ROOM = 2.0**-20
"""Relative to the state's length: how far inside a later layer's half-spaces the search stays, so that the rounding of
a float32 run, some blocks deep, turns no feature on. Whether it does is checked in the replay."""


@dataclass(frozen=True, eq=False)
class ClampStep:
    """A later layer's clamp as a step of the tail, in float64: (B, *, d) to (B, *, d)."""

    sae: SAE
    clamp: Clamp

    def __call__(self, resid: Tensor) -> Tensor:
        """The defended state."""
        return clamped(self.sae, self.clamp, resid)

    def select(self, indices: Tensor) -> ClampStep:
        """The same: it does not depend on the prompt."""
        del indices
        return self


@dataclass(frozen=True, eq=False)
class Kept:
    """What is held at one layer of every prompt, stacked: basis @ D = 0 and normals @ D <= room for a displacement D.

    Attributes:
        basis: (B, rank, d), orthonormal rows, zero where a prompt has fewer.
        normals: (M, d), of length 1, the same for every prompt.
        room: (B, M), inf where there is no constraint.
        cells: the same, one a prompt.

    """

    basis: Array
    normals: Array
    room: Array
    cells: tuple[HeldCell, ...]

    @classmethod
    def of(cls, cells: Sequence[HeldCell], margin: Array) -> Kept:
        """Stack cells; `margin`, (B,), is taken off every half-space, in units of length."""
        ranks = max(cell.rank for cell in cells)
        basis = np.zeros((len(cells), ranks, cells[0].width))
        for row, cell in zip(basis, cells, strict=True):
            row[: cell.rank] = cell.basis.T
        normals, rooms = [np.zeros((0, cells[0].width))], [np.zeros((len(cells), 0))]
        for families in zip(*(cell.half_spaces for cell in cells), strict=True):
            length = np.linalg.norm(families[0].normals, axis=1)
            moves = length > 0  # a zero row is kept whatever happens
            normals.append(families[0].sign * families[0].normals[moves] / length[moves, None])
            slack = np.stack([half.slack for half in families])[:, moves] / length[moves]
            rooms.append(np.where(np.isfinite(slack), np.maximum(slack - margin[:, None], 0.0), np.inf))
        return cls(basis, np.concatenate(normals), np.concatenate(rooms, axis=1), tuple(cells))

    def select(self, rows: list[int]) -> Kept:
        """The same for some prompts."""
        return Kept(self.basis[rows], self.normals, self.room[rows], tuple(self.cells[row] for row in rows))


@dataclass(frozen=True, eq=False)
class Later:
    """A clamped layer after the first.

    Attributes:
        problem: its SAE, clamp and held set.
        step: index of its clamp among the tail's steps.
        at: whether the state before the clamp (x) or after it (h) keeps its features.
        reference: (B, d) float64, that state without a perturbation.
        kept: what is held of its displacement.

    """

    problem: Problem
    step: int
    at: Literal["x", "h"]
    reference: Tensor
    kept: Kept

    def select(self, rows: list[int]) -> Later:
        """The same for some prompts."""
        return dataclasses.replace(self, reference=self.reference[rows], kept=self.kept.select(rows))


@dataclass(frozen=True, eq=False)
class Joint:
    """A batch with several clamped layers.

    Attributes:
        batch: of the first layer; its tail has the later clamps in it, and defended readouts count them.
        first: what is held at the first layer, of delta itself.
        later: the other clamped layers, in order.

    """

    batch: Batch
    first: Kept
    later: tuple[Later, ...]

    @property
    def layers(self) -> tuple[Kept, ...]:
        """What is held, layer by layer."""
        return (self.first, *(one.kept for one in self.later))

    @property
    def hooks(self) -> tuple[HookPoint, ...]:
        """Every clamped hook point."""
        return (self.batch.problem.hook_point, *(one.problem.hook_point for one in self.later))

    def select(self, rows: list[int]) -> Joint:
        """The same for some prompts."""
        return Joint(self.batch.select(rows), self.first.select(rows), tuple(one.select(rows) for one in self.later))

    def displacements(self, delta: Tensor) -> list[Tensor]:
        """Displacement of what is held at every layer, (B, *, d) each, for delta (B, *, d); differentiable."""
        shape = (len(delta), *(1,) * (delta.ndim - 2), delta.shape[-1])
        found, resid = [delta], self.batch.h.reshape(shape) + delta
        places = {one.step: one for one in self.later}
        for index, step in enumerate(self.batch.tail.blocks[: max(places) + 1]):
            after = step(resid)
            if index in places:
                one = places[index]
                found.append((resid if one.at == "x" else after) - one.reference.reshape(shape))
            resid = after
        return found

    def last_states(self, delta: Tensor) -> Tensor:
        """State after the last clamp, (B, *, d), for delta (B, *, d)."""
        shape = (len(delta), *(1,) * (delta.ndim - 2), delta.shape[-1])
        resid = self.batch.h.reshape(shape) + delta
        for step in self.batch.tail.blocks[: self.later[-1].step + 1]:
            resid = step(resid)
        return resid


def prepare_joint(problems: Sequence[Problem]) -> Joint:
    """Run the model with all clamps and gather what attacks need.

    Args:
        problems: one a clamped layer, in the order of the layers: the same model, prompts, readouts and threat (its
            radius plays no part), each with its own SAE, clamp and hook.

    Raises:
        InputError and its kinds: the problems do not fit each other.
        UnsupportedError: a hook inside a block, a clamp that does not act at every position, or a held set of another
            kind.
        TailMismatchError: the float64 tail disagrees with the real model.

    """
    _check(problems)
    first, last = problems[0], problems[-1]
    batch = prepare(first)  # cells, states, readouts of the plain model; its tail ends at the second clamp
    steps: list[Any] = list(batch.tail.blocks[: _between(*problems[:2])])
    places: list[int] = []
    end = batch.tail
    for index, problem in enumerate(problems[1:], start=1):
        with clamps_at(problems[:index]):
            end, _ = make_tail(problem.model, batch.prompts, problem.hook_point, clamp_edit(problem, batch.prompts))
        places.append(len(steps))
        steps.append(ClampStep(problem.sae.to(torch.float64), problem.clamp))
        steps += end.blocks if problem is last else end.blocks[: _between(problem, problems[index + 1])]
    joint_tail = Tail(tuple(cast(Any, steps)), end.final_norm, end.unembed, end.unembed_bias, batch.tail.base)
    with clamps_at(problems[1:]):
        with torch.no_grad():
            whole = run(first.model, batch.prompts, first.hook_point, clamp_edit(first, batch.prompts))
        agreement = check_tail(joint_tail, first.model, batch.prompts, first.hook_point, whole)
    return _joint(dataclasses.replace(batch, tail=joint_tail.with_agreement(agreement)), problems, places, whole.logits)


def _joint(batch: Batch, problems: Sequence[Problem], places: list[int], logits: Tensor) -> Joint:
    """Defended readouts of all clamps, references and cells of the later layers."""
    order = logits.argsort(dim=-1, descending=True)
    with torch.no_grad():
        value = batch.readout(batch.h[:, None])[:, 0]
        befores, afters, resid = {}, {}, batch.h
        for index, step in enumerate(batch.tail.blocks):
            befores[index], resid = resid, step(resid[:, None])[:, 0]
            afters[index] = resid
    instances = tuple(
        dataclasses.replace(one, defended=float(value[i]), ranking=tuple(order[i, :64].tolist()))
        for i, one in enumerate(batch.instances)
    )
    later = []
    for problem, place in zip(problems[1:], places, strict=True):
        x, h = befores[place], afters[place]
        at = cast(Literal["x", "h"], problem.threat.at)
        sae = problem.sae.to(torch.float64)
        cells = held_cells(sae, problem.threat, problem.held_features, x.numpy(), h.numpy(), "inner")
        reference = x if at == "x" else h
        kept = Kept.of(cells, RUN_ROOM * reference.norm(dim=1).numpy())
        later.append(Later(problem, place, at, reference, kept))
    first = Kept.of([one.inner for one in instances], np.zeros(len(instances)))
    return Joint(dataclasses.replace(batch, instances=instances), first, tuple(later))


@contextlib.contextmanager
def clamps_at(
    problems: Sequence[Problem], kept: dict[HookPoint, tuple[Tensor, Tensor]] | None = None
) -> Iterator[None]:
    """Within, every run of the model has these problems' clamps at their hooks, at all positions.

    Args:
        problems: of one model; none change nothing.
        kept: filled with the states before and after each clamp, (B, T, d), of the latest run.
    """

    def hooked(problem: Problem) -> Any:
        def change(x: Tensor) -> Tensor:
            h = clamped(problem.sae, problem.clamp, x).to(x.dtype)
            if kept is not None:
                kept[problem.hook_point] = x, h
            return h

        return edit_at(problem.model.adapter, problem.model.module, problem.hook_point, change)

    with contextlib.ExitStack() as stack:
        for problem in problems:
            stack.callback(hooked(problem).remove)
        yield


def _between(before: Problem, after: Problem) -> int:
    return after.hook_point.first_block - before.hook_point.first_block


def _check(problems: Sequence[Problem]) -> None:
    """Whether the problems speak of one model and of layers in order."""
    names = [str(problem.hook_point) for problem in problems]
    if len(problems) < 2:
        raise InputError(f"the layers are {names}", rule="several layers are clamped: at least two", remedy="add one")
    first = problems[0]
    for problem in problems[1:]:
        same = problem.model is first.model and list(problem.prompts) == list(first.prompts)
        if not same or problem.readouts != first.readouts or problem.threat.held != first.threat.held:
            raise InputError(
                "the layers' problems differ in more than SAE, clamp and hook",
                rule="one model, the same prompts, readouts and kind of held set for all layers",
                remedy="make them from one problem with dataclasses.replace",
            )
    for before, after in itertools.pairwise(problems):
        if _between(before, after) < 1:
            raise InputError(
                f"the layers are {names}",
                rule="they come in the order of the blocks, with a block between each two",
                remedy="list the SAEs from the first layer to the last",
            )
    for problem in problems:
        if problem.hook_point.inside:
            raise UnsupportedError(
                f"a clamp at {problem.hook_point} beside others",
                rule="several layers are clamped at residual streams before or after a block",
            )
        threat = problem.threat
        if threat.at == "both" or threat.held == "drift" or threat.positions != 1:
            raise UnsupportedError(
                f"several clamps with held={threat.held!r} at {threat.at!r} and {threat.positions} positions",
                rule="features keep their values at x or at h, and one position is perturbed",
                remedy="hold them at one side, for example held='defended', at='h'",
            )
        if problem.clamp.positions != "all":
            raise UnsupportedError(
                f"one of several clamps at positions {problem.clamp.positions!r}",
                rule="clamps of several layers act at every position",
                remedy="leave positions out",
            )
