"""The polyhedron of perturbations that keep what the threat model holds.

Theorem: held-cell. For every architecture and every point, what is held is

    equal @ delta = 0      and      sign * normals @ delta <= slack,

with encoder columns (or decoder rows) as normals: an active feature keeps its value iff its pre-activation does not
move,
and an inactive one stays off iff its pre-activation does not rise by more than its slack. For a TopK SAE with only
some features held, and where they may drift,
the set is not convex; `outer` contains it (bounds) and `inner` is contained in it (attacks). Elsewhere both are the set
itself, up to its boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.geometry.drift import Drift, drift_at
from sae_verify.problem import ErrorBall
from sae_verify.sae.base import SAE
from sae_verify.sae.topk import TopKSAE

Array = NDArray[np.float64]
Indices = NDArray[np.integer]
Point = Literal["x", "h"]
Side = Literal["outer", "inner"]


class Row(NamedTuple):
    """Where a held equality comes from: the point, `equal` (encoder column) or `decoder` (decoder row), the feature."""

    point: Point
    role: Literal["equal", "decoder"]
    feature: int


@dataclass(frozen=True, eq=False)
class HalfSpaces:
    """`sign * normals[j] @ delta <= slack[j]` for every row j with finite slack.

    Attributes:
        point, sign: where it is held, and the direction.
        normals: (n, d), shared with the SAE's weights unless rows were left out.
        slack: (n,), inf where there is no constraint.
        features: (n,) the feature of each row; None when row j is feature j.
        start: the first of the d coordinates of delta that the normals act on; not 0 at a further position alone.
    """

    point: Point
    sign: float
    normals: Array
    slack: Array
    features: Indices | None = None
    start: int = 0

    def moved(self, delta: Array) -> Array:
        """`sign * normals @ delta` for delta (..., width): (..., n)."""
        mine = delta[..., self.start : self.start + self.normals.shape[1]]
        return self.sign * (self.normals @ mine if mine.ndim == 1 else mine @ self.normals.T)

    def wide(self, rows: Indices, width: int) -> Array:
        """Some of the normals as rows over all coordinates, (n, width)."""
        chosen = self.normals[rows]
        if chosen.shape[1] == width:
            return chosen
        return np.pad(chosen, ((0, 0), (self.start, width - self.start - chosen.shape[1])))

    def named(self, rows: Indices) -> Indices:
        """The features of some rows."""
        return rows if self.features is None else self.features[rows]


@dataclass(frozen=True, eq=False)
class HeldCell:
    """What one prompt's perturbations must satisfy, besides their norm.

    Attributes:
        width: d, the residual stream's width.
        equal: (n, d) rows with `equal @ delta = 0`; they may be dependent.
        rows: what each of them is.
        half_spaces: families of inequalities; zero always satisfies them.
        drift: where features are not held but may move a little; nothing else is held then. Only of an outer cell.

    """

    width: int
    equal: Array
    rows: tuple[Row, ...]
    half_spaces: tuple[HalfSpaces, ...]
    drift: Drift | None = None

    @cached_property
    def basis(self) -> Array:
        """Orthonormal basis of the span of the equalities, (d, rank); numerical rank at 1e-12 of the largest."""
        if not self.equal.size:
            return np.zeros((self.width, 0))
        length = np.linalg.norm(self.equal, axis=1, keepdims=True)
        rows = self.equal / np.where(length > 0, length, 1.0)
        _, sigma, right = np.linalg.svd(rows, full_matrices=False)
        return np.ascontiguousarray(right[sigma > 1e-12 * sigma[0]].T) if sigma[0] > 0 else np.zeros((self.width, 0))

    @property
    def rank(self) -> int:
        """Dimensions that the equalities take away, numerically."""
        return self.basis.shape[1]

    @property
    def trivial(self) -> bool:
        """Whether the equalities leave only delta = 0, so that a certificate says nothing about the model."""
        return self.rank == self.width

    def free_part(self, v: Array) -> Array:
        """Orthogonal projection of (..., d) onto the equalities' null space; twice, against cancellation."""
        for _ in range(2):
            v = v - (v @ self.basis) @ self.basis.T
        return v


WORTHWHILE = 4096
"""Half-spaces from which on leaving some out pays for copying the others."""


def within(cell: HeldCell, radius: float) -> HeldCell:
    """The same set inside the ball of this radius, without half-spaces that the ball cannot reach."""
    families = []
    for half in cell.half_spaces:
        if len(half.slack) < WORTHWHILE:
            families.append(half)
            continue
        rows = np.flatnonzero(half.slack < radius * (1.0 + 1e-9) * np.linalg.norm(half.normals, axis=1))
        near = HalfSpaces(half.point, half.sign, half.normals[rows], half.slack[rows], half.named(rows), half.start)
        families.append(near if len(rows) < 0.5 * len(half.slack) else half)
    return HeldCell(cell.width, cell.equal, cell.rows, tuple(families), cell.drift)


