"""cone-membership: codes come as near as is said, and no admissible code comes nearer.

The attack improves the package's own code one feature at a time, within the bounds, and starts again elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.errors import InputError
from sae_verify.geometry.cone import Reach, reach
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.sparse_code import SparseCode, sparse_code
from sae_verify.sae.base import SAE
from sae_verify.testing.properties.base import Attempt, Strongest
from sae_verify.testing.rounding import TINY, gamma, norm, norms, wide

FEATURES = 512
"""Rows of the decoder that a code may use, at most."""
SWEEPS = 200
"""Single features that are improved in one search."""
PAIRS = 64
"""Pairs that are tried against a bound for two active features."""


@dataclass(frozen=True)
class ConeMembershipProperty:
    """See the module.

    Attributes:
        nearest, sparse: the code under test.
    """

    nearest: Callable[..., Reach] = reach
    sparse: Callable[..., SparseCode] = sparse_code
    name: str = "cone-membership"
    statement: str = "the code found comes as near as is said, and no admissible code comes nearer than the distance"
    reads: str = "a claimed distance, against what some admissible code reaches"

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """The residual and some decoder rows, with and without bounds on the code."""
        sae, best = wide(sae), Strongest()
        count = int(rng.integers(1, min(sae.d_sae, FEATURES) + 1))
        some = np.sort(rng.choice(sae.d_sae, count, replace=False))
        rows = np.ascontiguousarray(sae.W_dec.numpy()[some])
        target = x if rng.random() < 0.5 else rng.standard_normal(len(x)) * (norm(x) or 1.0)
        length = norms(rows)
        size = norm(target) / float(np.median(length[length > 0])) if length.any() else 1.0  # of a typical code
        upper = None if rng.random() < 0.5 else float(size * 10.0 ** rng.uniform(-3, 1))
        total = None if rng.random() < 0.5 else float(size * 10.0 ** rng.uniform(-2, 2))
        try:
            found = self.nearest(rows, target, upper=upper, total=total)
            few = self.sparse(rows, target, int(rng.integers(1, 3)), upper=upper)
        except InputError as error:
            return best.attempt(str(error))
        shown = {"x": target, "features": some, "upper": upper, "total": total}
        self._reached(best, rows, target, found, upper, total, shown)
        if found.separation is not None:
            self._separated(best, rows, target, found, upper, shown, rng)
        self._few(best, rows, target, few, upper, shown, rng)
        return best.attempt()

    def _reached(
        self,
        best: Strongest,
        rows: Array,
        x: Array,
        found: Reach,
        upper: float | None,
        total: float | None,
        shown: dict,
    ) -> None:
        code = np.zeros(len(rows))
        code[found.member.features] = found.member.values
        left, lost = _left(rows, x, code)
        best.offer(left - lost, found.member.residual, lambda: shown | {"claim": "the code's residual", "code": code})
        if upper is not None:
            best.offer(float(code.max()) - upper, TINY, lambda: shown | {"claim": "within its bounds", "code": code})
        if total is not None:
            over = float(code.sum()) - total - gamma(len(code)) * total
            best.offer(over, TINY, lambda: shown | {"claim": "within its total", "code": code})

    def _separated(
        self,
        best: Strongest,
        rows: Array,
        x: Array,
        found: Reach,
        upper: float | None,
        shown: dict,
        rng: np.random.Generator,
    ) -> None:
        separation = found.separation
        assert separation is not None
        own = np.zeros(len(rows))
        own[found.member.features] = found.member.values
        for start in (own, np.zeros(len(rows)), _random_code(rows, x, upper, rng)):
            code = improved(rows, x, start, upper, separation.total)
            left, lost = _left(rows, x, code)
            best.offer(separation.distance, left + lost, lambda code=code: shown | {"claim": "distance", "code": code})

    def _few(
        self,
        best: Strongest,
        rows: Array,
        x: Array,
        few: SparseCode,
        upper: float | None,
        shown: dict,
        rng: np.random.Generator,
    ) -> None:
        """Every code with one active feature, and some with two, against the distance of all such codes."""
        limit = np.inf if upper is None else upper
        square = norms(rows) ** 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            alone = np.where(square > 0, np.clip(rows @ x / square, 0.0, limit), 0.0)
        alone = np.where(np.isfinite(alone), alone, 0.0)
        codes = [(j,) for j in np.argsort(-alone * np.sqrt(square))[:PAIRS]]
        if few.question.active == 2 and len(rows) > 1:
            codes += [tuple(rng.choice(len(rows), 2, replace=False)) for _ in range(PAIRS)]
        if len(few.member.features):
            codes.append(tuple(few.member.features))
        for chosen in codes:
            code = np.zeros(len(rows))
            part = list(chosen)
            code[part] = improved(rows[part], x, alone[part] / len(part), upper, None)
            left, lost = _left(rows, x, code)
            best.offer(few.distance, left + lost, lambda code=code: shown | {"claim": "few active", "code": code})


def improved(rows: Array, x: Array, code: Array, upper: float | None, total: float | None) -> Array:
    """A code nearer to x: coordinate descent within the bounds, always the feature that gains most."""
    limit = np.full(len(rows), np.inf if upper is None else upper)
    code = np.minimum(code, limit)
    if total is not None and code.sum() > total:
        code = code * (total / code.sum())
    size = norms(rows)
    rest, square = x - code @ rows, size**2
    usable = (square > 0) & np.isfinite(square)
    for _ in range(SWEEPS):
        room = limit - code if total is None else np.minimum(limit - code, max(total - float(code.sum()), 0.0))
        aim = np.where(usable, rows @ rest / np.where(usable, square, 1.0), 0.0)
        step = np.clip(aim, -code, room)
        gain = np.where(usable, step * (2.0 * aim - step) * np.where(usable, square, 0.0), 0.0)
        j = int(np.argmax(np.where(np.isfinite(gain), gain, -np.inf)))
        if not gain[j] > 0:
            break
        code[j] += step[j]
        rest = rest - step[j] * rows[j]
    return np.maximum(code, 0.0)


def _random_code(rows: Array, x: Array, upper: float | None, rng: np.random.Generator) -> Array:
    size = norms(rows)
    scale = norm(x) / np.where(size > 0, size, np.inf) / len(rows)
    return np.minimum(rng.exponential(1.0, len(rows)) * scale, np.inf if upper is None else upper)


def _left(rows: Array, x: Array, code: Array) -> tuple[float, float]:
    """||x - f W||, and its rounding."""
    written = float(code @ norms(rows))
    return norm(x - code @ rows), gamma(len(rows) + len(x)) * (norm(x) + written)
