"""modular-rank: rows that are said to be independent over the rationals are.

The rows are the SAE's own, alone and with dependencies that are exact by construction; their rank is found again by
elimination modulo other, larger primes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rank import ModularRank, rank
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.exact import exact_rank
from sae_verify.testing.properties.rows import DEPENDENCIES, WIDTH, block, dependent
from sae_verify.testing.rounding import wide


@dataclass(frozen=True)
class ModularRankProperty:
    """See the module.

    Attributes:
        find: the code under test.
    """

    find: Callable[[Array], ModularRank] = rank
    name: str = "modular-rank"
    statement: str = "rows chosen by elimination modulo a prime are linearly independent over the rationals"
    reads: str = "rows of a claimed independent set beyond its rank; any is a counter-example"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Decoder rows and encoder columns; the residual plays no part."""
        del x
        sae, best = wide(sae), Strongest()
        for kind in DEPENDENCIES:
            count = int(rng.integers(1, 2 * WIDTH))
            rows = dependent(block(sae, rng, count), kind, rng)
            found = self.find(rows)
            minor = rows[np.ix_(found.chosen, found.columns)]
            beyond = max(found.rank - exact_rank(minor), found.rank - exact_rank(rows))
            best.offer(float(beyond), 0.5, lambda kind=kind, rows=rows: {"dependency": kind, "rows": rows})
        return best.attempt()
