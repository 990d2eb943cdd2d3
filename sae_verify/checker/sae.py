"""The SAE's algebra in outward-rounded arithmetic: what is on, what is off, what cannot be told, and how much room.

Written from the published formats, not from the package's own SAE code, so that the two check each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arithmetic import (
    TINY,
    Array,
    Ball,
    clip_low,
    combine,
    exp,
    gamma,
    hull,
    norm,
    project_rows,
    row_lengths,
    sqrt,
    squared_norm,
    total,
    up,
)
from .errors import Rejected

MAX_WIDTH = 2**14
"""Widths up to this are handled: some proofs keep a few d x d matrices (2 GiB each at most)."""


@dataclass(frozen=True, eq=False)
class Sae:
    """Stored weights, exactly, and the settings that decide the algebra.

    `parameters` holds what the architecture needs: b_enc; threshold; k and rescale; b_gate, b_mag and r_mag.
    """

    architecture: str
    W_enc: Array  # (d, m)
    W_dec: Array  # (m, d)
    b_dec: Array  # (d,)
    parameters: dict[str, Any]
    subtract_b_dec: bool
    normalization: str
    input_scale: float
    digest: str

    def __post_init__(self) -> None:
        d, m = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        if d == 0 or m == 0 or self.W_dec.shape != (m, d) or self.b_dec.shape != (d,):
            raise Rejected(f"SAE shapes do not fit: {self.W_enc.shape}, {self.W_dec.shape}, {self.b_dec.shape}")
        if d > MAX_WIDTH:
            raise Rejected(f"a residual stream of {d} dimensions is more than the {MAX_WIDTH} that are handled")
        for name, value in self.parameters.items():
            if isinstance(value, np.ndarray) and value.shape != (m,):
                raise Rejected(f"SAE tensor {name} has shape {value.shape}, not ({m},)")
        if not (np.isfinite(self.input_scale) and self.input_scale > 0):
            raise Rejected(f"input scale {self.input_scale!r} is not positive")

    @cached_property
    def column_lengths(self) -> Array:
        """Upper bounds of ||w_j||, (m,)."""
        return row_lengths(self.W_enc.T)

    @property
    def affine(self) -> bool:
        """Whether pre-activations are affine in the residual, so that a held cell is a polyhedron."""
        return self.normalization == "none"


@dataclass(frozen=True, eq=False)
class State:
    """The code of one residual, for the features in `features`; entries align with it.

    Attributes:
        features: (n,) indices.
        value: the code, as a ball; certainly-off features are exactly zero.
        on: certainly non-zero. off: certainly zero. Neither: rounding cannot tell.
        room: largest `w_j . delta` that keeps an off feature off while on features keep their values; None when the
            normalisation is not affine. Meaningless for features that are on.

    """

    features: np.ndarray
    value: Ball
    on: np.ndarray
    off: np.ndarray
    room: Ball | None


@dataclass(frozen=True, eq=False)
class Scale:
    """What the normalisation did to a residual: output = code_output * factor + shift."""

    inputs: Ball  # (d,) the encoder's input, before b_dec
    factor: Ball  # ()
    shift: Ball  # ()


def normalise(sae: Sae, x: Ball) -> Scale:
    """The encoder's input and the inverse map, position-wise."""
    d = x.mid.shape[0]
    one, zero = Ball.exact(1.0), Ball.exact(0.0)
    if sae.normalization == "none":
        scale = Ball.exact(sae.input_scale)
        return Scale(x * scale, one / scale, zero)
    if sae.normalization == "layer_norm":
        mean = total(x) / Ball.exact(float(d))
        centred = x - mean
        sigma = sqrt(squared_norm(centred) / Ball.exact(float(d - 1)))
        return Scale(centred / (sigma + Ball.exact(1e-5)), sigma, mean)
    if sae.normalization == "constant_norm_rescale":
        factor = norm(x) / sqrt(Ball.exact(float(d)))
        return Scale(x / factor, factor, zero)
    raise Rejected(f"normalisation {sae.normalization!r} is not known")


def decoder_norms(sae: Sae, features: np.ndarray) -> Ball:
    """||d_i|| for each feature, (n,)."""
    rows = sae.W_dec[features]
    d = rows.shape[1]
    square = np.einsum("nd,nd->n", rows, rows)
    return sqrt(Ball(square, up(square * 2 * gamma(d) + d * TINY)))


