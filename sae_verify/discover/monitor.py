"""A runtime monitor of the state at the hook: features, reconstruction error, and what the encoder does not see.

It learns what is usual on benign states, sets its thresholds on other benign states so that false alarms stay at a
chosen rate, and is judged on states with recovery perturbations, among them ones made to evade it (`evasion`). The
rate is guaranteed on average for states exchangeable with those it was calibrated on (split conformal), no further.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.statistics import auroc, proportion
from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import checked_features
from sae_verify.sae.base import SAE

DETECTORS = ("features", "error", "shape", "invisible")
"""features: largest standard score of a watched feature. error: ||e|| / ||x||. shape: Mahalanobis length of the error
term. invisible: share of ||x - mean|| that no active feature's encoder column sees."""
SHRINKAGE = 0.1
"""Weight of the mean variance in the error's covariance: keeps it invertible where benign states are few."""
LEAST_FIT = 8
ROWS = 256
"""States whose invisible parts are computed at a time."""
ROUNDING = 1e-6
"""Invisible shares below this are rounding: the active features see everything."""


@dataclass(frozen=True, eq=False)
class Monitor:
    """A calibrated monitor.

    Attributes:
        sae: in float64.
        watched: features that the first detector looks at, (n,).
        mean, spread: (n,) of their activations on benign states.
        centre: (d,) mean benign state.
        error_mean: (d,) mean benign error term. whitening: (d, d), error terms times it have unit covariance.
        median, threshold: (4,) of each detector's score on the states it was calibrated on.
        rate: false alarms of all detectors together, at most, on average.
    """

    sae: SAE
    watched: Tensor
    mean: Tensor
    spread: Tensor
    centre: Tensor
    error_mean: Tensor
    whitening: Tensor
    median: Tensor
    threshold: Tensor
    rate: float

    def scores(self, states: Tensor) -> Tensor:
        """Score of each detector, (N, 4) for states (N, d) float64; differentiable where the code is."""
        sae = self.sae
        code = sae.encode(states)
        error = states - sae.decode(code, states)
        length = states.norm(dim=1).clamp(min=torch.finfo(states.dtype).tiny)
        standard = (code[:, self.watched] - self.mean) / self.spread  # (N, n)
        parts = [
            standard.amax(dim=1),
            error.norm(dim=1) / length,
            ((error - self.error_mean) @ self.whitening).norm(dim=1),
            self._invisible(states, code),
        ]
        return torch.stack(parts, dim=1)

    def excess(self, states: Tensor) -> Tensor:
        """Scores between 0 at the benign median and 1 at the threshold, (N, 4); differentiable where the code is."""
        return (self.scores(states) - self.median) / (self.threshold - self.median)

    def alarms(self, states: Tensor) -> Tensor:
        """Which detectors raise an alarm, bool (N, 4)."""
        return self.scores(states) > self.threshold

    def _invisible(self, states: Tensor, code: Tensor) -> Tensor:
        """The active set is taken as given: between thresholds it is constant."""
        away = states - self.centre
        parts = [_unseen(self.sae, *some) for some in zip(away.split(ROWS), code.split(ROWS), strict=True)]
        hidden = torch.cat(parts).norm(dim=1) / away.norm(dim=1).clamp(min=torch.finfo(states.dtype).tiny)
        return torch.where(hidden > ROUNDING, hidden, 0.0)


def _unseen(sae: SAE, away: Tensor, code: Tensor) -> Tensor:
    """What the encoder columns of each row's active features do not see of it, (n, d)."""
    with torch.no_grad():
        on = code != 0
        width = max(1, int(on.sum(dim=1).max()))
        first = on.int().argsort(dim=1, descending=True, stable=True)[:, :width]  # (n, k) active features, then others
        columns = sae.W_enc.T[first] * on.gather(1, first)[..., None]  # (n, k, d), zero for the others
        inverse = torch.linalg.pinv(columns @ columns.mT, hermitian=True, rtol=1e-12)  # (n, k, k)
    coefficients = inverse @ (columns @ away[..., None])  # (n, k, 1)
    return away - (columns.mT @ coefficients)[..., 0]


@dataclass(frozen=True)
class Judged:
    """A detector (or `any`) on benign and on attacked states; intervals are 95%.

    Attributes:
        name: of the detector.
        auroc: chance that an attacked state scores higher than a benign one.
        false_alarms, detected: shares above the threshold.
    """

    name: str
    auroc: float
    auroc_interval: tuple[float, float]
    false_alarms: float
    false_alarms_interval: tuple[float, float]
    detected: float
    detected_interval: tuple[float, float]


