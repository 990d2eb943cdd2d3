"""The published metrics: rates with intervals, and how far the defended features moved.

Source: arXiv 2606.18322. Intervals: E. B. Wilson, JASA 22 (1927); bootstrap over whole groups where rows share a
question, because such rows are no independent trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.problem import Clamp
from sae_verify.sae import SAE

Array = NDArray[np.float64]
Z95 = 1.959963984540054
DRAWS = 2000
REACTIVATED = 1e-9
"""Relative to the largest value of the code: what counts as a feature turned on. Rounding of float64 is far below."""


@dataclass(frozen=True)
class Rate:
    """A share of recoveries.

    Attributes:
        successes, count: what was counted.
        low, high: Wilson 95% interval, as if the rows were independent.
        cluster: percentile 95% interval of a bootstrap over groups; None when every row is a group of its own.

    """

    successes: int
    count: int
    low: float
    high: float
    cluster: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """successes / count; NaN without rows."""
        return self.successes / self.count if self.count else float("nan")


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson score interval at 95%; (0, 1) without trials."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low = 0.0 if successes == 0 else float(centre - half)
    return low, 1.0 if successes == count else float(centre + half)


def rate(flags: Sequence[bool], groups: Sequence[str] | None = None, seed: int = 0) -> Rate:
    """The share of true flags; with groups that hold several rows, also the bootstrap over groups."""
    values = np.asarray(flags, dtype=np.float64)
    successes, count = int(values.sum()), len(values)
    low, high = wilson(successes, count)
    cluster = None
    if groups is not None and len(set(groups)) < len(groups):
        cluster = cluster_bootstrap(values, groups, seed)
    return Rate(successes, count, low, high, cluster)


def cluster_bootstrap(values: Array, groups: Sequence[str], seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """95% percentile interval of the mean, whole groups drawn with replacement."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    total = np.bincount(index, weights=values, minlength=len(names))
    size = np.bincount(index, minlength=len(names)).astype(np.float64)
    chosen = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = total[chosen].sum(axis=1) / size[chosen].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Preservation:
    """How far the defended features moved, all in the units of the SAE's code unless relative.

    Attributes:
        activation_drift: ||E_S(h_rec) - c||, with c what the clamp wrote. Not zero at h itself: encoding h again does
            not return c.
        relative_drift: ||E_S(h_rec) - E_S(h)|| / ||E_S(h)||; NaN when the defended features are off at h and at h_rec.
        floor_violation: ||[E_S(h) - E_S(h_rec)]_+|| / ||E_S(h)||.
        reactivated: share of S that is off at h and on at h_rec.
        relative_norm: ||delta|| / ||h||.

    """

    activation_drift: float
    relative_drift: float
    floor_violation: float
    reactivated: float
    relative_norm: float

    @property
    def zero_reactivation(self) -> bool:
        """Whether no defended feature was turned on."""
        return self.reactivated == 0.0


def preservation(sae: SAE, clamp: Clamp, features: Sequence[int], x: Array, h: Array, delta: Array) -> Preservation:
    """Measure one perturbation.

    Args:
        sae: in float64.
        clamp: what wrote c.
        features: S, the clamp's own features unless others are defended.
        x: residual before the clamp, (d,).
        h: after it.
        delta: (d,), added to h.

    """
    points = torch.from_numpy(np.stack([x, h, h + delta]))  # (3, d)
    index = torch.tensor(list(features), dtype=torch.long)
    code = sae.encode(points)  # (3, d_sae)
    written = _written(clamp, code[0, index])  # (n,)
    before, after = code[1, index], code[2, index]
    scale = float(before.norm())
    off = REACTIVATED * float(code.abs().max())
    reactivated = (before.abs() <= off) & (after.abs() > off)
    moved, fell = float((after - before).norm()), float((before - after).clamp(min=0.0).norm())
    return Preservation(
        activation_drift=float((after - written).norm()),
        relative_drift=moved / scale if scale > 0 else (float("inf") if moved > off else float("nan")),
        floor_violation=fell / scale if scale > 0 else 0.0,
        reactivated=float(reactivated.double().mean()) if len(index) else 0.0,
        relative_norm=float(np.linalg.norm(delta) / np.linalg.norm(h)),
    )


def _written(clamp: Clamp, z: torch.Tensor) -> torch.Tensor:
    """What the clamp makes of the code of its own features, (n,); the code itself where S is another set."""
    values = torch.tensor(clamp.values, dtype=z.dtype)
    if len(values) != len(z):
        return z
    if clamp.kind == "add":
        return z + values
    if clamp.kind == "scale":
        return z * values
    return torch.where(z != 0, values, z) if clamp.kind == "set-if-active" else values
