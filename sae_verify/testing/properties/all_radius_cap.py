"""all-radius-cap: no residual of any length takes a readout through the final norm beyond the cap.

The norm's gain and the unembedding are drawn at random, as for final-norm: the SAE only brings the residual's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sae_verify.bounds import Bound, Cap
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.instance import Instance, TokenReadout
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.properties.final_norm import last_layer, through_norm
from sae_verify.testing.rounding import gamma, norm, wide

FAR = 10.0 ** np.array([-3.0, 0.0, 3.0, 6.0])
"""Times the residual's size: the cap is attained in the limit."""
RANDOM, TOKENS = 8, 4


def capped(instance: Instance) -> Bound:
    """The package's cap."""
    return Cap().bound(instance, 0.0)


@dataclass(frozen=True)
class AllRadiusCapProperty:
    """See the module.

    Attributes:
        cap: the code under test.
    """

    cap: Callable[[Instance], Bound] = capped
    name: str = "all-radius-cap"
    statement: str = "no residual of any length takes a readout through the final norm beyond the cap"
    reads: str = "readout reached above its lowest possible value, against the cap above it"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Residuals along every member of a readout's family, at random, and x; of all lengths."""
        best, d = Strongest(), wide(sae).d_in
        size = norm(x) or 1.0
        free = HeldCell(d, np.zeros((0, d)), (), ())
        instance = last_layer(x, free, rng.standard_normal(d), rng, size)
        if rng.random() < 0.5:  # one token against all others
            rows = rng.standard_normal((TOKENS, d))
            instance = replace(
                instance, unembedding=rows, readout=TokenReadout(0, None), ranking=tuple(rng.permutation(TOKENS))
            )
        found = self.cap(instance)
        parts = [instance.functional(member) for member in instance.members(TOKENS)]
        towards = np.stack([*(w for w, _ in parts), *rng.standard_normal((RANDOM, d)), x])
        points = (towards[:, None] * (FAR * size)[:, None]).reshape(-1, d)
        values = np.min([through_norm(instance, points, w) + constant for w, constant in parts], axis=0)
        least = min(constant - norm(w) for w, constant in parts)
        widest = max(norm(w) + abs(constant) for w, constant in parts)
        k = int(values.argmax())
        best.offer(
            float(values[k]) - least,
            found.value - least + gamma(8 * d) * widest,
            lambda: {"cap": found.value, "reached": values[k], "state": points[k], "readouts": [w for w, _ in parts]},
            len(points),
        )
        return best.attempt()
