"""Taylor models through a block at the last p positions at once, when all of them are perturbed.

Each attends to constant keys and values of the positions before them all, and to moving ones of the perturbed positions
up to itself. A score s q.k of two models is a bilinear one whichever positions they belong to, and of the values
v = v_c + V at the weights p' the mean is that of the v_c plus the sum of p'_j V_j: every moving key is treated as a
position's own is. Theorem: attention-remainder, (d); Theorem: through-blocks, (f).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import Array, Ball, gamma
from .attention import Head, bilinear, contribution, moved_value, turned, weighted_scores, weights_of
from .block import completed
from .context import Context
from .lowered import lowered
from .normed import normed
from .pointwise import capped
from .rotary import tables
from .sizes import grow, lengths
from .softmax import Softmax
from .sources import Left
from .taylor import Taylor, stacked
from .weights import AttentionWeights, BlockWeights


@dataclass(frozen=True)
class Places:
    """The last `count` positions of a prompt of `length`."""

    count: int
    length: int

    @property
    def first(self) -> int:
        """The first of them."""
        return self.length - self.count

    def seen(self, place: int, window: int | None) -> tuple[int, int]:
        """How many constant keys a place (from 0) does not see that the first one sees, and the first place it sees."""
        if window is None:
            return 0, 0
        start, first = (max(0, self.first + at + 1 - window) for at in (place, 0))
        return start - first, max(0, place + 1 - window)


def through_blocks(
    x: Taylor, blocks: Sequence[BlockWeights], contexts: Sequence[Context], places: Places, degree: int
) -> Taylor:
    """The model of the last residual (d,) after the blocks, from that of all places, (count d,), one after another.

    Args:
        x: before the blocks.
        blocks: in order.
        contexts: what the positions before the first place show to it, one a block.
        places: that are perturbed.
        degree: as for `through_block`.
    """
    rows = apart(x, places.count)
    for number, (block, context) in enumerate(zip(blocks, contexts, strict=True), start=1):
        y = [lowered(normed(row, block.attention_norm), degree) for row in rows]
        needed = range(places.count if number < len(blocks) else 0) or [places.count - 1]
        changes = [lowered(attended(y[: at + 1], block.attention, context, places, degree), degree) for at in needed]
        rows = [completed(rows[at], change, block, degree) for at, change in zip(needed, changes, strict=True)]
    return rows[-1]


def apart(x: Taylor, count: int) -> list[Taylor]:
    """The models of the parts of equal length."""
    width = x.width // count
    return [_rows(x, np.arange(at * width, (at + 1) * width)) for at in range(count)]


def attended(
    y: Sequence[Taylor], weights: AttentionWeights, context: Context, places: Places, degree: int = 2
) -> Taylor:
    """The model of the attention's output at place len(y) - 1, from those of its normed input there and before."""
    moved: Taylor | None = None
    left = Left.nothing(len(weights.output))
    for head, movers in _heads(y, weights, context, places, degree):
        part, more = contribution(y[-1], head)
        for at, model in movers:
            change, change_left = moved_value(model, _last(head.softmax, at), head.value[0], head.output, degree)
            part, more = part + change, more + change_left
        moved, left = part if moved is None else moved + part, left + more
    assert moved is not None
    return left.behind(moved.scaled(np.ones(moved.width), weights.output_bias))


def score_rows(y: Sequence[Taylor], weights: AttentionWeights, context: Context, places: Places) -> Array:
    """Rows (n, k) that say how much each score of the last place moves, weighted by what it does. For searches."""
    return np.concatenate([weighted_scores(y[-1], head) for head, _ in _heads(y, weights, context, places)])


def _heads(
    y: Sequence[Taylor], weights: AttentionWeights, context: Context, places: Places, degree: int = 2
) -> list[tuple[Head, list[tuple[int, Taylor]]]]:
    """The heads of place len(y) - 1, and for each the keys, by index, that belong to another place, with its model.

    The values of those keys at the centre stand among the constant ones, known up to rounding.
    """
    away, earliest = places.seen(len(y) - 1, weights.window)
    y = y[earliest:]
    positions = range(places.first + earliest, places.first + earliest + len(y))
    rotations = [
        None if weights.rotary_base is None else tables(weights.rotary_base, weights.d_head, [at]) for at in positions
    ]
    group, result = weights.n_heads // weights.n_kv_heads, []
    for kv in range(weights.n_kv_heads):
        rows = slice(kv * weights.d_head, (kv + 1) * weights.d_head)
        keys = [
            turned(model, weights.key[rows], weights.key_bias[rows], weights.key_norm, rotation)
            for model, rotation in zip(y, rotations, strict=True)
        ]
        value = (weights.value[rows], weights.value_bias[rows])
        past, values = (Ball(b.mid[kv, away:], b.rad[kv, away:]) for b in (context.keys, context.values))
        values = _with(values, [_at_centre(model, *value) for model in y[:-1]])
        for h in range(kv * group, (kv + 1) * group):
            rows = slice(h * weights.d_head, (h + 1) * weights.d_head)
            query = turned(y[-1], weights.query[rows], weights.query_bias[rows], weights.query_norm, rotations[-1])
            scores = _scores(query, keys, past, weights.scale)
            if weights.softcap is not None:
                scores = capped(scores, weights.softcap)
            head = Head(weights_of(lowered(scores, degree)), values, value, weights.output[:, rows], degree)
            result.append((head, list(enumerate(y[:-1], start=len(past.mid)))))
    return result


def _scores(query: Taylor, moving: Sequence[Taylor], past: Ball, scale: Ball) -> Taylor:
    """The model of the scores of the constant keys, then of the moving ones, the own one last."""
    n, s = past.mid.shape[1], float(scale.mid)
    lost = 4 * gamma(n) + float(scale.rad) / abs(s) if s else 0.0
    error = abs(s) * (lengths(past.rad) + lost * (lengths(past.mid) + lengths(past.rad)))
    parts = [query.mapped(s * past.mid, row_error=grow(error))]
    remainders = []
    for key in moving:
        part, remainder = bilinear(query, key, s, lost)
        parts.append(part)
        remainders.append(remainder)
    scores = stacked(parts)
    for row, remainder in enumerate(remainders, start=len(past.mid)):
        scores = scores.with_error_at(row, "own key" if row + 1 == scores.width else "moving key", remainder)
    return scores


def _at_centre(model: Taylor, weight: Array, bias: Array) -> Ball:
    """The value at the model's centre, (d_head,), with the rounding of floats."""
    rounding = 4 * gamma(model.width) * (np.abs(weight) @ model.parts + np.abs(bias))
    return Ball(weight @ model.centre + bias, grow(rounding))


def _with(values: Ball, more: Sequence[Ball]) -> Ball:
    """Values (P, d_head) with more rows."""
    return Ball(np.vstack([values.mid, *(b.mid for b in more)]), np.vstack([values.rad, *(b.rad for b in more)]))


def _last(softmax: Softmax, index: int) -> Softmax:
    """The same softmax with one of its keys in the last place, where the own one stands otherwise."""
    order = np.append(np.delete(np.arange(len(softmax.pattern)), index), index)
    return replace(softmax, pattern=softmax.pattern[order], scores=_rows(softmax.scores, order))


def _rows(x: Taylor, rows: NDArray[np.intp]) -> Taylor:
    """The model of some of the entries."""
    return replace(
        x,
        centre=x.centre[rows],
        jacobian=x.jacobian[rows],
        curves=tuple((curve, gain[rows]) for curve, gain in x.curves),
        errors=tuple((source, gain[rows]) for source, gain in x.errors),
        loose=x.loose[rows],
        origin=None,
    )