def state(sae: Sae, x: Ball, features: np.ndarray | None = None) -> State:
    """The code at x. TopK compares all features, whatever is asked for."""
    every = np.arange(sae.W_enc.shape[1])
    wanted = every if features is None else features
    chosen = every if sae.architecture == "topk" else wanted
    inputs = normalise(sae, x).inputs
    if sae.subtract_b_dec:
        inputs = inputs - Ball.exact(sae.b_dec)
    whole = chosen is every
    columns = sae.W_enc.T if whole else sae.W_enc.T[chosen]
    product = project_rows(inputs, columns, sae.column_lengths if whole else sae.column_lengths[chosen])
    value, on, off, room = _ARCHITECTURES[sae.architecture](sae, product, chosen)
    room = room / Ball.exact(sae.input_scale) if sae.affine else None
    value = Ball(np.where(off, 0.0, value.mid), np.where(off, 0.0, value.rad))
    if chosen is not wanted:
        value, on, off = value[wanted], on[wanted], off[wanted]
        room = None if room is None else room[wanted]
    return State(wanted, value, on, off, room)


def _relu(sae: Sae, product: Ball, chosen: np.ndarray) -> tuple[Ball, np.ndarray, np.ndarray, Ball]:
    a = product + Ball.exact(sae.parameters["b_enc"][chosen])
    return clip_low(a, 0.0), a.low > 0, a.high <= 0, -a


def _jumprelu(sae: Sae, product: Ball, chosen: np.ndarray) -> tuple[Ball, np.ndarray, np.ndarray, Ball]:
    # relu(a) where a > theta: for a negative theta the relu decides.
    theta = np.maximum(sae.parameters["threshold"][chosen], 0.0)
    a = product + Ball.exact(sae.parameters["b_enc"][chosen])
    on, off = a.low > theta, a.high <= theta
    either = hull(a, Ball.exact(np.zeros_like(a.mid)))
    value = Ball(np.where(on, a.mid, either.mid), np.where(on, a.rad, either.rad))
    return value, on, off, Ball.exact(theta) - a


def _topk(sae: Sae, product: Ball, chosen: np.ndarray) -> tuple[Ball, np.ndarray, np.ndarray, Ball]:
    k = sae.parameters["k"]
    score = product + Ball.exact(sae.parameters["b_enc"])
    norms = decoder_norms(sae, chosen) if sae.parameters["rescale"] else None
    if norms is not None:
        score = score * norms
    low, high = score.low, score.high
    sorted_low, sorted_high = np.sort(low), np.sort(high)
    m = low.shape[0]
    rivals = m - np.searchsorted(sorted_high, low, side="left")  # how many could reach it, itself included
    beaten = m - np.searchsorted(sorted_low, high, side="right")  # how many certainly exceed it
    on = (low > 0) & (rivals <= k)
    off = (high <= 0) | (beaten >= k)
    level = clip_low(Ball.between(sorted_low[m - k], sorted_high[m - k]), 0.0)  # smallest selected value, or 0
    either = hull(score, Ball.exact(np.zeros_like(score.mid)))
    value = Ball(np.where(on, score.mid, either.mid), np.where(on, score.rad, either.rad))
    room = level - score
    return value, on, off, room if norms is None else room / norms


def _gated(sae: Sae, product: Ball, chosen: np.ndarray) -> tuple[Ball, np.ndarray, np.ndarray, Ball]:
    log_gain = sae.parameters["r_mag"][chosen]
    gate = product + Ball.exact(sae.parameters["b_gate"][chosen])
    magnitude = product * exp(log_gain) + Ball.exact(sae.parameters["b_mag"][chosen])
    on = (gate.low > 0) & (magnitude.low > 0)
    off = (gate.high <= 0) | (magnitude.high <= 0)
    either = clip_low(hull(magnitude, Ball.exact(np.zeros_like(magnitude.mid))), 0.0)
    value = Ball(np.where(on, magnitude.mid, either.mid), np.where(on, magnitude.rad, either.rad))
    # Off means gate <= 0 or magnitude <= 0: half-spaces of one normal, so their union is the larger one.
    first, second = -gate, -(magnitude * exp(-log_gain))
    room = Ball.between(np.maximum(first.low, second.low), np.maximum(first.high, second.high))
    return value, on, off, room


_ARCHITECTURES = {"relu": _relu, "jumprelu": _jumprelu, "topk": _topk, "gated": _gated}


def write(sae: Sae, change: Ball, features: np.ndarray, x: Ball) -> Ball:
    """What a change of the code, (n,), writes into the residual, (d,)."""
    if sae.architecture == "topk" and sae.parameters["rescale"]:
        change = change / decoder_norms(sae, features)
    return combine(change, Ball.exact(sae.W_dec[features])) * normalise(sae, x).factor


def decode(sae: Sae, code: Ball, x: Ball) -> Ball:
    """D(code) for a full code, (m,): the reconstruction of x, (d,)."""
    scale = normalise(sae, x)
    if sae.architecture == "topk" and sae.parameters["rescale"]:
        code = code / decoder_norms(sae, np.arange(code.mid.shape[0]))
    return (combine(code, Ball.exact(sae.W_dec)) + Ball.exact(sae.b_dec)) * scale.factor + scale.shift
