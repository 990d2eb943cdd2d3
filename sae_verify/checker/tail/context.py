"""The earlier positions of a prompt through the blocks, and what each block shows of them to the last position.

A perturbation of the last position does not reach the earlier ones, so their keys and values are constants: here they
are enclosed in balls, from the residual stream before the first of the blocks. Every position is run at once, and every
step is rounded outward. How far a state may be from its midpoint is followed as a length. Theorem: row-lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import Ball, clip_low, sqrt, up
from ..errors import Rejected
from . import rows
from .activations import value_range
from .elementary import exp
from .matrix import row_sums
from .rotary import tables
from .rows import Rows
from .weights import AttentionWeights, BlockWeights, MlpWeights, NormWeights


@dataclass(frozen=True, eq=False)
class Context:
    """What one block shows to the last position, of the P earlier positions that it attends to there.

    Attributes:
        keys: (n_kv_heads, P, d_head), rotated.
        values: (n_kv_heads, P, d_head).

    """

    keys: Ball
    values: Ball


def contexts(blocks: Sequence[BlockWeights], residuals: Ball, length: int) -> tuple[Context, ...]:
    """Run the earlier positions through the blocks; one context a block.

    Args:
        blocks: in order.
        residuals: (length - 1, d), the residual stream before the first block at positions 0 to length - 2.
        length: number of positions of the prompt, the last included.

    """
    if length < 1 or residuals.mid.ndim != 2 or len(residuals.mid) != length - 1:
        raise Rejected(f"residuals of shape {residuals.mid.shape} for {length - 1} earlier positions")
    result: list[Context] = []
    stream = Rows.of(residuals)
    with np.errstate(all="ignore"):  # what is not finite is refused below
        for number, block in enumerate(blocks):
            if residuals.mid.shape[1:] != block.attention_norm.shift.shape:
                raise Rejected(f"residuals of width {residuals.mid.shape[1]}, and the blocks have another")
            normed = _normed(stream, block.attention_norm)
            everything = keys_and_values(normed, block.attention)
            if not all(np.isfinite(part).all() for x in everything for part in (x.ball.mid, x.ball.rad)):
                raise Rejected(f"what the block {number} after the hook shows to the last position cannot be enclosed")
            window = block.attention.window
            seen = slice(0 if window is None else max(0, length - window), None)
            result.append(Context(*(x.ball[:, seen] for x in everything)))
            if number + 1 < len(blocks) and length > 1:
                stream = _through(stream, normed, everything, block)
    return tuple(result)


def normalise(x: Ball, norm: NormWeights) -> Ball:
    """gain * z / rho + shift over the last axis of x (..., d), with rho^2 = mean(z^2) + epsilon.

    rho >= sqrt(epsilon) even where z may vanish, and no entry of z / rho exceeds sqrt(d), whatever z is.
    """
    d = Ball.exact(float(x.mid.shape[-1]))
    z = x - row_sums(x) / d if norm.centred else x
    rho = sqrt(clip_low(row_sums(z * z) / d + Ball.exact(norm.epsilon), norm.epsilon))
    # Not a quotient of balls: the divisor's may reach over many orders of magnitude, and as a ball beyond zero.
    least = np.maximum(rho.low, sqrt(Ball.exact(norm.epsilon)).low)
    inverse = Ball.between(np.nextafter(1.0 / rho.high, 0.0), np.nextafter(1.0 / least, np.inf))
    unit, most = z * inverse, float(sqrt(d).high)
    known = np.isfinite(unit.mid) & (unit.rad < most)
    unit = Ball(np.where(known, unit.mid, 0.0), np.where(known, unit.rad, most))
    return unit * norm.gain + Ball.exact(norm.shift)


def keys_and_values(y: Rows, weights: AttentionWeights) -> tuple[Rows, Rows]:
    """Rotated keys and values, (n_kv_heads, n, d_head) each, of the normed input y (n, d) at positions 0 to n - 1."""
    keys = rows.heads(y, weights.key, weights.key_bias, weights.n_kv_heads)
    if weights.key_norm is not None:
        keys = _normed(keys, weights.key_norm)
    return _rotated(keys, weights), rows.heads(y, weights.value, weights.value_bias, weights.n_kv_heads)


def softmax(scores: Ball, visible: NDArray[np.bool_]) -> Ball:
    """Over the last axis of scores (..., n, m), where `visible` (n, m); zero elsewhere. Every row sees something.

    If every score of a row is known within r, the probability p of the midpoints and the exact one differ by a factor
    between exp(-2 r) and exp(2 r), hence by at most p (2 r + 4 r^2) for r <= 1/2.
    """
    top = np.max(np.where(visible, scores.mid, -np.inf), axis=-1, keepdims=True)
    shifted = scores - Ball.exact(top)
    weight = exp(np.where(visible, shifted.mid, 0.0))
    weight = Ball(np.where(visible, weight.mid, 0.0), np.where(visible, weight.rad, 0.0))
    share = weight / row_sums(weight)
    r = np.max(np.where(visible, shifted.rad, 0.0), axis=-1, keepdims=True)
    rad = up(share.rad + share.magnitude * up(2 * r + 4 * r * r))
    known = (r <= 0.5) & np.isfinite(share.mid) & np.isfinite(rad) & (rad <= 0.5)
    result = Ball(np.where(known, share.mid, 0.5), np.where(known, rad, 0.5))  # a probability at least
    return Ball(np.where(visible, result.mid, 0.0), np.where(visible, result.rad, 0.0))


def _normed(x: Rows, norm: NormWeights) -> Rows:
    return rows.directions(x, normalise(x.exact, norm), norm.centred, norm.epsilon, norm.gain.magnitude)


def _through(stream: Rows, normed: Rows, everything: tuple[Rows, Rows], block: BlockWeights) -> Rows:
    """The residual stream (n, d) after the block."""
    attended = _attention(normed, everything, block.attention)
    if block.attention_post_norm is not None:
        attended = _normed(attended, block.attention_post_norm)
    middle = stream + attended
    written = _mlp(_normed(stream if block.parallel else middle, block.mlp_norm), block.mlp)
    if block.mlp_post_norm is not None:
        written = _normed(written, block.mlp_post_norm)
    return middle + written


def _attention(y: Rows, everything: tuple[Rows, Rows], weights: AttentionWeights) -> Rows:
    """Causal attention of positions 0 to n - 1 among themselves, (n, d)."""
    keys, values = everything
    n, groups = len(y.far), weights.n_heads // weights.n_kv_heads
    queries = rows.heads(y, weights.query, weights.query_bias, weights.n_heads)
    if weights.query_norm is not None:
        queries = _normed(queries, weights.query_norm)
    queries = _rotated(queries, weights)
    back = np.arange(n)[:, None] - np.arange(n)
    visible = (back >= 0) & (back < (n if weights.window is None else weights.window))
    mixed = []
    for head in range(weights.n_heads):
        scores = rows.products(queries[head], keys[head // groups], weights.scale)  # (n, n)
        if weights.softcap is not None:
            cap = Ball.exact(weights.softcap)
            scores = value_range("tanh", scores / cap) * cap
        pattern = softmax(Ball.exact(scores.mid), visible)
        mixed.append(rows.averaged(pattern, scores.rad, visible, values[head // groups]))
    return rows.projected(rows.merged(rows.stacked(mixed)), weights.output, weights.output_bias)


def _mlp(y: Rows, weights: MlpWeights) -> Rows:
    """The feed-forward network on y (n, d)."""
    inner = rows.projected(y, weights.up, weights.up_bias)
    if weights.gate is None or weights.gate_bias is None:
        inner = rows.activated(weights.kind, inner)
    else:
        gate = rows.activated(weights.kind, rows.projected(y, weights.gate, weights.gate_bias))
        inner = rows.multiplied(gate, inner)
    return rows.projected(inner, weights.down, weights.down_bias)


def _rotated(x: Rows, weights: AttentionWeights) -> Rows:
    """X (heads, n, d_head), turned according to the position where the model has rotary positions."""
    if weights.rotary_base is None:
        return x
    return rows.turned(x, tables(weights.rotary_base, weights.d_head, range(x.ball.mid.shape[1])))
