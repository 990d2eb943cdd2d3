"""Which further features would have to be held so that the error term has no first-order effect on a readout.

Theorem: first-order-closure. With P the projector onto the null space of what is held already, holding U too closes the
effect on g iff P g lies in the span of the P w_u; what is left is the distance from that span. Equalities alone count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_verify.errors import FeatureError, InputError, ShapeError
from sae_verify.geometry.held_cell import Array, HeldCell, Indices

CLOSED = 1e-9
"""Share of ||P g|| below which an effect counts as closed: far above the rounding of a projection, far below what one
generic row leaves. It decides what `features` and `at_least` say; the shares themselves are always given."""
BESIDE = 1e-9
"""Relative to a row's length: what is left of it beside other rows. Below, it adds no direction."""
PAIRS = 8192
"""Candidates up to which every pair is looked at: n^2 d multiplications, in blocks."""
PARALLEL = 1e-6
"""Squared sine below which the angle of two rows does not tell what they explain together; such pairs are projected."""
DOUBT = 1e-9
"""Of the squared length: what an angle cannot tell from everything. Such candidates are projected one by one."""
DOUBTFUL = 2000
"""Candidates that are projected one by one; where there are more, nothing is claimed of them."""
BLOCK = 512
"""Rows of the table of pairs that are in memory at once."""
ROUNDED = 2.0**-36
"""Relative to radius and ||g||: how far a claim lies above the float value. Above the checker's rounding for d up to
2^16; costs tightness."""


@dataclass(frozen=True, eq=False)
class Closure:
    """What holding a set of features leaves.

    Attributes:
        features: (k,) the set, as rows of the candidates.
        share: ||rest of P g|| / ||P g||, from 0 to 1; 0 when P g is zero.
        reach: largest g . delta for each unit of radius that is left, ||rest of P g||.
        closed: whether the share is at most `CLOSED`.
    """

    features: Indices
    share: float
    reach: float
    closed: bool


@dataclass(frozen=True, eq=False)
class ClosingSet:
    """A small set of features that closes a first-order effect, as far as it was found.

    Attributes:
        features: (k,) in the order in which they were chosen.
        shares: (k + 1,) what is left of ||P g|| after none, one, two, ... of them; falling.
        closed: whether all of them close it, to `CLOSED`.
        at_least: no set of fewer candidates closes it: 0, 1, 2 or 3, by exhaustion, to `CLOSED`.
        smallest: whether `features` is proven to be a smallest set, in floats.
        best: for one and, where all pairs were looked at, two candidates: the smallest share that any set leaves.
    """

    features: Indices
    shares: Array
    closed: bool
    at_least: int
    smallest: bool
    best: tuple[float, ...]


def closes(cell: HeldCell, g: Array, rows: Array, chosen: Sequence[int]) -> Closure:
    """What is left of g when the rows `chosen` are held as well.

    Args:
        cell: its equalities are held already.
        g: (d,) gradient of the readout.
        rows: (n, d) candidates, for example all encoder columns.
        chosen: indices into the rows; may be none.

    Raises:
        ShapeError: g or the rows do not fit the cell. FeatureError: an index is repeated or out of range.
    """
    g, rows = _checked(cell, g, rows)
    index = np.array(list(chosen), dtype=np.intp)
    if len(set(index.tolist())) != len(index) or (index.size and not 0 <= index.min() <= index.max() < len(rows)):
        raise FeatureError(
            f"rows {list(chosen)[:20]}", rule=f"different indices from 0 to {len(rows) - 1}", remedy="check the set"
        )
    free = _free(cell, g)
    whole = float(np.linalg.norm(free))
    if whole == 0.0:
        return Closure(index, 0.0, 0.0, True)
    left = float(np.linalg.norm(_beside(free, _orthonormal(cell, rows[index]))))
    return Closure(index, min(left / whole, 1.0), left, left <= CLOSED * whole)


