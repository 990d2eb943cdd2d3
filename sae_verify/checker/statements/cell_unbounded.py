"""One direction in which a perturbation may grow without end and everything held at one residual keeps its value.

Theorem: cell-size (d).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import Array, Ball, combine, norm, row_lengths
from ..cell import Cell
from ..errors import Rejected
from ..independence import reach, rescaled
from ..reader import Reader
from .cell_size import parts_of, place, read_cell
from .subject import Kind, Subject, need

CLOSE = 2.0**-20
"""Relative: how near to the recorded direction the exact one has to be. Any value below 1 would be sound; with this one
the recorded direction is worth its name."""


def proven_ray(cell: Cell, direction: Array, still: np.ndarray) -> float:
    """A distance within which of `direction` some v != 0 lies, t v keeping everything that is held for all t >= 0.

    Args:
        cell: of one residual.
        direction: (d,), in floats.
        still: features whose pre-activation v does not move at all, besides those held by equality.

    Raises:
        Rejected: no such v is known.
    """
    need(len(still) <= len(direction), f"{len(still)} features are not independent in {len(direction)} dimensions")
    parts, equal = parts_of(cell)
    fixed = rescaled(np.concatenate([equal, cell.sae.W_enc[:, still].T]))
    exact = Ball.exact(direction)
    away = 0.0
    if fixed.size:
        away = float((Ball.exact(reach(fixed)) * norm(combine(exact, Ball.exact(fixed.T)))).high)
    need(norm(exact).low > 0, "the direction is zero")
    need((Ball.exact(away) / norm(exact)).high <= CLOSE, "the direction moves what must not move")
    known = {row.tobytes() for row in fixed}
    for part in (part for part in parts if part.upper.size):
        moved = combine(exact, Ball.exact(part.upper.T)).high
        falls = np.nextafter(moved + np.nextafter(row_lengths(part.upper) * away, np.inf), np.inf) < 0
        rests = ~part.upper.any(axis=1)
        doubtful = np.flatnonzero(~(falls & (part.room >= 0)) & ~rests)
        roomy = part.room[doubtful] > 0 if part.strict else part.room[doubtful] >= 0
        need(roomy.all(), "a feature has no room to stay where it is")
        for row in doubtful:  # these must not move at all
            if rescaled(part.upper[[row]]).tobytes() not in known:
                raise Rejected("a feature's pre-activation may rise along the direction")
    return away


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    cell = read_cell(subject, step)
    direction, still = subject.vector(step, "direction"), subject.features(step, "still")
    away = proven_ray(cell, direction, still)
    length = float(norm(Ball.exact(direction)).low)
    known = f"in one direction, known to {2.0 * away / length:.1g}"  # twice, so that one digit is no claim too many
    text = f"{place(step, cell)}: {known}, perturbations of every length keep it"
    return text, {"within": away, "still": len(still)}


KIND = Kind(theorem="cell-size", keys=("point", "held", "features", "direction", "still"), prove=_prove)
