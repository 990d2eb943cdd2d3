"""Means under a moving softmax, and the series of the exponential behind them."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.tail.attention import weights_of
from sae_verify.checker.tail.following import followed
from sae_verify.checker.tail.pieces import sharper
from sae_verify.checker.tail.series import excess1, excess2, excess2_low, excess3
from sae_verify.checker.tail.signless import signs_free
from sae_verify.checker.tail.softmax import Softmax, mean
from sae_verify.checker.tail.taylor import Taylor

from .enclosure import admissible, holds, model, project, starts, values_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

POINTS = np.concatenate([
    [0.0, 1e-300, 1e-17, 1e-9, 1e-5, 1e-3, 0.1, 0.5, 1.0, np.nextafter(1, 0), np.nextafter(1, 2), 1.5, 3.0, 8.0],
    [20.0, 36.0, 50.0, 200.0, 600.0, 690.0],
    np.random.default_rng(0).uniform(0, 3, 50),
])  # fmt: skip


def test_series_of_the_exponential() -> None:
    excess = excess2(POINTS), excess2_low(POINTS), excess3(POINTS)
    with mpmath.workdps(700):
        for c, above, below, third in zip(POINTS, *excess, strict=True):
            x = mpmath.mpf(c)
            exact = 2 * (mpmath.exp(x) - 1 - x) / x**2 if c else mpmath.mpf(1)
            assert below <= exact <= above
            assert above <= exact * (1 + mpmath.mpf(10) ** -7)
            assert ((mpmath.exp(x) - 1 - x - x * x / 2) / x if c else 0) <= third
            for sign in (1, -1):
                ball = excess1(np.array([sign * c]))
                y = sign * x
                ratio = (mpmath.exp(y) - 1) / y if c else mpmath.mpf(1)
                assert ball.low[0] <= ratio <= ball.high[0]


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([0.0, 1e-4, 0.3, 1.0, 2.0, 5.0, 30.0]))
def test_one_score_alone(seed: int, p: float, reach: float) -> None:
    """`cubic` and what a key is compared with by itself, against every c: the other keys' part of Z is at its least."""
    rng = np.random.default_rng(seed)
    pattern = np.array([p, 1 - p])
    scores = model(rng, 2, 1, centre=0.0)
    scores = Taylor(scores.domain, scores.centre, np.array([[reach], [0.0]]), (), (), np.zeros(2))
    s = Softmax(pattern, scores, 1e-12)
    for c in np.concatenate([np.linspace(-reach, reach, 60), [reach, -reach]]):
        if c == 0:
            continue
        z = 1 + p * (np.expm1(c) - c)
        theta = float(mpmath.exp(mpmath.mpf(c)) - 1 - mpmath.mpf(c) - mpmath.mpf(c) ** 2 / 2)
        assert abs(theta) / (abs(c) * z) <= s.cubic[0] * (1 + 1e-12)
        own, steep = s.alone
        assert abs(np.expm1(c) / z - c - c * c / 2) / abs(c) <= own[0] + 1e-13
        assert abs(np.expm1(c)) / (abs(c) * z) <= steep[0] * (1 + 1e-12)
        assert 1 - 1 / z <= s.partition + 1e-13


def out_of(softmax: Softmax, weights: np.ndarray, *, slabs: bool = False) -> Taylor:
    """The model of the mean, which is zero at the centre; with the domain cut into slabs, the norm alone."""
    at = mean(softmax, weights)
    if slabs:
        norm = sharper(softmax, weights, at.norm)
        at = replace(at, box=np.full(len(weights), norm), norm=norm)
    moved = replace(softmax.moved(at.response), centre=np.zeros(len(weights)))
    return moved.with_source("attention", at.box, at.norm)


@pytest.mark.parametrize("keys", [1, 2, 7])
@pytest.mark.parametrize("linear", [0.01, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 300.0])
def test_means(keys: int, linear: float, spread: float) -> None:
    rng = np.random.default_rng(keys)
    for box in (0, 1):
        x = model(rng, keys, 3, box, centre=spread, linear=linear, quadratic=linear / 5, errors=linear / 5)
        softmax = weights_of(x)
        weights = rng.normal(size=(3, keys))
        weights = weights - (weights @ softmax.pattern)[:, None]

        def exact(m: object, z: object, weights: np.ndarray = weights) -> object:
            raised = m.exp(z - m.top(z))  # type: ignore[attr-defined]
            return (raised / raised.sum(-1)[..., None]) @ m.array(weights.T)  # type: ignore[attr-defined]

        holds(x, out_of(softmax, weights), exact, rng, steps=15)
        holds(x, out_of(softmax, weights, slabs=True), exact, rng, steps=15)


@given(st.integers(0, 10**6), st.sampled_from([1e-150, 1.0, 1e150]))
def test_products_with_free_signs(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = model(rng, 4, 3, linear=1.0)
    weights, rows = scale * rng.normal(size=(3, 4)), 10.0 ** rng.integers(-5, 3, (4, 1)) * x.jacobian
    bound = signs_free(x.domain, weights, rows)
    for _ in range(50):
        y = rng.normal(size=3)
        reach = np.abs(rows @ (y / np.linalg.norm(y)))
        assert np.linalg.norm(weights @ (reach * rng.choice([-1, 1, 0.5], 4)) / scale) * scale <= bound * (1 + 1e-12)


@pytest.mark.parametrize("keys", [1, 2, 6])
@pytest.mark.parametrize("linear", [0.05, 1.0, 6.0])
@pytest.mark.parametrize("rest", [0.02, 0.5])
def test_what_is_not_linear_is_followed(keys: int, linear: float, rest: float) -> None:
    """F(l + r) - F(l) - F'(0) r by ascent over y and the errors of r."""
    rng = np.random.default_rng(keys)
    worst = 0.0
    for box in (0, 1):
        x = model(rng, keys, 3 + box, box, centre=1.0, linear=linear, quadratic=rest, errors=rest, loose=rest / 9)
        softmax = weights_of(x)
        weights = rng.normal(size=(3, keys))
        weights = weights - (weights @ softmax.pattern)[:, None]
        scores = softmax.scores
        line = Taylor(scores.domain, scores.centre, scores.jacobian, (), (), np.full(keys, 1e-12))
        bound = followed(Softmax(softmax.pattern, line, softmax.slip), weights, scores)
        p, w = torch.tensor(softmax.pattern), torch.tensor(weights)
        raw = [starts(rng, scores.domain, 3 + box, 24)]
        raw += [torch.tensor(rng.choice([-1.0, 1.0], (24, len(s.box)))) for s, _ in scores.errors]
        raw += [torch.tensor(rng.choice([-1.0, 0.0, 1.0], (24, keys)))]
        for r in raw:
            r.requires_grad_(True)
        optimiser = torch.optim.Adam(raw, lr=0.05)
        for _ in range(30):
            y = project(raw[0], box)
            linear_part = y @ torch.tensor(scores.jacobian).T
            moved = values_of(scores, y, *admissible(scores, raw[1:]))
            averages = [torch.softmax(torch.log(p) + c, 1) @ w.T for c in (moved, linear_part)]
            size = (averages[0] - averages[1] - ((moved - linear_part) * p) @ w.T).norm(dim=1)
            worst = max(worst, float(size.detach().max()) / bound)
            optimiser.zero_grad()
            (-size.sum()).backward()
            optimiser.step()
    assert worst <= 1.0
    assert keys == 1 or linear > 1 or worst > 0.01