def closing_set(cell: HeldCell, g: Array, rows: Array, at_most: int) -> ClosingSet:
    """A small set of candidates that closes the first-order effect on g.

    One candidate and, for up to `PAIRS` of them, two are searched exhaustively. Beyond, orthogonal matching pursuit
    (Pati, Rezaiifar, Krishnaprasad, 1993): the candidate that explains most of the rest, again and again; it gives an
    upper bound of the smallest number, not the number.

    Args:
        cell: its equalities are held already.
        g: (d,) gradient of the readout.
        rows: (n, d) candidates.
        at_most: of them to be chosen.

    Raises:
        ShapeError: g or the rows do not fit the cell. InputError: at_most is negative.
    """
    g, rows = _checked(cell, g, rows)
    if at_most < 0:
        raise InputError(f"at_most is {at_most}", rule="it must not be negative")
    free = _free(cell, g)
    whole = float(np.linalg.norm(free))
    if whole == 0.0:
        return ClosingSet(np.zeros(0, dtype=np.intp), np.zeros(1), True, 0, True, ())
    target = free / whole
    length = _lengths(cell, rows)
    alone = _cosines(rows @ target, length)
    sole = [[int(j)] for j in _top(alone, 1.0 - DOUBT)] if length.any() else []
    share, one = _least(cell, target, rows, sole)
    best = [share]
    if share <= CLOSED:
        return _set(cell, target, rows, one[:at_most], 1, best)
    at_least = 2 if len(sole) < DOUBTFUL else 1
    if len(rows) <= PAIRS and np.count_nonzero(length) >= 2:
        pairs = _pairs(cell, rows, length, target)
        share, two = _least(cell, target, rows, pairs)
        best.append(min(share, best[0]))
        if share <= CLOSED:
            return _set(cell, target, rows, two[:at_most], 2, best)
        at_least = 3 if len(pairs) < DOUBTFUL and at_least == 2 else at_least
    return _set(cell, target, rows, _pursuit(cell, rows, length, target, at_most), at_least, best)


def remaining_step(
    encoder: Array, point: int, held: Sequence[int], extra: Sequence[int], g: Array, radius: float
) -> dict[str, Any]:
    """The `linear-worst-case` step: with the pre-activations of `held` and `extra` kept, g . delta is at most this.

    Args:
        encoder: (m, d) encoder columns as rows, in float64, exactly as stored.
        point: index of a residual in the statement file; equalities do not depend on it.
        held: features held already.
        extra: those held as well; both together name at least one.
        g: (d,) gradient of the readout.
        radius: of the perturbation; not negative and finite.

    Raises:
        FeatureError: a feature is repeated or out of range, or there is none. InputError: the radius is not allowed.
        ShapeError: g does not fit the encoder.
    """
    features = [*held, *extra]
    if not features or len(set(features)) != len(features) or not 0 <= min(features) <= max(features) < len(encoder):
        raise FeatureError(f"features {features[:20]}", rule="at least one, all different, in range")
    if not (np.isfinite(radius) and radius >= 0):
        raise InputError(f"radius is {radius!r}", rule="it must be finite and not negative")
    g = np.asarray(g, dtype=np.float64)
    if g.shape != (encoder.shape[1],) or not np.isfinite(g).all():
        raise ShapeError(f"g has shape {g.shape}", rule=f"it is {encoder.shape[1]} finite numbers")
    rows = encoder[features]
    length = np.linalg.norm(rows, axis=1)
    there, mu = length > 0, np.zeros(len(features))
    if there.any():
        unit = rows[there] / length[there, None]
        mu[there] = np.linalg.lstsq(unit.T, g, rcond=BESIDE)[0] / length[there]
    size = float(np.linalg.norm(g)) + float(np.abs(mu) @ length)
    upper = radius * (float(np.linalg.norm(g - mu @ rows)) + ROUNDED * size) * (1.0 + ROUNDED)
    none: dict[str, list[Any]] = {"features": [], "values": []}
    equal = {"features": [int(f) for f in features], "values": mu.tolist()}
    return {
        "kind": "linear-worst-case",
        "theorem": "linear-dual",
        "point": point,
        "held": "preactivations",
        "features": [int(f) for f in features],
        "ball": {"norm": "l2", "radius": float(radius), "factor": None},
        "direction": g.tolist(),
        "upper": upper,
        "multipliers": {"x": {"equal": equal, "upper": none, "decoder": none}},
        "lower": None,
        "delta": None,
    }


def _set(cell: HeldCell, target: Array, rows: Array, chosen: list[int], at_least: int, best: list[float]) -> ClosingSet:
    rest, shares, basis = target, [1.0], np.zeros((cell.width, 0))
    for j in chosen:
        new = _beside(cell.free_part(rows[j]), basis)
        size = float(np.linalg.norm(new))
        if size > 0:
            basis = np.concatenate([basis, _beside(new / size, basis)[:, None]], axis=1)
            rest = _beside(target, basis)
        shares.append(min(float(np.linalg.norm(rest)), shares[-1]))
    closed = shares[-1] <= CLOSED
    index = np.array(chosen, dtype=np.intp)
    return ClosingSet(index, np.array(shares), closed, at_least, closed and len(chosen) == at_least, tuple(best))


def _least(cell: HeldCell, target: Array, rows: Array, sets: Sequence[Sequence[int]]) -> tuple[float, list[int]]:
    """The set that leaves least of the target, a unit vector, and what it leaves; everything if there is no set."""
    found = [(float(np.linalg.norm(_beside(target, _orthonormal(cell, rows[list(s)])))), list(s)) for s in sets]
    return min(found, default=(1.0, []))


