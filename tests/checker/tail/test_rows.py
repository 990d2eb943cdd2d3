"""Rows known up to a length: every row of the ball and the length is mapped into the ball and the length that come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail import rows
from sae_verify.checker.tail.context import normalise, softmax
from sae_verify.checker.tail.rotary import tables
from sae_verify.checker.tail.rows import Rows
from sae_verify.checker.tail.weights import NormWeights

N, D = 5, 6
FARS = [0.0, 1e-12, 1e-3, 0.3, 40.0]
SLACK = 1e-12


def some(rng: np.random.Generator, far: float, size: float = 1.0, shape: tuple[int, ...] = (N, D)) -> Rows:
    mid = size * rng.normal(size=shape)
    return Rows(Ball(mid, np.full(shape, far)), np.full(shape[:-1], far))


def samples(rng: np.random.Generator, x: Rows, count: int = 60) -> Array:
    """Rows at the very edge, in random directions and along coordinates: (count, ..., n, d)."""
    step = rng.normal(size=(count, *x.ball.mid.shape))
    step[::3] = np.eye(x.ball.mid.shape[-1])[rng.integers(x.ball.mid.shape[-1], size=step[::3].shape[:-1])]
    step *= x.far[..., None] / np.linalg.norm(step, axis=-1, keepdims=True)
    return x.ball.mid + np.clip(step, -x.ball.rad, x.ball.rad)


def inside(found: Rows, values: Array) -> None:
    scale = SLACK * (1 + np.abs(values).max())
    off = values - found.ball.mid
    assert (np.abs(off) <= found.ball.rad + scale).all()
    assert (np.linalg.norm(off, axis=-1) <= found.far + scale).all()


def norm_of(x: Array, norm: NormWeights) -> Array:
    z = x - x.mean(-1, keepdims=True) if norm.centred else x
    return norm.gain.mid * z / np.sqrt(np.square(z).mean(-1, keepdims=True) + norm.epsilon) + norm.shift


@pytest.mark.parametrize("far", FARS)
@pytest.mark.parametrize("seed", range(4))
def test_maps(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = some(rng, far), some(rng, far / 3, 10.0)
    weight, bias = rng.normal(size=(8, D)), rng.normal(size=8)
    points, others = samples(rng, x), samples(rng, y)
    inside(x + y, points + others)
    inside(rows.projected(x, weight, bias), points @ weight.T + bias)
    split = (points @ weight.T + bias).reshape(len(points), N, 2, 4).swapaxes(1, 2)
    parts = rows.heads(x, weight, bias, 2)
    inside(parts, split)
    inside(rows.merged(parts), split.swapaxes(1, 2).reshape(len(points), N, 8))
    inside(rows.multiplied(x, y), points * others)
    scale = Ball(np.asarray(0.4), np.asarray(1e-9))
    scores = rows.products(x, y, scale)
    exact = 0.4 * points @ others.swapaxes(1, 2)
    assert (np.abs(exact - scores.mid) <= scores.rad + SLACK * np.abs(exact).max()).all()
    cos, sin = tables(100.0, D, range(N))
    turn = points * cos.mid + np.concatenate([-points[..., D // 2 :], points[..., : D // 2]], -1) * sin.mid
    inside(rows.turned(x, (cos, sin)), turn)


@pytest.mark.parametrize("far", FARS)
@pytest.mark.parametrize(
    ("kind", "value"),
    [("silu", lambda x: x / (1 + np.exp(-x))), ("tanh", np.tanh)],
)
def test_activations(kind: str, value: Callable[[Array], Array], far: float) -> None:
    rng = np.random.default_rng(0)
    x = some(rng, far)
    inside(rows.activated(kind, x), value(samples(rng, x)))


@pytest.mark.parametrize("far", FARS)
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e3])
@pytest.mark.parametrize("centred", [True, False])
def test_norms(centred: bool, size: float, far: float) -> None:
    rng = np.random.default_rng(1)
    x = some(rng, far, size)
    norm = NormWeights(centred, Ball.exact(rng.normal(size=D)), rng.normal(size=D), 1e-6)
    found = rows.directions(x, normalise(x.exact, norm), centred, norm.epsilon, norm.gain.magnitude)
    inside(found, norm_of(samples(rng, x), norm))


@pytest.mark.parametrize("far", FARS)
@pytest.mark.parametrize("sharp", [0.1, 1.0, 30.0])
def test_averages(sharp: float, far: float) -> None:
    """Of scores anywhere within what they are off by: at corners, and all but one masked."""
    rng = np.random.default_rng(2)
    y = some(rng, far)
    visible = np.tril(np.ones((N, N), dtype=bool))
    mid = sharp * rng.normal(size=(N, N))
    for size in (0.0, 1e-9, 0.05, 3.0):
        off = size * rng.random((N, N))
        found = rows.averaged(softmax(Ball.exact(mid), visible), off, visible, y)
        for _ in range(60):
            scores = np.where(visible, mid + off * rng.choice([-1.0, 0.0, 1.0], size=(N, N)), -np.inf)
            raised = np.exp(scores - scores.max(-1, keepdims=True))
            pattern = raised / raised.sum(-1, keepdims=True)
            inside(found, (pattern @ samples(rng, y, 6)))


def test_what_is_no_number_stays_bounded_by_the_norm() -> None:
    norm = NormWeights(False, Ball.exact(np.ones(D)), np.zeros(D), 1e-6)
    for mid, far in ((np.nan, 1.0), (1.0, np.inf), (1e200, 1.0)):
        x = Rows(Ball(np.full((1, D), mid), np.full((1, D), far)), np.array([far]))
        with np.errstate(all="ignore"):
            found = rows.directions(x, normalise(x.exact, norm), False, norm.epsilon, norm.gain.magnitude)
        assert np.isfinite(found.far).all()
        assert (found.far <= 3 * D).all()


def test_squares_that_overflow_or_vanish() -> None:
    """A norm of an enormous row moves as far as it may; rows whose squares vanish are still apart."""
    norm = NormWeights(False, Ball.exact(np.ones(2)), np.zeros(2), 1e-6)
    x = Rows(Ball(np.array([[1e192, 0.0]]), np.array([[0.0, 1e191]])), np.array([1e191]))
    with np.errstate(all="ignore"):
        found = rows.directions(x, normalise(x.exact, norm), False, norm.epsilon, norm.gain.magnitude)
    inside(found, np.array([[[np.sqrt(2) / np.hypot(1, 0.1), np.sqrt(2) * 0.1 / np.hypot(1, 0.1)]]]))
    y = Rows.of(Ball.exact(np.array([[1e-170, 0.0], [-1e-170, 0.0]])))
    seen = np.ones((1, 2), dtype=bool)
    found = rows.averaged(softmax(Ball.exact(np.zeros((1, 2))), seen), np.full((1, 2), 0.3), seen, y)
    share = 1 / (1 + np.exp(-0.6))
    assert abs((2 * share - 1) * 1e-170 - found.ball.mid[0, 0]) <= min(found.far[0], found.ball.rad[0, 0])
