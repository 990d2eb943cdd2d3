"""Models of lower degree: they enclose what the quadratic ones do, say less, and lose only what is of second order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.tail.block import through_block
from sae_verify.checker.tail.curves import Forms, Products
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.lowered import lowered, ranges
from sae_verify.checker.tail.readout import Affine
from sae_verify.checker.tail.taylor import Taylor

from .enclosure import FAMILIES, TORCH, block_of, holds, holds_exactly, model, starts
from .test_sandwich import Case, highest, make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-170, 1e-80, 1e-8, 1.0, 1e8, 1e80])


def curved(rng: np.random.Generator, box: int, scale: float = 1.0) -> Taylor:
    """A model with all kinds of curves: forms, products, squares, and products with one factor for all."""
    x = model(rng, 4, 4, box, quadratic=0.4, errors=0.2, loose=0.01)
    left, right = scale * rng.normal(size=(2, 6, 4))
    for curve in (Products(left, right), Products(left, left), Products(left, right[:1])):
        x = x.with_curve(curve, rng.normal(size=(4, 6)) / max(scale, 1e-100) ** 2)
    return x


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("box", [0, 2])
def test_the_same_vector(degree: int, box: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = curved(rng, box)
        tight = holds(x, lowered(x, degree), lambda m, z: z, rng)
        assert max(tight) > 0.1  # the attack comes near what is allowed
        holds_exactly(x, lowered(x, degree), lambda m, z: z, rng)
        assert not lowered(x, degree).curves
        assert lowered(x, 2) is x


@given(SEEDS, SCALES, st.sampled_from([0, 1, 3]))
@settings(max_examples=30, deadline=None)
def test_ranges(seed: int, scale: float, box: int) -> None:
    """Points of the domain stay within; on a ball both ends of a product are reached."""
    rng = np.random.default_rng(seed)
    left, right = scale * rng.normal(size=(2, 5, 4))
    left[0] = 0.0
    right[1] = left[1] * rng.choice([-1e-3, 1.0, 1e3])
    y = starts(rng, Domain(box), 4, 200).numpy() * (1 - 2.0**-40)
    for curve in (Products(left, right), Products(left, left), Products(left, right[2:3])):
        q = (y @ curve.left.T) * (y @ curve.right.T)
        low, high = ranges(curve, Domain(box))
        assert (low <= np.minimum(q.min(axis=0), 0)).all()
        assert (high >= np.maximum(q.max(axis=0), 0)).all()
        if not box and scale in (1e-8, 1.0, 1e8):
            both = np.linalg.norm(curve.left, axis=1) * np.linalg.norm(curve.right, axis=1)
            dots = curve.left * curve.right
            assert np.allclose(high, (both + dots.sum(axis=1)) / 2, rtol=1e-7, atol=1e-12 * both.max())
            assert np.allclose(low, (dots.sum(axis=1) - both) / 2, rtol=1e-7, atol=1e-12 * both.max())
    forms = Forms(scale * rng.normal(size=(3, 4, 4)))
    q = np.einsum("jab,na,nb->nj", forms.forms, y, y)
    low, high = ranges(forms, Domain(box))
    assert (low <= q).all()
    assert (q <= high).all()


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_block(family: str, degree: int) -> None:
    """Its model, entry by entry and in norm, with curves and errors that came in."""
    case = make(degree, family, 1)
    block, context = case.relaxation.blocks[0], case.relaxation.contexts[0]
    for linear in (0.01, 0.3):
        rng = np.random.default_rng(degree)
        x = model(rng, 5, 3, degree, centre=2.0, linear=linear, quadratic=linear / 4, errors=linear / 5)
        holds(
            x,
            through_block(x, block, context, 3, degree),
            lambda m, z: block_of(m, z, block, context.keys.mid, context.values.mid, 3),
            rng,
            steps=15,
        )


def bound(case: Case, radius: float, tau: float, degree: int) -> Affine:
    tail = replace(case.relaxation, degree=degree)
    region = tail.ball(radius)
    return tail.bound(region, region.frame(), case.readout, tau)  # type: ignore[arg-type]


@given(SEEDS, st.sampled_from(FAMILIES), st.sampled_from([1e-3, 0.03, 0.3, 3.0]), st.integers(1, 2))
@settings(max_examples=5, deadline=None)
def test_each_degree_is_above_what_ascent_finds(seed: int, family: str, radius: float, blocks: int) -> None:
    case = make(seed, family, blocks, held=seed % 2)
    tau = case.value() + seed % 3
    found = highest(case, radius, tau=tau, steps=15)
    for degree in (0, 1):
        assert bound(case, radius, tau, degree).top >= found - 1e-12 * (1 + abs(found))


@pytest.mark.parametrize("family", FAMILIES)
def test_less_says_less(family: str) -> None:
    """Interval, linear, quadratic: from loose to tight, on every tail tried, where the radius is small.

    It is no theorem: a centre that moved to the middle of a curve is another point to expand at.
    """
    for seed, radius in ((0, 1e-2), (1, 0.1)):
        case = make(seed, family, 1 + seed)
        interval, linear, quadratic = (bound(case, radius, case.value(), degree).top for degree in (0, 1, 2))
        assert interval >= linear * (1 - 1e-9)
        assert linear >= quadratic * (1 - 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_radius_gives_the_gradient(family: str) -> None:
    """Degree 1 is exact to first order, and what it loses falls as the square of the radius; degree 0 has none."""
    case = make(0, family)
    tail, tau = case.relaxation, case.value()
    x = torch.tensor(tail.start.mid[None], requires_grad=True)
    readout, rho = case.exactly(TORCH, x)
    ((readout - tau) * rho).sum().backward()
    assert x.grad is not None
    found = bound(case, 1e-6, tau, 1)
    assert np.allclose(found.gradient / 1e-6, x.grad.numpy()[0], rtol=1e-4, atol=1e-5)
    lost = []
    for radius in (1e-3, 1e-4):
        at = bound(case, radius, tau, 1)
        assert at.curve == 0 or at.curve < at.constant
        lost.append(at.top - radius * float(x.grad.norm()) - at.errors["rounding"])
    assert 80 < lost[0] / lost[1] < 130
    assert not bound(case, 1e-3, tau, 0).gradient.any()


@pytest.mark.parametrize("degree", [0, 1])
def test_enormous_radii_end_in_no_number(degree: int) -> None:
    case = make(4, "gemma2", 3, d=3)
    for radius in (10.0, 1e10, 1e300):
        assert not bound(case, radius, -1e3, degree).top <= 0
