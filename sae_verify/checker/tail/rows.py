"""Rows of numbers known up to a length: balls that also say how far each row is from its midpoint, in l2 norm.

Entry by entry a radius grows by the absolute row sums of every map it goes through; a length grows by its spectral norm
alone, which over a block of a trained model is less by orders of magnitude. Each operation evaluates its map at the
midpoints, with rounding, and adds how far the map can move what is that close to them. Theorem: row-lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arithmetic import TINY, Array, Ball, gamma
from .activations import slope, value_range
from .matrix import affine, matmul
from .rotary import rotate
from .sizes import grow, lengths, spectral

VANISHED = 2.0**-500
"""More than the root of what squares lose that vanish below the range of floats."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Every array v (..., n, d) with |v - mid| <= rad entry by entry, and ||v_i - mid_i|| <= far_i for each row.

    Attributes:
        ball: (..., n, d). far: (..., n).

    """

    ball: Ball
    far: Array

    @classmethod
    def of(cls, ball: Ball) -> Rows:
        """What a ball says."""
        return cls(ball, _lengths(ball.rad))

    @property
    def exact(self) -> Ball:
        """The midpoints alone."""
        return Ball.exact(self.ball.mid)

    def __getitem__(self, index: int) -> Rows:
        return Rows(self.ball[index], self.far[index])

    def __add__(self, other: Rows) -> Rows:
        return moved(self.exact + other.exact, self.ball.rad + other.ball.rad, self.far + other.far)


def moved(at: Ball, entries: Array, far: Array) -> Rows:
    """A map's values `at` the midpoints, rounded outward, and how far it is from there: entry by entry, and by row."""
    far = grow(_lengths(at.rad) + far)
    rad = grow(at.rad + np.minimum(entries, far[..., None]))
    return Rows(Ball(at.mid, rad), np.minimum(far, _lengths(rad)))


def _lengths(x: Array) -> Array:
    """Upper bounds of the lengths of rows (..., n, d): (..., n)."""
    return lengths(x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])


def projected(x: Rows, weight: Array, bias: Array) -> Rows:
    """x W^T + b, W (m, k): (n, m)."""
    entries = x.far[:, None] * lengths(weight)
    return moved(affine(x.exact, weight, bias), entries, x.far * spectral(weight))


def stacked(made: list[Rows]) -> Rows:
    """One after another along a new first axis."""
    mid, rad = (np.stack([getattr(one.ball, name) for one in made]) for name in ("mid", "rad"))
    return Rows(Ball(mid, rad), np.stack([one.far for one in made]))


def heads(x: Rows, weight: Array, bias: Array, count: int) -> Rows:
    """x W^T + b, split into `count` heads: (count, n, d_head)."""
    width = len(weight) // count
    parts = [slice(h * width, (h + 1) * width) for h in range(count)]
    return stacked([projected(x, weight[rows], bias[rows]) for rows in parts])


def turned(x: Rows, tables: tuple[Ball, Ball]) -> Rows:
    """Rotated according to their positions, (heads, n, d_head): each pair of entries by a rotation times a gain."""
    cos, sin = tables
    gain = np.sqrt(np.square(cos.magnitude) + np.square(sin.magnitude)).max(axis=-1)  # (n,)
    far = grow(x.far * gain)
    return moved(rotate(x.exact, cos, sin), far[..., None], far)


def merged(x: Rows) -> Rows:
    """The heads of (n_heads, n, d_head) beside one another: (n, n_heads d_head)."""
    mid, rad = (part.swapaxes(0, 1).reshape(part.shape[1], -1) for part in (x.ball.mid, x.ball.rad))
    return Rows(Ball(mid, rad), _lengths(x.far.swapaxes(0, 1)))