def calibrate(
    sae: SAE, benign: Array, *, rate: float = 0.05, watched: Sequence[int] | None = None, seed: int = 0
) -> Monitor:
    """Learn from one half of the benign states and set thresholds on the other.

    Args:
        sae: any dtype; the monitor works in float64.
        benign: (N, d) states at the hook, where the monitor will read (before or after the clamp).
        rate: false alarms of all four detectors together; each gets a quarter of it.
        watched: features whose activation is watched; None for all.
        seed: of the split.

    Raises:
        ShapeError, InputError: states or rate are not usable; there are too few states for the rate.
        FeatureError: a watched feature does not exist.
    """
    if benign.ndim != 2 or benign.shape[1] != sae.d_in or not np.isfinite(benign).all():
        raise ShapeError(f"benign states have shape {benign.shape}", rule=f"finite, (N, {sae.d_in})")
    if not 0 < rate < 1:
        raise InputError(f"rate is {rate!r}", rule="it must be between 0 and 1", remedy="use rate=0.05")
    each = rate / len(DETECTORS)
    half = len(benign) // 2
    rank = int(np.ceil((half + 1) * (1 - each)))  # of the threshold among the calibrating scores
    if len(benign) - half < LEAST_FIT or rank > half:
        need = 2 * max(int(np.ceil(1 / each)) - 1, LEAST_FIT)
        raise InputError(
            f"{len(benign)} benign states for a rate of {rate:g}",
            rule=f"that takes {need} at least: half to learn from, half to set the thresholds",
            remedy="give more states, or allow more false alarms",
        )
    sae = sae.to(torch.float64)
    order = np.random.default_rng(seed).permutation(len(benign))
    fit, rest = (torch.from_numpy(benign[part].astype(np.float64)) for part in (order[half:], order[:half]))
    index = range(sae.d_sae) if watched is None else watched
    chosen = torch.from_numpy(checked_features(list(index), sae.d_sae))
    code, error = sae.encode(fit)[:, chosen], sae.error(fit)
    spread = code.std(dim=0)
    usual = spread[spread > 0]
    floor = float(usual.median()) if len(usual) else 1.0  # a feature never seen on is measured in a typical unit
    monitor = Monitor(
        sae=sae,
        watched=chosen,
        mean=code.mean(dim=0),
        spread=spread.clamp(min=floor),
        centre=fit.mean(dim=0),
        error_mean=error.mean(dim=0),
        whitening=_whitening(error),
        median=torch.zeros(len(DETECTORS), dtype=torch.float64),
        threshold=torch.ones(len(DETECTORS), dtype=torch.float64),
        rate=rate,
    )
    with torch.no_grad():
        scores = monitor.scores(rest).sort(dim=0).values  # (half, 4)
    threshold = scores[rank - 1]
    median = torch.minimum(scores[(half - 1) // 2], threshold - torch.finfo(torch.float64).eps * (1 + threshold.abs()))
    return dataclasses.replace(monitor, median=median, threshold=threshold)


def _whitening(error: Tensor) -> Tensor:
    """Inverse root of the error term's covariance, shrunk towards its mean variance, (d, d)."""
    centred = error - error.mean(dim=0)
    covariance = centred.T @ centred / max(1, len(error) - 1)
    typical = float(covariance.diagonal().mean()) or 1.0
    d = len(covariance)
    values, vectors = torch.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * typical * torch.eye(d).double())
    return vectors * values.rsqrt() @ vectors.T


def judge(monitor: Monitor, benign: Array, attacked: Array) -> tuple[Judged, ...]:
    """How well each detector, and all together, tell attacked states from benign ones it has not seen.

    Args:
        monitor: calibrated.
        benign: (N, d) states that had no part in calibrating.
        attacked: (K, d).
    """
    with torch.no_grad():
        quiet, loud = (monitor.excess(torch.from_numpy(s.astype(np.float64))).numpy() for s in (benign, attacked))
    first, second = _with_any(loud), _with_any(quiet)
    separated = auroc(first, second)
    false, found = proportion((second > 1).sum(axis=0), len(second)), proportion((first > 1).sum(axis=0), len(first))
    return tuple(
        Judged(
            name,
            float(separated.value[i]),
            (float(separated.low[i]), float(separated.high[i])),
            float(false.value[i]),
            (float(false.low[i]), float(false.high[i])),
            float(found.value[i]),
            (float(found.low[i]), float(found.high[i])),
        )
        for i, name in enumerate((*DETECTORS, "any"))
    )


def _with_any(excess: Array) -> Array:
    """The largest excess as a column of its own, (N, 5)."""
    return np.concatenate([excess, excess.max(axis=1, keepdims=True)], axis=1)
