"""Differences, effect sizes and AUROC: by hand, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from sae_verify.discover.statistics import auroc, effect_size, largest_by_chance, mean_difference, proportion


def by_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = first[:, None] - second[None]
    return np.asarray(((pairs > 0) + 0.5 * (pairs == 0)).mean(axis=(0, 1)))


def test_auroc_counts_pairs_and_halves_ties() -> None:
    rng = np.random.default_rng(0)
    for n, k in ((1, 7), (5, 3), (20, 30)):
        first, second = rng.integers(0, 4, (n, 6)).astype(float), rng.integers(0, 4, (k, 6)).astype(float)
        found = auroc(first, second)
        assert found.value == pytest.approx(by_pairs(first, second))
        assert (found.low <= found.value + 1e-12).all()
        assert (found.high >= found.value - 1e-12).all()
        mirrored = auroc(second, first)
        assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


def test_auroc_of_perfect_separation_is_not_certain() -> None:
    found = auroc(np.arange(5.0)[:, None] + 10, np.arange(5.0)[:, None])
    assert found.value[0] == found.high[0] == 1.0
    assert 0.5 < found.low[0] < 0.95


@pytest.mark.parametrize(("n", "k"), [(8, 8), (6, 30), (40, 40)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_auroc_interval_covers(n: int, k: int, shift: float) -> None:
    from statistics import NormalDist

    rng = np.random.default_rng(1)
    found = auroc(rng.normal(shift, 1, (n, 2000)), rng.normal(0, 1, (k, 2000)))
    truth = NormalDist().cdf(shift / 2**0.5)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.92 <= covered <= 0.995


def test_mean_difference_and_effect_size_by_hand() -> None:
    first, second = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [2.0]])
    difference = mean_difference(first, second)
    assert difference.value[0] == 1.0
    # Welch: variances 1/3 and 2/2, 1.7 degrees of freedom would be too few to guess: compare with scipy.
    from scipy import stats

    welch = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False).confidence_interval()
    assert (difference.low[0], difference.high[0]) == pytest.approx((welch.low, welch.high))
    g = effect_size(first, second)
    pooled = ((2 * 1.0 + 1 * 2.0) / 3) ** 0.5
    assert g.value[0] == pytest.approx((1 - 3 / 11) * 1.0 / pooled)
    assert g.low[0] < 0 < g.high[0]


def test_intervals_cover() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(1, 1, (12, 2000)), rng.normal(0, 2, (20, 2000))
    difference = mean_difference(first, second)
    assert 0.93 <= ((difference.low <= 1) & (difference.high >= 1)).mean() <= 0.97
    same = rng.normal(0, 1, (20, 2000))
    g = effect_size(same + 0.5, rng.normal(0, 1, (20, 2000)))
    assert 0.93 <= ((g.low <= 0.5) & (g.high >= 0.5)).mean() <= 0.98


def test_constant_and_single_groups() -> None:
    ones, zeros = np.ones((3, 1)), np.zeros((3, 1))
    assert effect_size(ones, zeros).value[0] == np.inf
    assert effect_size(ones, ones).value[0] == 0.0
    assert np.isnan(effect_size(ones[:1], zeros[:1]).value[0])
    assert np.isnan(mean_difference(ones[:1], zeros).low[0])
    assert mean_difference(ones, zeros).low[0] == 1.0


def test_chance_level_separates_noise_from_a_planted_feature() -> None:
    rng = np.random.default_rng(3)
    exceeded = 0
    for seed in range(40):
        first, second = rng.normal(size=(15, 60)), rng.normal(size=(15, 60))
        level = largest_by_chance(first, second, seed=seed)
        exceeded += bool((np.abs(auroc(first, second).value - 0.5) > level).any())
    assert exceeded <= 6  # 5 in 100 are expected
    first[:, 7] += 3
    assert np.abs(auroc(first, second).value - 0.5)[7] > level
    assert largest_by_chance(np.ones((4, 3)), np.ones((4, 3))) == 0.0


def test_proportion_is_exact() -> None:
    found = proportion(np.array([0, 3, 10]), 10)
    assert found.value.tolist() == [0.0, 0.3, 1.0]
    assert found.low[0] == 0.0
    assert found.high[2] == 1.0
    assert found.high[0] == pytest.approx(1 - 0.025**0.1)
    assert found.low[1] < 0.3 < found.high[1]
