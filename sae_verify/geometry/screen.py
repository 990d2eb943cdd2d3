"""Which half-spaces may be violated at each token's point: priced in batches, and again only where points moved far.

With values v of a pass at the point a, every point p = alpha a + r has |w_j . p - alpha v_j| <= length_j (|alpha| e +
||r||), e the error of the pass. So a token is priced again only when that leaves more rows undecided than a pass costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sae_verify.geometry.dictionary import Dictionary
from sae_verify.geometry.held_cell import Array, HeldCell, Indices

BELOW = 1.0 - 2.0**-22
"""Times a slack: keeps its float32 value below the truth."""
ABOVE = 1.0 + 2.0**-20
"""Times an error: covers the rounding of the screen's own float32 arithmetic."""
CHEAPER = 128
"""Recomputing one row in this many, exactly, costs about as much as one pass over all of them."""

Found = tuple[int, Indices, Array, Array]
"""Family, features, signed rows (n, d) and by how much each half-space is exceeded (n,)."""


class Screen:
    """The slacks of a batch, and what is known of the products; memory: two float32 numbers a token and row."""

    def __init__(self, rows: Dictionary, cells: Sequence[HeldCell]) -> None:
        self.rows, self.cells = rows, cells
        self._slacks = [[half.slack.astype(np.float32) * np.float32(BELOW) for half in c.half_spaces] for c in cells]
        self._anchors = np.zeros((len(cells), rows.width))
        self._values = np.zeros((len(cells), len(rows)), dtype=np.float32)
        self._errors = np.full(len(cells), np.inf)  # nothing is known yet
        self._buffers = np.empty((2, len(rows)), dtype=np.float32)

    def violated(self, which: Sequence[int], points: Array, tolerance: Array) -> list[list[Found]]:
        """Half-spaces that the points violate, exactly.

        Args:
            which: tokens.
            points: (n, d) their points.
            tolerance: (n,) times a row's length: an excess that does not count.

        Returns:
            one list a token, with an entry for each family that has violated half-spaces.
        """
        near = [self._near(i, point) for i, point in zip(which, points, strict=True)]
        far = [k for k, rows in enumerate(near) if rows is None]
        if far:
            again = [which[k] for k in far]
            self._values[again], self._errors[again] = self.rows.price(points[far])
            self._anchors[again] = points[far]
        found: list[list[Found]] = []
        for k, i in enumerate(which):
            families = near[k] or self._near(i, points[k]) or []
            exact = [self._exactly(i, f, rows, points[k], tolerance[k]) for f, rows in enumerate(families) if rows.size]
            found.append([entry for entry in exact if entry is not None])
        return found

    def _near(self, i: int, point: Array) -> list[NDArray[np.intp]] | None:
        """Rows that may be violated, by family; None when they are too many and a pass would tell more."""
        anchor = self._anchors[i]
        fresh = bool((anchor == point).all()) and self._errors[i] < np.inf
        squared = float(anchor @ anchor)
        if not fresh and not squared > 0:
            return None
        alpha = 1.0 if fresh else float(anchor @ point) / squared
        moved = 0.0 if fresh else float(np.linalg.norm(point - alpha * anchor))
        error = np.float32((abs(alpha) * self._errors[i] + moved) * ABOVE)
        values, reach = self._buffers
        np.multiply(self.rows.screen, error, out=reach)
        result = []
        for half, slack in zip(self.cells[i].half_spaces, self._slacks[i], strict=True):
            np.multiply(self._values[i], np.float32(half.sign * alpha), out=values)
            np.add(values, reach, out=values)
            mask = ~(values <= slack)  # NaN counts as near
            if not fresh and np.count_nonzero(mask) > len(self.rows) // CHEAPER:
                return None
            result.append(np.flatnonzero(mask))
        return result

    def _exactly(self, i: int, f: int, near: Indices, point: Array, tolerance: float) -> Found | None:
        """Those of the near rows that float64 finds violated."""
        half = self.cells[i].half_spaces[f]
        exact = half.sign * self.rows.gather(near)
        excess = exact @ point - half.slack[near]
        over = excess > tolerance * self.rows.length[near]
        return (f, near[over], exact[over], excess[over]) if over.any() else None