def held_cell(sae: SAE, threat: ErrorBall, defended: tuple[int, ...], x: Array, h: Array, side: Side) -> HeldCell:
    """The held cell of one prompt.

    Args:
        sae: in float64.
        threat: what is held, and where.
        defended: S, the features that `preactivations` and `defended` speak of.
        x: residual before the clamp, (d,).
        h: defended state, (d,).
        side: `outer` for bounds, `inner` for attacks.

    Raises:
        UnsupportedError: pre-activations are held and the SAE's normalisation is not linear, or the architecture has
            no such held set.

    """
    return held_cells(sae, threat, defended, x[None], h[None], side)[0]


def held_cells(
    sae: SAE, threat: ErrorBall, defended: tuple[int, ...], x: Array, h: Array, side: Side
) -> list[HeldCell]:
    """The held cells of many prompts, (B, d) residuals: one pass of the encoder. Arguments and errors as above."""
    sae.require_held(threat.held)
    points: tuple[Point, ...] = ("x", "h") if threat.at == "both" else (threat.at,)  # type: ignore[assignment]
    parts = [_at_point(sae, threat, defended, x if point == "x" else h, point, side) for point in points]
    return [
        HeldCell(
            width=sae.d_in,
            equal=np.concatenate([part.equal for part in token]),
            rows=tuple(row for part in token for row in part.rows),
            half_spaces=tuple(family for part in token for family in part.half_spaces),
            drift=token[0].drift,  # at one point only
        )
        for token in zip(*parts, strict=True)
    ]


def _at_point(
    sae: SAE, threat: ErrorBall, defended: tuple[int, ...], at: Array, point: Point, side: Side
) -> list[HeldCell]:
    """What is held at one point of every prompt, (B, d)."""
    d, count = sae.d_in, len(at)
    if threat.held == "free":
        return [HeldCell(d, np.zeros((0, d)), (), ())] * count
    encoder = sae.W_enc.numpy().T  # (d_sae, d), a view of the weights
    tensor = torch.from_numpy(at)
    if threat.held == "unreachable":
        if threat.features is not None:
            return [_equalities(sae, sae.W_dec.numpy(), point, "decoder", np.array(threat.features))] * count
        active = sae.active(tensor).numpy()
        return [_equalities(sae, sae.W_dec.numpy(), point, "decoder", np.flatnonzero(on)) for on in active]
    sae.normalization.linear_scale(f"the held set {threat.held!r}")
    if threat.held == "preactivations":
        return [_equalities(sae, encoder, point, "equal", np.array(defended, dtype=np.intp))] * count
    held = np.ones(sae.d_sae, dtype=bool)
    if threat.held in ("defended", "drift"):
        held[:] = False
        held[list(defended)] = True
    active, room = (part.numpy() for part in sae.active_and_slack(tensor))  # (B, d_sae)
    cells = []
    for i in range(count):
        drift = None if threat.drift is None or side == "inner" else drift_at(sae, defended, at[i], threat.drift, point)
        if drift is not None:
            cells.append(HeldCell(d, np.zeros((0, d)), (), (), drift))
            continue
        if isinstance(sae, TopKSAE) and not held.all():
            families = _selection(sae, tensor[i], active[i], held, encoder, point) if side == "inner" else ()
        else:
            families = (HalfSpaces(point, 1.0, encoder, np.where(~active[i] & held, room[i], np.inf)),)
        fixed = _equalities(sae, encoder, point, "equal", np.flatnonzero(held & active[i]))
        cells.append(HeldCell(d, fixed.equal, fixed.rows, families))
    return cells


def _equalities(
    sae: SAE, matrix: Array, point: Point, role: Literal["equal", "decoder"], features: NDArray[np.integer]
) -> HeldCell:
    return HeldCell(sae.d_in, matrix[features], tuple(Row(point, role, int(f)) for f in features), ())


def _selection(
    sae: TopKSAE, at: torch.Tensor, active: NDArray[np.bool_], held: NDArray[np.bool_], encoder: Array, point: Point
) -> tuple[HalfSpaces, ...]:
    """Half-spaces on which a TopK SAE selects the same features, theorem held-cell (c); outside, S may lose its place.

    The level that separates on from off is half-way between the least score on and the largest off.
    """
    norms = sae.W_dec.norm(dim=1).numpy() if sae.rescale_by_decoder_norm else np.ones(sae.d_sae)
    above = (sae.scores(at) - sae.cutoff(at)).numpy()  # (d_sae,), at most 0 where off
    half = 0.5 * float(np.min(-above[~active], initial=np.inf)) if not active.all() else 0.0
    unit = norms * sae.normalization.linear_scale("the held set")
    off = np.where(~active, (-above - half) / unit, np.inf)
    on = np.where(active & ~held, (above + half) / unit, np.inf)
    return HalfSpaces(point, 1.0, encoder, off), HalfSpaces(point, -1.0, encoder, on)
