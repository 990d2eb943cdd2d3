"""Attention of a moving last position on Taylor models: ascent on the residual, and fifty digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.attention import attended
from sae_verify.checker.tail.context import Context
from sae_verify.checker.tail.taylor import Taylor
from sae_verify.checker.tail.weights import AttentionWeights

from .enclosure import attack, attention_of, holds, holds_exactly, model, random_attention, scaled_to

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them


def context(rng: np.random.Generator, w: AttentionWeights, earlier: int, size: float = 1.0) -> Context:
    shape = (w.n_kv_heads, earlier, w.d_head)
    return Context(Ball.exact(size * rng.normal(size=shape)), Ball.exact(rng.normal(size=shape)))


def exact(w: AttentionWeights, c: Context, position: int) -> Any:
    return lambda m, z: attention_of(m, z, w, c.keys.mid, c.values.mid, position)


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"heads": 4, "kv": 2},
    "one head": {"heads": 1, "kv": 1, "d_head": 4},
    "rotary": {"heads": 2, "kv": 1, "d_head": 4, "rotary": 100.0},
    "capped": {"softcap": 1.5},
    "gemma": {"heads": 2, "kv": 1, "rotary": 1e4, "softcap": 20.0},
    "negative": {"scale": -0.7},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("earlier", [0, 1, 5])
def test_residuals(shape: str, earlier: int) -> None:
    rng = np.random.default_rng(earlier)
    for box, linear in ((0, 0.02), (0, 0.3), (2, 0.3), (0, 2.0)):
        w = random_attention(rng, 4, **SHAPES[shape])
        c = context(rng, w, earlier)
        x = model(rng, 4, 3, box, linear=linear, quadratic=linear / 5, errors=linear / 6, loose=linear / 40)
        holds(x, attended(x, w, c, earlier), exact(w, c, earlier), rng, steps=25)


@pytest.mark.parametrize("scale", [1e-6, 10.0, 300.0])
@pytest.mark.parametrize("linear", [1e-3, 0.1, 1.0])
def test_saturated_and_uniform_patterns(scale: float, linear: float) -> None:
    """All weight on one key, on the own one or another; or on all alike. Scores may move from one to the other."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        w = random_attention(rng, 4, scale=scale)
        c = context(rng, w, 4)
        x = model(rng, 4, 3, linear=linear, errors=linear / 10)
        holds(x, attended(x, w, c, 4), exact(w, c, 4), rng, steps=20)


def test_keys_alike() -> None:
    """Ties, and a key that stands twice."""
    rng = np.random.default_rng(4)
    w = random_attention(rng, 4)
    keys, values = rng.normal(size=(2, 1, 2)).repeat(3, 1), rng.normal(size=(2, 3, 2))
    c = Context(Ball.exact(keys), Ball.exact(values))
    for linear in (0.1, 1.0):
        x = model(rng, 4, 4, linear=linear)
        holds(x, attended(x, w, c, 3), exact(w, c, 3), rng)


def test_alone_the_position_attends_to_itself() -> None:
    """One key: the output is linear, and only rounding is left."""
    rng = np.random.default_rng(5)
    w = random_attention(rng, 4)
    x = model(rng, 4, 3, linear=1.0, quadratic=1.0)
    out = attended(x, w, context(rng, w, 0), 0)
    assert out.error_norm < 1e-9
    holds(x, out, exact(w, context(rng, w, 0), 0), rng, steps=5)


def test_the_remainder_is_of_third_order_and_tight_to_a_factor() -> None:
    rng = np.random.default_rng(6)
    w = random_attention(rng, 4)
    c = context(rng, w, 4)
    x = model(rng, 4, 3, linear=0.5, quadratic=0.2)
    sizes = [attended(scaled_to(x, t), w, c, 4).error_norm for t in (1e-1, 1e-2)]
    assert 7e2 < sizes[0] / sizes[1] < 1.5e3
    small = scaled_to(x, 0.1)
    assert max(attack(small, attended(small, w, c, 4), exact(w, c, 4), rng)) > 0.02


