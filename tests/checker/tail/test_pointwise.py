"""Activations, products and soft-caps of Taylor models: ascent on the residual, and fifty digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.tail.activations import FACTS
from sae_verify.checker.tail.pointwise import activated, capped, product
from sae_verify.checker.tail.taylor import Taylor

from .enclosure import activation_of, attack, holds, holds_exactly, model, scaled_to

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

KINDS = tuple(FACTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linear", [1e-3, 0.3, 2.0, 30.0])
def test_activations(kind: str, linear: float) -> None:
    rng = np.random.default_rng(0)
    for box, centre in ((0, 1.0), (2, 1.0), (0, 0.0), (1, 6.0)):
        x = model(
            rng, 5, 4, box, centre=centre, linear=linear, quadratic=linear / 4, errors=linear / 5, loose=linear / 20
        )
        holds(x, activated(x, kind), lambda m, z: activation_of(m, z, kind), rng, steps=25)


@pytest.mark.parametrize("kind", KINDS)
def test_the_remainder_is_of_third_order_and_tight_to_a_factor(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = model(rng, 5, 1, centre=0.5, linear=1.0)
    sizes = [activated(scaled_to(x, t), kind).error_norm for t in (1e-2, 1e-3)]
    assert 8e2 < sizes[0] / sizes[1] < 1.2e3
    small = scaled_to(x, 1e-2)
    found = attack(small, activated(small, kind), lambda m, z: activation_of(m, z, kind), rng)
    assert max(found) > 0.5


@given(
    st.integers(0, 10**6),
    st.sampled_from(KINDS),
    st.sampled_from([1e-300, 1e-8, 1.0, 30.0, 1e8, 1e200]),
    st.sampled_from([0.0, 1e-13, 1e-6]),
)
def test_activations_in_fifty_digits(seed: int, kind: str, centre: float, linear: float) -> None:
    rng = np.random.default_rng(seed)
    x = model(rng, 3, 2, centre=centre, linear=linear * centre, quadratic=linear * centre, loose=linear * centre)
    out = activated(x, kind)
    holds_exactly(x, out, lambda m, z: activation_of(m, z, kind), rng)
    assert (out.error > 0).all()
    if linear == 0.0:
        assert out.error_norm < 1e-12 * max(centre, 1.0)


def pair(rng: np.random.Generator, size: float, box: int, *, loose: float = 0.02) -> tuple[Taylor, Taylor, Taylor]:
    """A model, and two linear maps of it: they share its sources."""
    x = model(rng, 5, 4, box, linear=size, quadratic=size / 3, errors=size / 4, loose=0.0)
    x = replace(x, loose=size * loose * rng.random(5))
    return x, x.mapped(LEFT, np.ones(3)), x.mapped(RIGHT)


LEFT, RIGHT = np.random.default_rng(5).normal(size=(2, 3, 5))


@pytest.mark.parametrize("size", [1e-3, 0.3, 5.0])
@pytest.mark.parametrize("box", [0, 2])
def test_products_of_what_shares_its_errors(size: float, box: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        x, a, b = pair(rng, size, box)
        holds(x, product(a, b), lambda m, z: (z @ m.array(LEFT.T) + 1) * (z @ m.array(RIGHT.T)), rng)


@pytest.mark.parametrize("size", [1e-2, 0.5, 3.0])
def test_gated_units(size: float) -> None:
    rng = np.random.default_rng(3)
    for kind in ("silu", "gelu_tanh"):
        x, a, b = pair(rng, size, 1)
        holds(
            x,
            product(activated(a, kind), b),
            lambda m, z, kind=kind: activation_of(m, z @ m.array(LEFT.T) + 1, kind) * (z @ m.array(RIGHT.T)),
            rng,
        )


@given(st.integers(0, 10**6), st.sampled_from([1e-140, 1e-8, 1e8, 1e140]), st.sampled_from([0.0, 1e-14]))
def test_products_in_fifty_digits(seed: int, scale: float, linear: float) -> None:
    rng = np.random.default_rng(seed)
    x = model(rng, 5, 2, centre=scale, linear=scale * linear, quadratic=scale * linear, loose=scale * linear)
    out = product(x.mapped(LEFT), x.mapped(RIGHT))
    holds_exactly(x, out, lambda m, z: (z @ m.array(LEFT.T)) * (z @ m.array(RIGHT.T)), rng)
    assert (out.loose > 0).all()


@pytest.mark.parametrize("cap", [0.3, 3.0, 50.0])
@pytest.mark.parametrize("linear", [0.01, 1.0, 20.0])
def test_soft_caps(cap: float, linear: float) -> None:
    rng = np.random.default_rng(4)
    for box in (0, 1):
        x = model(rng, 4, 3, box, centre=2.0, linear=linear, quadratic=linear / 3, errors=linear / 5)
        holds(x, capped(x, cap), lambda m, z: m.tanh(z / cap) * cap, rng)
        still = model(rng, 4, 3, centre=cap)
        still = scaled_to(still, 0.0)
        holds_exactly(still, capped(still, cap), lambda m, z: m.tanh(z / m.array(cap)) * m.array(cap), rng)


def test_nothing_known_stays_so() -> None:
    x = model(np.random.default_rng(0), 3, 2)
    for bad in (np.nan, np.inf):
        for field in ("centre", "loose"):
            broken = replace(x, **{field: np.array([0.0, bad, 1.0])})
            for out in (activated(broken, "gelu"), capped(broken, 2.0), product(broken, x), product(x, broken)):
                assert out.error[1] == np.inf or not np.isfinite(out.centre[1])
