"""LayerNorm and RMSNorm on Taylor models: ascent on the residual, its order, and fifty digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.normed import normed
from sae_verify.checker.tail.taylor import Taylor
from sae_verify.checker.tail.weights import NormWeights

from .enclosure import FLOAT, attack, holds, holds_exactly, model, norm_of, random_norm, scaled_to

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them


def exact(norm: NormWeights):
    return lambda m, z: norm_of(m, z, norm)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("epsilon", [1e-5, 1.0, 1e6])
@pytest.mark.parametrize("linear", [1e-3, 0.1, 0.5, 3.0])
def test_residuals(centred: bool, epsilon: float, linear: float) -> None:
    """From perturbations that are small to those longer than the centre."""
    rng = np.random.default_rng(0)
    for box in (0, 0, 2):
        norm = random_norm(rng, 5, centred=centred, epsilon=epsilon)
        x = model(rng, 5, 4, box, linear=linear / 3, quadratic=linear / 10, errors=linear / 10, loose=linear / 50)
        holds(x, normed(x, norm), exact(norm), rng)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("centre", [0.0, 1e-9, 1e-3])
def test_centres_near_zero(centred: bool, centre: float) -> None:
    rng = np.random.default_rng(1)
    for epsilon in (1e-8, 1e-2, 10.0):
        for linear in (1e-5, 1e-1, 1.0):
            norm = random_norm(rng, 4, centred=centred, epsilon=epsilon)
            x = model(rng, 4, 3, centre=centre, linear=linear, errors=0.1 * linear)
            holds(x, normed(x, norm), exact(norm), rng, steps=20)


def along(c: Array, jacobian: Array) -> Taylor:
    return Taylor(Domain(), c, jacobian, (), (), np.zeros(len(c)))


@pytest.mark.parametrize("epsilon", [1e-6, 0.3, 30.0])
@pytest.mark.parametrize("reach", [0.01, 0.3, 0.9, 0.98, 1.5])
def test_radial_and_transverse_perturbations(epsilon: float, reach: float) -> None:
    """Along the centre, until the norm nearly vanishes; across it; and in between."""
    rng = np.random.default_rng(2)
    c = np.array([3.0, 4.0, 0.0]) * 2
    norm = NormWeights(False, Ball.exact(np.ones(3)), np.zeros(3), epsilon)
    for share in (0.0, 0.3, 1.0):
        direction = share * c / 10 + (1 - share) * np.array([0, 0, 1.0])
        x = along(c, 10 * reach * direction[:, None])
        by_entry, by_norm = holds(x, normed(x, norm), exact(norm), rng, steps=10)
        if 0 < share < 1 and reach == 0.01:
            assert max(by_entry, by_norm) > 0.02  # the attack comes close enough to find a wrong factor


def test_the_remainder_is_of_third_order_and_tight_to_a_factor() -> None:
    rng = np.random.default_rng(3)
    for centred in (True, False):
        norm = random_norm(rng, 6, centred=centred)
        x = model(rng, 6, 4, linear=1.0, quadratic=1.0, errors=0.0)
        sizes = [normed(scaled_to(x, t), norm).error_norm for t in (1e-2, 1e-3)]
        assert 8e2 < sizes[0] / sizes[1] < 1.2e3
        small = scaled_to(x, 1e-3)
        assert max(attack(small, normed(small, norm), exact(norm), rng)) > 0.05


def test_smaller_remainders_would_be_found_out() -> None:
    """The attack can fail: a model with a twentieth of the error is refuted."""
    rng = np.random.default_rng(4)
    norm = random_norm(rng, 6, centred=False)
    x = model(rng, 6, 3, linear=0.05)
    out = normed(x, norm)
    (source, gain) = out.errors[0]
    cheat = replace(out, errors=((replace(source, box=source.box / 20, norm=source.norm / 20), gain),))
    assert max(attack(x, cheat, exact(norm), rng)) > 1


@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([1e-150, 1e-8, 1.0, 1e8, 1e140, 1e160, 1e200, 1e300]),
    st.sampled_from([0.0, 1e-15, 1e-9, 1e-4]),
    st.sampled_from([1e-300, 1e-6, 1.0, 1e10]),
)
def test_fifty_digits(seed: int, centred: bool, scale: float, linear: float, epsilon: float) -> None:
    """At scales where squares overflow or vanish, too; with no perturbation only rounding is left."""
    rng = np.random.default_rng(seed)
    norm = random_norm(rng, 4, centred=centred, epsilon=epsilon)
    x = model(rng, 4, 2, centre=scale, linear=scale * linear, quadratic=scale * linear, loose=scale * linear)
    out = normed(x, norm)
    holds_exactly(x, out, exact(norm), rng)
    assert (out.error > 0).all()
    if linear == 0 and 1e-8 <= scale <= 1e8:
        assert out.error_norm < 1e-11 * max(1.0, scale / epsilon**0.5)


def test_a_mean_that_hides_the_rest() -> None:
    """Of a LayerNorm: what it takes off may be much larger than what is left."""
    rng = np.random.default_rng(5)
    norm = random_norm(rng, 5, centred=True)
    for mean in (1e3, 1e8, 1e12):
        x = model(rng, 5, 3, linear=0.01)
        x = replace(x, centre=x.centre + mean)
        holds_exactly(x, normed(x, norm), exact(norm), rng)


def test_uncertain_gains() -> None:
    rng = np.random.default_rng(6)
    x = model(rng, 4, 3, linear=0.1)
    gain = rng.normal(size=4)
    out = normed(x, NormWeights(False, Ball(gain, np.full(4, 0.1)), np.zeros(4), 1e-6))
    for corner in (-0.1, 0.1):
        holds(x, out, exact(NormWeights(False, Ball.exact(gain + corner), np.zeros(4), 1e-6)), rng, steps=5)


def test_nothing_known_stays_so() -> None:
    norm = random_norm(np.random.default_rng(7), 4, centred=True)
    x = model(np.random.default_rng(7), 4, 3)
    for bad in (np.nan, np.inf):
        for broken in (replace(x, centre=np.array([1.0, bad, 0.0, 1.0])), replace(x, loose=np.full(4, bad))):
            out = normed(broken, replace(norm, gain=Ball.exact(np.ones(4)), shift=np.zeros(4)))
            assert not out.error_norm < 2 - FLOAT  # sqrt(d): any direction
