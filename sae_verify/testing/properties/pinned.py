"""pinned: rows that are said to span every direction leave no perturbation but zero.

The rows are the SAE's own, alone and with dependencies that are exact by construction; whether they span is decided
without rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.checker.errors import Rejected
from sae_verify.checker.independence import spans_everything
from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.exact import exact_rank
from sae_verify.testing.properties.rows import DEPENDENCIES, WIDTH, block, dependent
from sae_verify.testing.rounding import wide


@dataclass(frozen=True)
class PinnedProperty:
    """See the module.

    Attributes:
        spans: the code under test.
    """

    spans: Callable[[Array], bool] = spans_everything
    name: str = "pinned"
    statement: str = "held equalities that are said to span every direction have no non-zero solution"
    reads: str = "free dimensions of rows that are said to leave none; any is a counter-example"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Encoder columns, those active at x first, and decoder rows."""
        sae, best = wide(sae), Strongest()
        active = np.flatnonzero(sae.active(torch.from_numpy(x)).numpy())
        for kind in DEPENDENCIES:
            width = min(sae.d_in, WIDTH)
            count = width + int(rng.integers(-1, 5))
            rows = dependent(block(sae, rng, max(1, count), active if rng.random() < 0.5 else None), kind, rng)
            try:
                said = self.spans(rows)
            except Rejected:
                continue
            missing = rows.shape[1] - exact_rank(rows) if said else 0
            best.offer(float(missing), 0.5, lambda kind=kind, rows=rows: {"dependency": kind, "rows": rows})
        return best.attempt("the rows are beyond the range that is handled exactly")
