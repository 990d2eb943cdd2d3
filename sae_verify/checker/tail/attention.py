"""Taylor models through attention at the last position.

Keys and values of the earlier positions are constants, known up to a radius; the last position's query, own key and own
value move. Theorem: attention-remainder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..arithmetic import TINY, Array, Ball, U, gamma
from .context import Context
from .curves import Forms, Products, cubic_size
from .elementary import exp
from .lowered import lowered
from .normed import normed
from .pieces import cut, sharper
from .pointwise import capped
from .rotary import tables
from .sizes import grow, length, lengths, spectral
from .softmax import MOVERS, Softmax, mean
from .sources import Left, Line, Mixed
from .taylor import Taylor, added, stacked
from .weights import AttentionWeights, NormWeights

OWN_WORTHWHILE = 0.1
"""Of |1/Z - 1|: below it the own key's share is not followed through slabs."""


@dataclass(frozen=True, eq=False)
class _Map:
    """An affine map whose exact rows differ by at most `error` (n,) in l2 length, and bias by `bias_error`."""

    weight: Array
    bias: Array
    error: Array
    bias_error: Array

    def __call__(self, z: Taylor) -> Taylor:
        return z.mapped(self.weight, self.bias, self.error).loosened(self.bias_error)


def attended(y: Taylor, weights: AttentionWeights, context: Context, position: int, degree: int = 2) -> Taylor:
    """The model of the attention's output at `position`, from the model of its normed input y there.

    Below degree 2 scores have no quadratic part, and remainders are those of one model alone.
    """
    moved: Taylor | None = None
    left = Left.nothing(len(weights.output))
    for head in _heads(y, weights, context, position, degree):
        part, more = contribution(y, head)
        moved, left = part if moved is None else moved + part, left + more
    assert moved is not None
    return left.behind(moved.scaled(np.ones(moved.width), weights.output_bias))


def weighted_scores(y: Taylor, head: Head) -> Array:
    """Rows (n, k) that say how much each score moves with y, weighted by what it does to the output. For searches."""
    own = head.value[0] @ y.centre + head.value[1]
    fixed = np.concatenate([head.values.mid, own[None]])
    pattern = head.softmax.pattern
    shares = np.linalg.norm((fixed - pattern @ fixed) @ head.output.T, axis=1) * pattern * head.softmax.cubic
    return np.sqrt(shares / np.maximum(head.softmax.reach, 1e-300))[:, None] * head.softmax.scores.jacobian


@dataclass(frozen=True, eq=False)
class Head:
    """One query head: its moving pattern, the earlier positions' values, and the stored maps of its values."""

    softmax: Softmax
    values: Ball
    value: tuple[Array, Array]
    output: Array
    degree: int = 2


def _heads(y: Taylor, weights: AttentionWeights, context: Context, position: int, degree: int) -> Iterator[Head]:
    group = weights.n_heads // weights.n_kv_heads
    rotation = None if weights.rotary_base is None else tables(weights.rotary_base, weights.d_head, [position])
    for kv in range(weights.n_kv_heads):
        rows = slice(kv * weights.d_head, (kv + 1) * weights.d_head)
        key = turned(y, weights.key[rows], weights.key_bias[rows], weights.key_norm, rotation)
        value = (weights.value[rows], weights.value_bias[rows])
        keys, values = _at(context.keys, kv), _at(context.values, kv)
        for h in range(kv * group, (kv + 1) * group):
            rows = slice(h * weights.d_head, (h + 1) * weights.d_head)
            query = turned(y, weights.query[rows], weights.query_bias[rows], weights.query_norm, rotation)
            scores = _scores(query, key, keys, weights.scale)
            if weights.softcap is not None:
                scores = capped(scores, weights.softcap)
            yield Head(weights_of(lowered(scores, degree)), values, value, weights.output[:, rows], degree)


def _at(ball: Ball, index: int) -> Ball:
    return Ball(ball.mid[index], ball.rad[index])


def turned(
    y: Taylor, weight: Array, bias: Array, norm: NormWeights | None, rotation: tuple[Ball, Ball] | None
) -> Taylor:
    """The model of one head's query or key, rotated; where it has a norm, after that."""
    if norm is None:
        return _rotated(weight, bias, rotation)(y)
    unturned = normed(_rotated(weight, bias, None)(y), norm)
    n = len(weight)
    return unturned if rotation is None else _rotated(np.eye(n), np.zeros(n), rotation)(unturned)