def _top(values: Array, clear: float) -> Indices:
    """The largest of the values and all that are above `clear`, at most DOUBTFUL, the largest first."""
    order = np.argsort(-values, kind="stable")[:DOUBTFUL]
    return order[: max(1, int((values[order] > clear).sum()))]


def _pursuit(cell: HeldCell, rows: Array, length: Array, target: Array, at_most: int) -> list[int]:
    """Orthogonal matching pursuit until the target is closed, nothing explains more, or enough are chosen."""
    chosen, basis, rest = [], np.zeros((cell.width, 0)), target
    available = np.where(length > 0, length, np.inf)
    while len(chosen) < at_most and np.linalg.norm(rest) > CLOSED:
        gain = np.abs(rows @ rest) / available
        gain[chosen] = 0.0
        found = int(np.argmax(gain))
        if gain[found] <= CLOSED * float(np.linalg.norm(rest)):
            break
        row = cell.free_part(rows[found])
        new = _beside(row, basis)
        size = float(np.linalg.norm(new))
        available[found] = np.inf
        if size <= BESIDE * float(np.linalg.norm(row)):
            continue
        chosen.append(found)
        basis = np.concatenate([basis, _beside(new / size, basis)[:, None]], axis=1)
        rest = _beside(target, basis)
    return chosen


def _pairs(cell: HeldCell, rows: Array, length: Array, target: Array) -> list[list[int]]:
    """The pair that explains most of the target, a unit vector, by their angles, and all that angles cannot judge.

    Those are pairs that explain nearly everything, and pairs of nearly parallel rows; at most DOUBTFUL altogether.
    """
    there = np.flatnonzero(length > 0)
    units = np.empty((len(there), cell.width))
    for start in range(0, len(there), BLOCK):
        part = there[start : start + BLOCK]
        units[start : start + BLOCK] = cell.free_part(rows[part]) / length[part, None]
    cosine, best, first, doubtful = units @ target, -np.inf, [], []
    for start in range(0, len(there), BLOCK):
        mine = cosine[start : start + BLOCK, None]  # (b, 1)
        angle = units[start : start + BLOCK] @ units.T  # (b, n)
        apart = 1.0 - angle**2
        later = np.arange(len(there)) > start + np.arange(len(mine))[:, None]
        close = later & (apart <= PARALLEL)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.where(later & ~close, mine**2 + (cosine - mine * angle) ** 2 / apart, -np.inf)
        at = int(np.argmax(explained))
        if explained.flat[at] > best:
            best, first = float(explained.flat[at]), [start + at // len(there), at % len(there)]
        unclear = np.argwhere(close | (explained > 1.0 - DOUBT))[:DOUBTFUL] + np.array([start, 0])
        doubtful = [*doubtful, *unclear.tolist()][:DOUBTFUL]
    return [there[pair].tolist() for pair in [*([first] if first else []), *doubtful]][:DOUBTFUL]


def _cosines(moved: Array, length: Array) -> Array:
    return np.where(length > 0, np.abs(moved) / np.where(length > 0, length, 1.0), -1.0)


def _lengths(cell: HeldCell, rows: Array) -> Array:
    """||P w_j||, (n,); 0 for rows that are combinations of the equalities', up to rounding."""
    result = np.zeros(len(rows))
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        free = np.linalg.norm(cell.free_part(part), axis=1)
        result[start : start + BLOCK] = np.where(free > BESIDE * np.linalg.norm(part, axis=1), free, 0.0)
    return result


def _free(cell: HeldCell, g: Array) -> Array:
    """P g; zero when nothing but rounding is left of it."""
    free = cell.free_part(g)
    return free if np.linalg.norm(free) > BESIDE * np.linalg.norm(g) else np.zeros_like(g)


def _orthonormal(cell: HeldCell, rows: Array) -> Array:
    """Orthonormal basis of the span of the P w_u, (d, k)."""
    free = cell.free_part(rows)
    length = np.linalg.norm(free, axis=1)
    beside = length > BESIDE * np.linalg.norm(rows, axis=1)
    if not beside.any():
        return np.zeros((cell.width, 0))
    _, sigma, right = np.linalg.svd(free[beside] / length[beside, None], full_matrices=False)
    return right[sigma > BESIDE * sigma[0]].T


def _beside(v: Array, basis: Array) -> Array:
    """V without its part in an orthonormal basis (d, k); twice, against cancellation."""
    for _ in range(2):
        v = v - basis @ (basis.T @ v)
    return v


def _checked(cell: HeldCell, g: Array, rows: Array) -> tuple[Array, Array]:
    g, rows = np.asarray(g, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    if g.shape != (cell.width,) or rows.ndim != 2 or rows.shape[1] != cell.width or not np.isfinite(g).all():
        raise ShapeError(f"g {g.shape} and rows {rows.shape}", rule=f"({cell.width},) and (n, {cell.width}), finite")
    return g, rows