@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-8, 1.0, 1e8]),
    st.sampled_from([0.0, 1e-14, 1e-7]),
    st.sampled_from(["plain", "rotary", "capped", "gemma"]),
    st.integers(0, 3),
)
def test_fifty_digits(seed: int, size: float, linear: float, shape: str, earlier: int) -> None:
    """Rounding where next to nothing moves; the input's size is made up for by that of the scale."""
    rng = np.random.default_rng(seed)
    w = random_attention(rng, 4, **{**SHAPES[shape], "scale": min(1.0, size**-2)})
    c = context(rng, w, earlier, max(1.0, size))
    x = model(rng, 4, 2, centre=size, linear=linear * size, quadratic=linear * size, loose=linear * size)
    out = attended(x, w, c, earlier)
    holds_exactly(x, out, exact(w, c, earlier), rng)
    assert (out.error > 0).all()
    if linear == 0.0:
        assert out.error_norm < 1e-9 * max(1.0, size)


@given(st.integers(0, 10**6), st.sampled_from([300.0, 600.0, 690.0, 720.0, 740.0, 1e4]))
def test_patterns_that_nearly_vanish(seed: int, gap: float) -> None:
    """Weights near the smallest floats, or below them."""
    rng = np.random.default_rng(seed)
    w = replace(random_attention(rng, 4, heads=1, kv=1), scale=Ball.exact(1.0))
    c = context(rng, w, 3)
    query = rng.normal(size=(1, 4)) @ w.query.T + w.query_bias
    keys = c.keys.mid - np.array([0.0, 1.0, 1.0])[None, :, None] * gap * query / float((query @ query.T)[0, 0])
    c = Context(Ball.exact(keys), c.values)
    x = model(rng, 4, 2, linear=1e-9)
    holds_exactly(x, attended(x, w, c, 3), exact(w, c, 3), rng)


def corners(rng: np.random.Generator, ball: Ball) -> Array:
    return ball.mid + ball.rad * rng.choice([-1, 1], ball.mid.shape) * (1 - 1e-12)


def test_uncertain_keys_values_and_scales() -> None:
    rng = np.random.default_rng(7)
    w = random_attention(rng, 4)
    w = replace(w, scale=Ball(np.asarray(0.8), np.asarray(0.0)))
    mid = context(rng, w, 3)
    for radius in (1e-6, 1e-2):
        wide = Context(*(Ball(b.mid, radius * rng.random(b.mid.shape)) for b in (mid.keys, mid.values)))
        x = model(rng, 4, 3, linear=0.1)
        out = attended(x, w, wide, 3)
        for _ in range(6):
            keys, values = corners(rng, wide.keys), corners(rng, wide.values)
            holds(x, out, lambda m, z, k=keys, v=values: attention_of(m, z, w, k, v, 3), rng, steps=3)


def test_far_out_nothing_wrong_is_said() -> None:
    """Ranges where the series are hopeless: the output is a mean of values still."""
    rng = np.random.default_rng(8)
    w = random_attention(rng, 4)
    c = context(rng, w, 3)
    for linear in (30.0, 1e4, 1e100, 1e200):
        x = model(rng, 4, 3, linear=linear, errors=linear)
        holds(x, attended(x, w, c, 3), exact(w, c, 3), rng, steps=3)


def test_nothing_known_stays_so() -> None:
    rng = np.random.default_rng(9)
    w = random_attention(rng, 4)
    c = context(rng, w, 3)
    x: Taylor = model(rng, 4, 3)
    for bad in (np.nan, np.inf):
        for broken in (replace(x, centre=np.full(4, bad)), replace(x, loose=np.full(4, bad))):
            assert attended(broken, w, c, 3).error_norm == np.inf