def _rotated(weight: Array, bias: Array, rotation: tuple[Ball, Ball] | None) -> _Map:
    """R W and R b, with R the rotation of one position."""
    if rotation is None:
        return _Map(weight, bias, np.zeros(len(weight)), np.zeros(len(weight)))
    cos, sin = rotation[0].mid[0], rotation[1].mid[0]
    lost = rotation[0].rad[0] + rotation[1].rad[0] + 8 * U
    half = len(weight) // 2
    swapped = np.concatenate([-weight[half:], weight[:half]])
    swapped_bias = np.concatenate([-bias[half:], bias[:half]])
    return _Map(
        cos[:, None] * weight + sin[:, None] * swapped,
        cos * bias + sin * swapped_bias,
        grow(lost * (lengths(weight) + lengths(swapped))),
        grow(lost * (np.abs(bias) + np.abs(swapped_bias)) + TINY),
    )


def _scores(query: Taylor, key: Taylor, keys: Ball, scale: Ball) -> Taylor:
    """The model of the scores of all visible positions, the own one last, (P,)."""
    n, s = keys.mid.shape[1], float(scale.mid)
    lost = 4 * gamma(n) + float(scale.rad) / abs(s) if s else 0.0
    error = abs(s) * (lengths(keys.rad) + lost * (lengths(keys.mid) + lengths(keys.rad)))
    past = query.mapped(s * keys.mid, row_error=grow(error))
    own, remainder = bilinear(query, key, s, lost)
    return stacked([past, own]).with_error_at(past.width, "own key", remainder)


def bilinear(q: Taylor, k: Taylor, s: float, lost: float) -> tuple[Taylor, float]:
    """The model of s q.k, both moving, (1,), without its remainder, and the remainder's size."""
    domain = q.domain
    # q_c . dk + k_c . dq is linear in what moves, and keeps the sources.
    linear = k.moving.mapped(s * q.centre[None]) + q.moving.mapped(s * k.centre[None])
    cross = q.jacobian.T @ k.jacobian
    # What is beyond the second order: dq.dk without J_q y . J_k y.
    mixed_curves = (tuple((c, a.jacobian.T @ gain) for c, gain in b.curves) for a, b in ((q, k), (k, q)))
    third = cubic_size(added(*mixed_curves), domain, q.order)
    third = min(third, q.linear_norm * k.quadratic_norm + k.linear_norm * q.quadratic_norm)
    errors = (tuple((e, a.jacobian.T @ gain) for e, gain in b.errors) for a, b in ((q, k), (k, q)))
    for source, mixed in added(*errors):
        third += domain.matrix(mixed.T) * source.norm
    third += (q.vanishing + k.vanishing) * q.width * q.order**0.5 * domain.reach
    third += q.linear_norm * length(k.loose) + k.linear_norm * length(q.loose) + q.rest_norm * k.rest_norm
    rounding = (lost + 8 * U) * length(q.parts) * length(k.parts)
    model = replace(linear, centre=np.array([s * float(q.centre @ k.centre)]))
    model = model.with_curve(Forms(s * cross[None]), np.ones((1, 1)))
    return model.loosened(np.array([abs(s) * 8 * rounding])), float(grow(abs(s) * third))


def weights_of(scores: Taylor) -> Softmax:
    """The pattern at the centre, and the scores without their mean under it."""
    count = scores.width
    raised = exp(scores.centre - scores.centre.max())
    total = float(raised.mid.sum())
    pattern = raised.mid / total
    # exp's radius, that of the difference of two floats, and the division's rounding, as an error of the score.
    with np.errstate(divide="ignore", invalid="ignore"):
        off = raised.rad / raised.mid + 8 * U + 2 * U * np.abs(scores.centre) + 2 * U * abs(float(scores.centre.max()))
    off = np.where(off < 0.5, 2 * off, np.inf)  # |log(1 + x)| <= 2 |x|
    centring = np.eye(count) - pattern
    centred = scores.moving.mapped(centring).loosened(2 * off + 2 * float(pattern @ off))
    sum_error = abs(float(pattern.sum()) - 1.0) + gamma(count)
    slip = grow(sum_error * (1 + float(scores.reach.max())) + 4 * float(pattern @ off))
    return Softmax(pattern, centred, float(slip))


