"""spectral-gap: exactly as many singular values are small, and the others as large, as the evidence claims.

The claims are compared with a singular value decomposition of the rows themselves, without a Gram matrix, whose error
is a few roundings of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import Matrix
from sae_verify.geometry.spectral_gap import singular_values_step
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.rounding import gamma, wide

OPERATIONS = 3e8
"""Of one decomposition, which bounds the number of rows."""
SETS = 3
"""Sets of features tried in one attempt."""


def claims(sae: SAE, features: np.ndarray, matrix: Matrix, relative: float) -> dict[str, Any]:
    """The package's claims about the singular values of some stored rows."""
    return singular_values_step(sae, features, matrix=matrix, relative=relative)


@dataclass(frozen=True)
class SpectralGapProperty:
    """See the module.

    Attributes:
        claim: the code under test.
    """

    claim: Callable[[SAE, np.ndarray, Matrix, float], dict[str, Any]] = claims
    name: str = "spectral-gap"
    statement: str = "exactly k singular values are at most tau1 and all others at least tau2, as claimed"
    reads: str = "a claimed bound of a singular value, against the value"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Some decoder rows or encoder columns; the residual plays no part."""
        del x
        sae, best = wide(sae), Strongest()
        for _ in range(SETS):
            most = int(max(1, min(sae.d_sae, OPERATIONS / (4.0 * sae.d_in**2))))
            features = np.sort(rng.choice(sae.d_sae, int(rng.integers(1, most + 1)), replace=False))
            matrix: Matrix = "decoder" if rng.random() < 0.5 else "encoder"
            relative = float(rng.choice([0.0, 1e-6, 1e-2, 0.3]))
            try:
                step = self.claim(sae, features, matrix, relative)
            except UnsupportedError:
                continue  # no claim
            rows = (sae.W_dec.numpy() if matrix == "decoder" else sae.W_enc.numpy().T)[features]
            self._compare(best, rows, step, {"matrix": matrix, "features": features})
        return best.attempt("no spectrum has a gap that can be proven")

    def _compare(self, best: Strongest, rows: Array, step: dict[str, Any], more: dict[str, Any]) -> None:
        sigma = np.linalg.svd(rows, compute_uv=False)
        missing = rows.shape[1] - len(sigma) if step["side"] == "directions" else 0
        values = np.sort(np.concatenate([sigma, np.zeros(missing)]))  # rising
        lost = gamma(sum(rows.shape)) * float(np.linalg.norm(rows))
        few = len(step["vectors"])
        more = more | {"small": few, "at_most": step["at_most"], "at_least": step["at_least"]}
        if step["at_most"] is not None and few:
            best.offer(float(values[few - 1]) - lost, float(step["at_most"]), lambda: more)
        if step["at_least"] is not None:
            least = float(values[few]) if few < len(values) else 0.0
            best.offer(float(step["at_least"]), least + lost, lambda: more)
