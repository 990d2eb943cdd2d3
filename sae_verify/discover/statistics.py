"""How well features tell two groups apart: differences, effect sizes and AUROC, each with an interval.

Everything is a column at a time: groups are (n, m) matrices of n values for each of m features. Intervals are for one
feature that was named beforehand; `largest_by_chance` says what the best of m features reaches when there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sae_verify.geometry.held_cell import Array


@dataclass(frozen=True, eq=False)
class Estimate:
    """Values with an interval, (m,) each; NaN where the sample says nothing."""

    value: Array
    low: Array
    high: Array


def mean_difference(first: Array, second: Array, level: float = 0.95) -> Estimate:
    """Mean of `first` less mean of `second`, with Welch's interval; NaN bounds for groups of one."""
    value = first.mean(axis=0) - second.mean(axis=0)
    if min(len(first), len(second)) < 2:
        nothing = np.full_like(value, np.nan)
        return Estimate(value, nothing, nothing)
    one, two = first.var(axis=0, ddof=1) / len(first), second.var(axis=0, ddof=1) / len(second)
    total = one + two
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = total**2 / (one**2 / (len(first) - 1) + two**2 / (len(second) - 1))
    freedom = np.where(total > 0, freedom, 1.0)
    half = stats.t.ppf(0.5 + level / 2, freedom) * np.sqrt(total)
    return Estimate(value, value - half, value + half)


def effect_size(first: Array, second: Array, level: float = 0.95) -> Estimate:
    """Hedges' g, the difference of means in pooled standard deviations, with the usual normal interval.

    Infinite where the groups are constant and differ, zero where they are constant and equal; NaN with fewer than three
    values in all or for a single one against one.
    """
    n, k = len(first), len(second)
    freedom = n + k - 2
    difference = first.mean(axis=0) - second.mean(axis=0)
    if freedom < 1:
        nothing = np.full_like(difference, np.nan)
        return Estimate(nothing, nothing, nothing)
    squares = ((first - first.mean(axis=0)) ** 2).sum(axis=0) + ((second - second.mean(axis=0)) ** 2).sum(axis=0)
    pooled = np.sqrt(squares / freedom)
    with np.errstate(invalid="ignore", divide="ignore"):
        g = np.where(difference == 0, 0.0, (1 - 3 / (4 * freedom - 1)) * difference / pooled)
        half = stats.norm.ppf(0.5 + level / 2) * np.sqrt((n + k) / (n * k) + g**2 / (2 * (n + k)))
    half = np.where(np.isfinite(g), half, 0.0)
    return Estimate(g, g - half, g + half)


def auroc(first: Array, second: Array, level: float = 0.95) -> Estimate:
    """The chance that a value of `first` exceeds one of `second`, ties counting half, with an interval.

    The interval is Newcombe's method 5, which is not degenerate at 0 and 1: bounds theta at which the estimate is
    z standard errors away, with the variance of Hanley and McNeil at theta.
    Source: R. G. Newcombe, Statistics in Medicine 25 (2006) 559-573.
    """
    n, k = len(first), len(second)
    ranks = stats.rankdata(np.concatenate([first, second]), axis=0)  # (n + k, m)
    value = (ranks[:n].sum(axis=0) - n * (n + 1) / 2) / (n * k)
    z = float(stats.norm.ppf(0.5 + level / 2))
    return Estimate(value, 1.0 - _upper(1.0 - value, n, k, z), _upper(value, n, k, z))


def _upper(value: Array, n: int, k: int, z: float) -> Array:
    """The largest theta that is within z standard errors of the estimate, by bisection."""
    star = (n + k) / 2 - 1
    low, high = value.copy(), np.ones_like(value)
    for _ in range(50):
        middle = (low + high) / 2
        variance = middle * (1 - middle) * (1 + star * ((1 - middle) / (2 - middle) + middle / (1 + middle))) / (n * k)
        inside = middle - value <= z * np.sqrt(variance)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high


def largest_by_chance(first: Array, second: Array, *, shuffles: int = 200, level: float = 0.95, seed: int = 0) -> float:
    """What |AUROC - 1/2| of the best of all m features stays below, with that probability, if the groups are alike.

    From shuffled group labels. Features found by looking at all of them are worth a look above this.
    """
    n, k = len(first), len(second)
    ranks = stats.rankdata(np.concatenate([first, second]), axis=0)  # (n + k, m)
    ranks = ranks[:, (ranks != ranks[:1]).any(axis=0)]  # constant features are always 1/2
    if not ranks.shape[1]:
        return 0.0
    generator = np.random.default_rng(seed)
    labels = np.stack([generator.permutation(n + k) < n for _ in range(shuffles)]).astype(float)  # (shuffles, n + k)
    value = (labels @ ranks - n * (n + 1) / 2) / (n * k)  # (shuffles, m)
    return float(np.quantile(np.abs(value - 0.5).max(axis=1), level, method="higher"))


def proportion(count: Array, of: int, level: float = 0.95) -> Estimate:
    """Shares with their exact (Clopper-Pearson) interval."""
    count = np.asarray(count, dtype=float)
    tail = (1 - level) / 2
    low = np.where(count > 0, stats.beta.ppf(tail, count, of - count + 1), 0.0)
    high = np.where(count < of, stats.beta.ppf(1 - tail, count + 1, of - count), 1.0)
    return Estimate(count / of, low, high)