def contribution(y: Taylor, head: Head) -> tuple[Taylor, Left]:
    """One head's contribution without its remainder, and that, with what values may be off."""
    softmax, values, value, output = head.softmax, head.values, head.value, head.output
    own = value[0] @ y.centre + value[1]
    fixed = np.concatenate([values.mid, own[None]])  # (P, d_head)
    average = softmax.pattern @ fixed
    weights = output @ (fixed - average).T  # (d, P)
    base = output @ average
    # How far the exact weights are from these: any mean of them is off by no more than the largest.
    width = fixed.shape[1]
    own_rounding = 4 * gamma(y.width) * (np.abs(value[0]) @ y.parts + np.abs(value[1]))
    apart = np.concatenate([values.rad, own_rounding[None]])
    rounding = 8 * gamma(width) * (np.abs(fixed) + np.abs(average))
    off = grow((np.abs(output) @ (apart + rounding).T).max(axis=1))
    away = spectral(output) * float(lengths(apart).max()) + length(output) * float(lengths(rounding).max())
    away = min(length(off), away)
    at = mean(softmax, weights, MOVERS if head.degree == 2 else (0,))
    scores = softmax.scores
    # What scores are off by joins this head's remainder, which has a source: later maps act on its length.
    known = replace(softmax, scores=replace(scores, loose=np.zeros(scores.width)))
    moved = replace(known.moved(at.response), centre=base)
    off = off + np.abs(at.response) @ scores.loose
    away += min(float(lengths(at.response.T) @ scores.loose), spectral(at.response) * length(scores.loose))
    squares = scores.domain.reach**2 * (np.abs(at.response) @ np.square(lengths(scores.jacobian)))
    moved = moved.loosened(grow(4 * gamma(len(softmax.pattern)) * squares + 4 * U * np.abs(base)))
    slabs = cut(softmax, weights) if head.degree == 2 else None
    norm = at.norm if slabs is None or not np.isfinite(at.norm) else slabs.norm(weights, at.norm)
    # The own value moves too: p'_T (v_T - v_T at the centre).
    change, more = moved_value(y, softmax, value[0], output, head.degree)
    mixed = (Mixed(softmax, weights, slabs, norm),) if head.degree == 2 else ()
    return moved + change, Left(mixed, (at.box, norm), (), (grow(off), float(grow(away)))) + more


def moved_value(y: Taylor, softmax: Softmax, value: Array, output: Array, degree: int = 2) -> tuple[Taylor, Left]:
    """The model of p'_T (v_T - v_T at the centre) without its remainder, and that."""
    p = softmax.pattern
    domain = y.domain
    through = output @ value
    absolute = np.abs(output) @ lengths(value)
    moving = y.moving.mapped(through, row_error=4 * gamma(len(value)) * absolute)
    own = np.full((1, len(p)), -p[-1])
    own[0, -1] += 1.0
    share = mean(softmax, own, movers=(0,))
    scores = softmax.scores
    response = softmax.moved(share.response)
    gradient = response.jacobian[0]
    squares = domain.reach**2 * float(np.abs(share.response[0]) @ np.square(lengths(scores.jacobian)))
    hessian, off = response.hessian(0)
    bend = domain.form(hessian) + off + float(response.error[0])
    remainder = min(float(share.box[0]), share.norm)
    bend += sharper(softmax, own, remainder, OWN_WORTHWHILE) if degree == 2 else remainder
    bend += 4 * gamma(len(p)) * squares
    turn = domain.row(gradient)
    # A probability moves by at most one, whatever its model says.
    bend = float(grow(min(bend, 1.0 + turn)))
    linear = moving.scaled(np.full(moving.width, float(p[-1])))
    model = linear.with_curve(Products(value @ y.jacobian, gradient[None]), output)
    rounding = 16 * U * moving.parts * (1 + length(gradient) * domain.reach)
    off = 4 * gamma(y.width) * length(y.jacobian) * length(gradient) * domain.reach**2
    rounding = rounding + off * absolute
    # Of the rest, lengths are enough: the Hessians of one head's values are not worth their cost here.
    rest = spectral(through) * y.rest_norm + length(moving.loose)
    rests = lengths(through) * y.rest_norm + moving.loose
    others = grow((turn + bend) * rests), float(grow((turn + bend) * rest))
    if degree == 2:
        lines = (Line(domain, moving.jacobian, bend),)
        return model.loosened(rounding), Left((), (np.zeros(len(output)), 0.0), lines, others)
    box, norm = others[0] + bend * moving.linear, others[1] + bend * moving.linear_norm
    return model.loosened(rounding), Left((), (np.zeros(len(output)), 0.0), (), (grow(box), float(grow(norm))))
