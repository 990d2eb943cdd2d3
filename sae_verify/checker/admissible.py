"""Perturbations that keep everything that is held, in exact reals.

Floats can hardly satisfy `w . delta = 0`, so the statement is: some exactly admissible point lies within a proven
distance of the recorded one (theorem: witness-nearby).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arithmetic import Array, Ball, combine, norm, row_lengths
from .cell import Cell
from .drift import within
from .errors import Rejected
from .independence import reach, rescaled
from .sae import State, decoder_norms


@dataclass(frozen=True, eq=False)
class Constraints:
    """What must hold exactly: `equal @ delta = 0` and `upper @ delta <= room`, or `<` if strict."""

    equal: Array
    upper: Array
    room: Array
    strict: bool


@dataclass(frozen=True, eq=False)
class HeldSet:
    """Everything that a witness must keep, at all points, prepared once for all witnesses of a certificate.

    Attributes:
        equal: (n, d) rows, rescaled and distinct.
        reach: every r has a c with `equal @ c = r` and ||c|| <= reach ||r||.
        parts: constraint sets with half-spaces. lengths: upper bounds of their rows' norms.
    """

    equal: Array
    reach: float
    parts: tuple[Constraints, ...]
    lengths: tuple[Array, ...]


def held_set(cell: Cell) -> HeldSet:
    """The held set of a cell, computed once."""
    cache = cell.__dict__.setdefault("_held_set", {})
    if not cache:
        parts = [part for point in cell.points for part in constraints_at(cell, point)]
        equal = rescaled(np.concatenate([np.zeros((0, cell.sae.W_enc.shape[0])), *(part.equal for part in parts)]))
        bounded = tuple(part for part in parts if part.upper.size)
        cache["held"] = HeldSet(equal, reach(equal), bounded, tuple(row_lengths(part.upper) for part in bounded))
    return cache["held"]


def admissible_within(cell: Cell, delta: Ball) -> float:
    """A distance within which of the float vector delta some exactly admissible point lies (theorem: witness-nearby).

    Raises:
        Rejected: no such point is known, or delta leaves a half-space.
    """
    if cell.held == "drift" and within(cell, delta):
        return 0.0
    held = held_set(cell)
    slack = 0.0
    if held.equal.size:
        slack = float((Ball.exact(held.reach) * norm(combine(delta, Ball.exact(held.equal.T)))).high)
    for part, length in zip(held.parts, held.lengths, strict=True):
        moved = combine(delta, Ball.exact(part.upper.T)).high
        margin = part.room - np.nextafter(moved + np.nextafter(length * slack, np.inf), np.inf)
        good = margin > 0 if part.strict else margin >= 0
        # A zero row moves nothing, however little room there is.
        if not (good | ~part.upper.any(axis=1)).all():
            raise Rejected(f"the witness leaves the held cell: a half-space is violated by {-float(margin.min()):.3g}")
    return slack


def constraints_at(cell: Cell, point: str) -> tuple[Constraints, ...]:
    """Convex sets on which all that is held at `point` certainly keeps its value; for TopK with S held, parts of it.

    For `drift` those of `defended`, where nothing moves.
    """
    sae = cell.sae
    d, m = sae.W_enc.shape
    nothing = Constraints(np.zeros((0, d)), np.zeros((0, d)), np.zeros(0), strict=False)
    if cell.held == "free":
        return (nothing,)
    if cell.held == "unreachable":
        chosen = cell.features
        rows = np.flatnonzero(~cell.full_state(point).off) if chosen is None else np.array(chosen, dtype=np.intp)
        return (Constraints(sae.W_dec[rows], nothing.upper, nothing.room, strict=False),)
    if not sae.affine:
        raise Rejected(f"with normalisation {sae.normalization!r} the held cell is no polyhedron")
    if cell.held == "preactivations":
        columns = sae.W_enc[:, np.array(cell.chosen, dtype=np.intp)]
        return (Constraints(columns.T, nothing.upper, nothing.room, strict=False),)
    now = cell.full_state(point)
    assert now.room is not None
    held = np.ones(m, dtype=bool)
    if cell.held in ("defended", "drift"):
        held[:] = False
        held[np.array(cell.chosen, dtype=np.intp)] = True
    topk = sae.architecture == "topk"
    unsure = ~now.on & ~now.off
    # For TopK every feature that may be selected matters: the others must stay below, the selected above.
    equal = (held & ~now.off) | (unsure & topk)
    below = now.off & (held | topk)
    above = now.on & ~held & topk
    shift = _shift(cell, now) if topk and not held.all() else Ball.exact(np.zeros(m))
    return (
        Constraints(sae.W_enc[:, equal].T, sae.W_enc[:, below].T, (now.room - shift).low[below], strict=topk),
        Constraints(nothing.equal, -sae.W_enc[:, above].T, (shift - now.room).low[above], strict=True),
    )


def _shift(cell: Cell, now: State) -> Ball:
    """How far the level that separates on from off may lie below the least score on, in each feature's units, (m,)."""
    sae, every = cell.sae, np.arange(now.on.shape[0])
    norms = decoder_norms(sae, every) if sae.parameters["rescale"] else Ball.exact(np.ones(every.shape))
    assert now.room is not None
    gap = (now.room * norms).low[now.off]
    half = 0.5 * max(0.0, float(gap.min(initial=np.inf))) if (now.on | now.off).all() and gap.size else 0.0
    return Ball.exact(np.full(every.shape, half)) / norms
