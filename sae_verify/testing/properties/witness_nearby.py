"""witness-nearby: a float vector has an exactly admissible one as near as the package says.

For rows M the package names k such that every r is M c for some ||c|| <= k ||r||. The worst r is the left singular
vector of the least singular value s, and needs ||c|| = 1 / s; dependent rows reach some r not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.checker.errors import Rejected
from sae_verify.checker.independence import reach, rescaled
from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.exact import exact_rank
from sae_verify.testing.properties.rows import WIDTH, block, dependent
from sae_verify.testing.rounding import gamma, wide

KINDS = ("none", "none", "multiples", "few rows repeated", "half is zero")
"""Dependencies that are tried, see `rows.DEPENDENCIES`."""


@dataclass(frozen=True)
class WitnessNearbyProperty:
    """See the module.

    Attributes:
        prepare, distance: the code under test: rows as they are held, and k.
    """

    prepare: Callable[[Array], Array] = rescaled
    distance: Callable[[Array], float] = reach
    name: str = "witness-nearby"
    statement: str = "near a vector that obeys the held equalities in floats is one that obeys them exactly, within k"
    reads: str = "distance to the nearest exact vector, against the distance that is said to be enough"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Encoder columns, those active at x first, up to as many as there are dimensions."""
        sae, best = wide(sae), Strongest()
        active = np.flatnonzero(sae.active(torch.from_numpy(x)).numpy())
        for kind in KINDS:
            count = int(rng.integers(1, min(sae.d_in, WIDTH) + 1))
            rows = dependent(block(sae, rng, count, rng.permutation(active)), kind, rng)
            try:
                held = self.prepare(rows)
                k = self.distance(held)
            except Rejected:
                continue  # no claim
            if not len(held):
                continue
            sigma = np.linalg.svd(held, compute_uv=False)
            lost = gamma(sum(held.shape)) * float(sigma[0]) * np.sqrt(len(held))
            least = float(sigma[-1]) if len(held) <= held.shape[1] else 0.0
            needed = 1.0 / (least + lost)
            if least <= lost and exact_rank(held) < len(held):  # floats cannot tell; exact arithmetic can
                needed = np.inf
            best.offer(needed, k, lambda kind=kind, held=held, k=k: {"dependency": kind, "rows": held, "k": k})
        return best.attempt("no rows are proven to be independent")
