"""Quadratic parts of models: their forms, and sizes with and without them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sae_verify.checker.tail import curves as module
from sae_verify.checker.tail.curves import Curves, Forms, Products, cubic_size, form, hessians, norm_size, row_sizes
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.taylor import Taylor, stacked

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-120, 1e-8, 1.0, 1e8, 1e60])


def random_curves(rng: np.random.Generator, n: int, k: int, scale: float = 1.0) -> Curves:
    """One of each kind: products, products with one factor for all, forms that are not symmetric."""
    left, right = rng.normal(size=(5, k)), rng.normal(size=(5, k))
    made = (
        Products(scale * left, scale * right),
        Products(scale * left[:3], scale * right[:1]),
        Forms(scale**2 * rng.normal(size=(2, k, k))),
    )
    return tuple((curve, rng.normal(size=(n, curve.count))) for curve in made)


def values(curves: Curves, y: np.ndarray) -> np.ndarray:
    total = np.zeros(len(curves[0][1]))
    for curve, gain in curves:
        q = curve.forms @ y @ y if isinstance(curve, Forms) else (curve.left @ y) * (curve.right @ y)
        total = total + gain @ q
    return total


def points(rng: np.random.Generator, domain: Domain, k: int, curves: Curves) -> list[np.ndarray]:
    """Corners, and the ball's extreme points for some rows."""
    found = []
    for _ in range(30):
        y = rng.normal(size=k)
        y[: domain.box] = np.sign(y[: domain.box])
        found.append(y)
    for row in range(len(curves[0][1])):
        vectors = np.linalg.eigh(form(curves, row, k)[domain.box :, domain.box :])[1]
        found += [np.concatenate([rng.choice([-1.0, 1.0], domain.box), v]) for v in (vectors[:, 0], vectors[:, -1])]
    for y in found:
        y[domain.box :] *= (1 - 1e-12) / np.linalg.norm(y[domain.box :])
    return found


@given(SEEDS, SCALES, st.integers(0, 2))
@example(117, 1e-120, 0)  # products and forms nearly cancel: their units must be the same to rounding
def test_forms_and_sizes(seed: int, scale: float, box: int) -> None:
    rng = np.random.default_rng(seed)
    k, domain, n = box + int(rng.integers(1, 6)), Domain(box), int(rng.integers(1, 5))
    curves = random_curves(rng, n, k, scale)
    dense = hessians(curves, n, k)
    bounds = row_sizes(curves, domain, n, k), domain.forms(dense)
    norms = norm_size(curves, domain, n, k), domain.vector_form(dense)
    for row in range(n):
        np.testing.assert_allclose(form(curves, row, k), dense[row], rtol=1e-12, atol=1e-12 * np.abs(dense).max())
    for y in points(rng, domain, k, curves):
        exact = values(curves, y)
        np.testing.assert_allclose(exact, (dense @ y) @ y / 2, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
        for rows in bounds:
            assert (np.abs(exact) <= rows * (1 + 1e-12)).all()
        for norm in norms:
            assert np.linalg.norm(exact / scale**2) * scale**2 <= norm * (1 + 1e-12)


@given(SEEDS)
def test_the_size_of_one_product_is_met(seed: int) -> None:
    """Of one form of rank one the Frobenius norm is the spectral norm: inner products alone lose nothing."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(1, 4))
    curves: Curves = ((Products(left, left), np.array([[3.0], [-4.0]])),)
    square = float(np.sum(left**2))
    np.testing.assert_allclose(row_sizes(curves, Domain(), 2, 4), [3 * square, 4 * square], rtol=1e-6)
    np.testing.assert_allclose(norm_size(curves, Domain(), 2, 4), 5 * square, rtol=1e-3)


@given(SEEDS, st.integers(0, 2))
def test_cubic_forms(seed: int, box: int) -> None:
    rng = np.random.default_rng(seed)
    k, domain = box + 4, Domain(box)
    curves = random_curves(rng, k, k)
    sizes = [cubic_size(curves, domain, k)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FITS", 0)
        sizes.append(cubic_size(curves, domain, k))
    assert np.isfinite(sizes[1]) == (box == 0)
    for y in points(rng, domain, k, curves):
        assert abs(y @ values(curves, y)) <= min(sizes) * (1 + 1e-12)


def test_what_cancels_in_gains_is_gone() -> None:
    rng = np.random.default_rng(0)
    curves = random_curves(rng, 3, 4)
    x = Taylor(Domain(), np.zeros(3), rng.normal(size=(3, 4)), curves, (), np.zeros(3))
    nothing = x + x.scaled(-np.ones(3))
    assert nothing.quadratic.max() < 1e-12 * x.quadratic.min()
    curve, gain = curves[0]
    both = stacked([x, Taylor(Domain(), np.zeros(2), np.zeros((2, 4)), ((curve, gain[:2]),), (), np.zeros(2))])
    assert [gain.shape for _, gain in both.curves] == [(5, 5), (5, 3), (5, 2)]
    np.testing.assert_array_equal(both.hessians[:3], x.hessians)
    np.testing.assert_allclose(both.hessians[3:], hessians(((curve, gain[:2]),), 2, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_bounds_nothing(value: float) -> None:
    left = np.array([[value, 1.0]])
    curves: Curves = ((Products(left, np.ones((1, 2))), np.ones((2, 1))),)
    assert (row_sizes(curves, Domain(), 2, 2) == np.inf).all()
    assert norm_size(curves, Domain(), 2, 2) == np.inf
    x = Taylor(Domain(), np.zeros(2), np.zeros((2, 2)), curves, (), np.zeros(2))
    assert (x.quadratic == np.inf).all()