def products(x: Rows, y: Rows, scale: Ball) -> Ball:
    """scale x_i . y_j, of rows (n, d) and (m, d): (n, m)."""
    at = matmul(x.exact, Ball(y.ball.mid.T, np.zeros(y.ball.mid.T.shape))) * scale
    a, b = lengths(x.ball.mid), lengths(y.ball.mid)
    off = np.outer(a, y.far) + np.outer(x.far, b) + np.outer(x.far, y.far)
    return Ball(at.mid, grow(at.rad + scale.magnitude * off))


def averaged(pattern: Ball, off: Array, visible: NDArray[np.bool_], y: Rows) -> Rows:
    """sum_j p'_ij y'_j with p' the softmax of scores that differ by at most `off` (n, m) from those of `pattern`.

    With c the average of the midpoints, p' = p e^(e_j) / Z and r the largest |e_j|, what it differs from c is
    sum p' (y' - y) + (sum p (y - c) + sum p (e^(e_j) - 1) (y - c)) / Z, Z >= e^-r; and p' adds up to 1.

    Args:
        pattern: (n, m), of the midpoints of the scores.
        off: (n, m).
        visible: (n, m).
        y: (m, d).

    """
    at = matmul(pattern, y.exact)
    off = np.where(visible, off, 0.0)
    r = off.max(axis=1)
    apart = np.where(visible, _distances(at.mid, y.ball.mid), 0.0)
    steps = ((pattern.mid + pattern.rad) * off * (1 + off) * apart).sum(axis=1)
    near = (1 + r + r * r) * steps + (r + r * r) * _lengths(at.rad)
    far = np.where(r <= 0.5, np.minimum(near, apart.max(axis=1)), apart.max(axis=1))
    far = grow(far + np.where(visible, y.far, 0.0).max(axis=1))
    return moved(at, far[:, None], far)


def _distances(x: Array, y: Array) -> Array:
    """Upper bounds of ||x_i - y_j||, of rows (n, d) and (m, d): (n, m)."""
    a, b = lengths(x), lengths(y)
    whole = np.square(a)[:, None] + np.square(b)
    squares = np.maximum(whole - 2 * (x @ y.T), 0.0) + 4 * gamma(x.shape[1] + 4) * whole
    return grow(np.minimum(np.sqrt(squares) + VANISHED, a[:, None] + b))


def activated(kind: str, x: Rows) -> Rows:
    """The activation, entry by entry."""
    steep = slope(kind)
    return moved(value_range(kind, x.exact), steep * x.ball.rad, steep * x.far)


def multiplied(x: Rows, y: Rows) -> Rows:
    """The product, entry by entry: x' y' - x y = x (y' - y) + (x' - x) y + (x' - x) (y' - y)."""
    a, b = (np.abs(one.ball.mid) for one in (x, y))
    entries = a * y.ball.rad + x.ball.rad * b + x.ball.rad * y.ball.rad
    far = a.max(axis=-1) * y.far + (b + y.ball.rad).max(axis=-1) * x.far
    return moved(x.exact * y.exact, entries, far)


def directions(x: Rows, at: Ball, centred: bool, epsilon: float, gain: Array) -> Rows:
    """A norm's values `at` the midpoints, gain z / rho + shift, and how far they move: 1 / rho at most for each length.

    z / rho has the derivative (I - z z^T / (d rho^2)) / rho, between 0 and I / rho; and its length is at most sqrt(d).
    """
    mid, d = x.ball.mid, x.ball.mid.shape[-1]
    whole = _lengths(mid)
    z = mid - mid.mean(axis=-1, keepdims=True) if centred else mid
    least = np.sqrt(np.square(z).sum(axis=-1)) * (1 - 2.0**-30) - (2.0**-40 + 4 * gamma(d)) * whole - x.far
    least = np.where(np.isfinite(least), least, 0.0)  # squares may have overflowed
    rho = np.sqrt(np.square(np.maximum(least, 0.0)) / d + epsilon) * (1 - 2.0**-30)
    far = grow(np.fmin(x.far / np.maximum(rho, TINY), 2 * np.sqrt(d)))  # what is no number is within that, too
    size = np.abs(gain)
    return moved(at, size * far[..., None], far * size.max())
