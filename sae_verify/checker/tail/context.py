"""The earlier positions of a prompt through the blocks, and what each block shows of them to the last position.

A perturbation of the last position does not reach the earlier ones, so their keys and values are constants: here they
are enclosed in balls, from the residual stream before the first of the blocks. Every position is run at once, and every
step is rounded outward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import Ball, clip_low, sqrt, up
from ..errors import Rejected
from .activations import value_range
from .elementary import exp
from .matrix import affine, matmul, row_sums
from .rotary import rotate, tables
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
    with np.errstate(all="ignore"):  # what is not finite is refused below
        for number, block in enumerate(blocks):
            if residuals.mid.shape[1:] != block.attention_norm.shift.shape:
                raise Rejected(f"residuals of width {residuals.mid.shape[1]}, and the blocks have another")
            normed = normalise(residuals, block.attention_norm)
            everything = keys_and_values(normed, block.attention)
            if not all(np.isfinite(part).all() for ball in everything for part in (ball.mid, ball.rad)):
                raise Rejected(f"what the block {number} after the hook shows to the last position cannot be enclosed")
            window = block.attention.window
            seen = slice(0 if window is None else max(0, length - window), None)
            result.append(Context(*(ball[:, seen] for ball in everything)))
            if number + 1 < len(blocks) and length > 1:
                residuals = _through(residuals, normed, everything, block)
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


def keys_and_values(y: Ball, weights: AttentionWeights) -> tuple[Ball, Ball]:
    """Rotated keys and values, (n_kv_heads, n, d_head) each, of the normed input y (n, d) at positions 0 to n - 1."""
    keys = _heads(affine(y, weights.key, weights.key_bias), weights.n_kv_heads)
    if weights.key_norm is not None:
        keys = normalise(keys, weights.key_norm)
    return _rotated(keys, weights), _heads(affine(y, weights.value, weights.value_bias), weights.n_kv_heads)


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


def _through(residuals: Ball, normed: Ball, everything: tuple[Ball, Ball], block: BlockWeights) -> Ball:
    """The residual stream (n, d) after the block."""
    attended = _attention(normed, everything, block.attention)
    if block.attention_post_norm is not None:
        attended = normalise(attended, block.attention_post_norm)
    middle = residuals + attended
    written = _mlp(normalise(residuals if block.parallel else middle, block.mlp_norm), block.mlp)
    if block.mlp_post_norm is not None:
        written = normalise(written, block.mlp_post_norm)
    return middle + written


def _attention(y: Ball, everything: tuple[Ball, Ball], weights: AttentionWeights) -> Ball:
    """Causal attention of positions 0 to n - 1 among themselves, (n, d)."""
    keys, values = everything
    n, groups = len(y.mid), weights.n_heads // weights.n_kv_heads
    queries = _heads(affine(y, weights.query, weights.query_bias), weights.n_heads)
    if weights.query_norm is not None:
        queries = normalise(queries, weights.query_norm)
    grouped = _reshaped(_rotated(queries, weights), (weights.n_kv_heads, groups, n, weights.d_head))
    turned = Ball(keys.mid.swapaxes(-1, -2), keys.rad.swapaxes(-1, -2))
    scores = matmul(grouped, turned[:, None]) * weights.scale  # (n_kv_heads, groups, n, n)
    if weights.softcap is not None:
        cap = Ball.exact(weights.softcap)
        scores = value_range("tanh", scores / cap) * cap
    back = np.arange(n)[:, None] - np.arange(n)
    pattern = softmax(scores, (back >= 0) & (back < (n if weights.window is None else weights.window)))
    mixed = _reshaped(matmul(pattern, values[:, None]), (weights.n_heads, n, weights.d_head))
    merged = Ball(mixed.mid.swapaxes(0, 1), mixed.rad.swapaxes(0, 1))  # (n, n_heads, d_head)
    return affine(_reshaped(merged, (n, -1)), weights.output, weights.output_bias)


def _mlp(y: Ball, weights: MlpWeights) -> Ball:
    """The feed-forward network on y (n, d)."""
    inner = affine(y, weights.up, weights.up_bias)
    if weights.gate is None or weights.gate_bias is None:
        inner = value_range(weights.kind, inner)
    else:
        inner = value_range(weights.kind, affine(y, weights.gate, weights.gate_bias)) * inner
    return affine(inner, weights.down, weights.down_bias)


def _heads(x: Ball, heads: int) -> Ball:
    """(n, heads * d_head) as (heads, n, d_head)."""
    split = _reshaped(x, (len(x.mid), heads, x.mid.shape[1] // heads))
    return Ball(split.mid.swapaxes(0, 1), split.rad.swapaxes(0, 1))


def _rotated(x: Ball, weights: AttentionWeights) -> Ball:
    """X (heads, n, d_head), turned according to the position where the model has rotary positions."""
    if weights.rotary_base is None:
        return x
    return rotate(x, *tables(weights.rotary_base, weights.d_head, range(x.mid.shape[1])))


def _reshaped(x: Ball, shape: tuple[int, ...]) -> Ball:
    return Ball(x.mid.reshape(shape), x.rad.reshape(shape))
