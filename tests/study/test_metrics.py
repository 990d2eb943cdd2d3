from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.problem import Clamp
from sae_verify.sae.clamp import clamped
from sae_verify.study.metrics import cluster_bootstrap, preservation, rate, wilson
from tests.support.tiny import random_sae


def test_wilson_is_the_published_interval():
    """23 of 24 is [79.8, 99.3] per cent in arXiv 2606.18322."""
    low, high = wilson(23, 24)
    assert (round(low, 3), round(high, 3)) == (0.798, 0.993)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_solves_its_equation(case):
    successes, count = case
    low, high = wilson(successes, count)
    share = successes / count
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.959963984540054 * np.sqrt(end * (1 - end) / count), rel=1e-6)


def test_no_rows_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_rows_of_one_question_are_no_independent_trials():
    flags = [True] * 24 + [False] * 24
    together, apart = rate(flags, ["a"] * 24 + ["b"] * 24), rate(flags, [str(i) for i in range(48)])
    assert apart.cluster is None
    assert together.cluster == (0.0, 1.0)
    assert together.low == apart.low


def test_the_bootstrap_is_seeded_and_agrees_with_the_normal_interval():
    flags = np.random.default_rng(3).random(400) < 0.3
    groups = [str(i // 2) for i in range(400)]
    first, again = cluster_bootstrap(flags * 1.0, groups, seed=5), cluster_bootstrap(flags * 1.0, groups, seed=5)
    assert first == again
    half = 1.96 * np.sqrt(flags.mean() * (1 - flags.mean()) / 400)
    assert first == pytest.approx((flags.mean() - half, flags.mean() + half), abs=0.02)


def test_preservation_measures_what_the_sae_encodes():
    sae = random_sae(
        "relu", d=8, m=24, k=4, hook="blocks.0.hook_resid_post", seed=1, normalization=None, subtract=True,
        bias=1.5, dtype=torch.float64,
    )  # fmt: skip
    clamp = Clamp.set({3: 2.0, 5: 0.0, 7: 1.0})
    generator = np.random.default_rng(0)
    x, delta = generator.normal(size=8), 0.3 * generator.normal(size=8)
    h = clamped(sae, clamp, torch.from_numpy(x)).numpy()
    found = preservation(sae, clamp, clamp.features, x, h, delta)
    assert found.floor_violation > 0
    before, after = (sae.encode(torch.from_numpy(v)).numpy()[[3, 5, 7]] for v in (h, h + delta))
    assert found.activation_drift == pytest.approx(np.linalg.norm(after - [2.0, 0.0, 1.0]))
    assert found.relative_drift == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert found.floor_violation == pytest.approx(
        np.linalg.norm(np.maximum(before - after, 0)) / np.linalg.norm(before)
    )
    assert found.reactivated == pytest.approx(np.mean((before == 0) & (after != 0)))
    assert found.relative_norm == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(h))
    still = preservation(sae, clamp, clamp.features, x, h, np.zeros(8))
    assert still.zero_reactivation
    assert still.relative_drift == still.floor_violation == 0.0
