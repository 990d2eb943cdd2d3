"""No perturbation that keeps what is held at one residual is longer than R, whatever its direction.

Theorem: cell-size (c). Multipliers f > 0 of half-spaces and mu of equalities add up to nearly zero, and the rows span
the space; a left inverse is computed in floats and nothing is assumed of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, combine, dot, norm, row_lengths
from ..cell import Cell
from ..errors import Rejected
from ..independence import defect, rescaled
from ..multipliers import Multipliers, read_multipliers
from ..reader import Reader
from .cell_size import place, read_cell
from .subject import Kind, Subject, need

RANK = 1e-12
"""Relative: singular values below count as zero when the left inverse is made. It costs acceptance, never soundness."""
ROWS_A_DIMENSION = 8
SPARE_ROWS = 256
"""At most 8 d + 256 rows with multipliers: 2 d are always enough, and the left inverse costs their number times d^2."""


def proven_size(cell: Cell, multipliers: Multipliers) -> float:
    """R with ||delta|| <= R for every delta that keeps what is held, rounded up.

    Raises:
        Rejected: the rows do not provably span, or their multipliers are not proven to cancel.
    """
    sae = cell.sae
    d = sae.W_enc.shape[0]
    need(not cell.moves, "what may drift is not held exactly")
    need(len(cell.points) == 1, "what is held at two points has no size that is proved")
    (point,) = cell.points
    roles = [roles for _, *roles in multipliers]
    count = sum(part.features.size for parts in roles for part in parts)
    need(count <= ROWS_A_DIMENSION * d + SPARE_ROWS, f"{count} rows have multipliers; fewer are enough")
    rest, _ = cell.span(multipliers)  # refuses what is not held, and negative multipliers
    rows, room, f, fixed = np.zeros((0, d)), np.zeros(0), np.zeros(0), np.zeros((0, d))
    for equal, upper, decoder in roles:
        kept = upper.values > 0
        features, f = upper.features[kept], upper.values[kept]
        rows = sae.W_enc[:, features].T
        if features.size:
            now = cell.state_of(point, features)
            assert now.room is not None  # span has refused normalisations that are not affine
            room = np.maximum(now.room.high, 0.0)
        fixed = rescaled(np.concatenate([sae.W_enc[:, equal.features].T, sae.W_dec[decoder.features]]))
    at_equal, inverse = left_inverse(fixed, rows, f)
    miss = defect(np.concatenate([at_equal, inverse], axis=1), np.concatenate([fixed, rows]))
    if not f.size:
        need(miss < 1, "the equalities are not proven to span the space")
        return 0.0
    # C = sum f s has to be that of the very s below: another enclosure of the room may be smaller.
    total = dot(Ball.exact(f), Ball.exact(room))
    start = combine(Ball.exact(room), Ball.exact(inverse.T))  # L s, (d,)
    share = total / Ball.exact(f)  # C / f_j
    corner = Ball(start.mid[:, None], start.rad[:, None]) - Ball.exact(inverse) * share
    farthest = float(row_lengths(corner.magnitude.T).max())
    steepest = (Ball.exact(row_lengths(inverse.T)) / Ball.exact(f)).high.max()
    left = Ball.exact(1.0) - Ball.exact(miss) - norm(rest) * Ball.exact(steepest)
    need(left.low > 0, "the rows are not proven to span the space with multipliers that cancel")
    return float((Ball.exact(farthest) / left).high)


def left_inverse(equal: Array, rows: Array, f: Array) -> tuple[Array, Array]:
    """L_E (d, k) and L (d, n) in floats with L_E equal + L rows near the identity; equalities bear what they can.

    The rows are weighted with their multipliers, so that those whose bound is wide count little.
    """
    d = equal.shape[1]
    try:
        u, sigma, vt = np.linalg.svd(equal, full_matrices=len(equal) < d)
        rank = int((sigma > RANK * sigma.max(initial=0.0)).sum())
        free = vt[rank:].T  # (d, q)
        equal_inverse = (vt[:rank].T / sigma[:rank]) @ u[:, :rank].T
        q, r = np.linalg.qr((f[:, None] * rows) @ free)
        inverse = (free @ np.linalg.solve(r, q.T)) * f if r.size else np.zeros((d, len(rows)))
    except np.linalg.LinAlgError as error:  # also when there are fewer rows than free dimensions
        raise Rejected(f"the rows do not span the space: {error}") from None
    return equal_inverse - (inverse @ rows) @ equal_inverse, inverse


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    cell = read_cell(subject, step)
    multipliers = read_multipliers(step.raw("multipliers"), "multipliers")
    claimed = step.number("radius")
    proven = proven_size(cell, multipliers)
    need(proven <= claimed, f"what is held may reach length {proven:.9g}, more than {claimed:.9g}")
    text = f"{place(step, cell)}: no perturbation that keeps it is longer than {claimed!r}"
    return text, {"radius": claimed}


KIND = Kind(theorem="cell-size", keys=("point", "held", "features", "radius", "multipliers"), prove=_prove)
