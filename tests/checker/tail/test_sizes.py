"""Norms of float arrays from above, at every scale, and sizes over boxes times balls against ascent."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import TINY, Array
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.sizes import grow, largest_eigenvalue, length, lengths, spectral, spectral_each

from .enclosure import project, starts

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SCALES = st.sampled_from([1e-300, 1e-200, 1e-150, 1e-8, 1.0, 1e8, 1e150, 1e153, 1e200, 1e300])
SEEDS = st.integers(0, 10**6)


def matrix(rng: np.random.Generator) -> Array:
    """Of any shape, some of them of low rank, sparse, or with entries of many magnitudes."""
    n, k = rng.integers(1, 9, size=2)
    x = rng.normal(size=(n, k))
    shape = rng.integers(5)
    if shape == 0:
        x = np.outer(rng.normal(size=n), rng.normal(size=k))
    elif shape == 1:
        x = x * (rng.random((n, k)) < 0.3)
    elif shape == 2:
        x = x * 10.0 ** rng.integers(-30, 1, size=(n, k))
    elif shape == 3:
        x = np.linalg.qr(rng.normal(size=(max(n, k), max(n, k))))[0][:n, :k]
    return x


def exact_norm(x: Array) -> mpmath.mpf:
    with mpmath.workdps(40):
        return mpmath.sqrt(sum(mpmath.mpf(float(v)) ** 2 for v in np.ravel(x)))


@given(SEEDS, SCALES)
def test_spectral_norms(seed: int, scale: float) -> None:
    x = matrix(np.random.default_rng(seed))
    true = float(np.linalg.svd(x, compute_uv=False)[0]) * (1 - 1e-14)
    bound = spectral(x * scale)
    assert bound >= true * scale
    assert bound <= scale * true * 1.02 + 4 * TINY
    assert spectral(x.T * scale) >= true * scale


@given(SEEDS, SCALES)
def test_lengths_in_forty_digits(seed: int, scale: float) -> None:
    x = matrix(np.random.default_rng(seed)) * scale
    for row, bound in zip(x, lengths(x), strict=True):
        assert mpmath.mpf(float(bound)) >= exact_norm(row)
    assert mpmath.mpf(length(x)) >= exact_norm(x)
    assert length(x) <= float(exact_norm(x)) * (1 + 1e-7) + 4 * TINY


def symmetric(rng: np.random.Generator, k: int) -> Array:
    """With eigenvalues of any signs and gaps, some repeated."""
    turn = np.linalg.qr(rng.normal(size=(k, k)))[0]
    values = rng.choice([-1.0, 0.0, 1.0, 1e-9, 0.5], size=k) * 10.0 ** rng.integers(-12, 1, size=k)
    form = (turn * values) @ turn.T
    return (form + form.T) / 2


@given(SEEDS, SCALES)
def test_eigenvalues(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    forms = np.stack([symmetric(rng, 5) for _ in range(4)])
    each = spectral_each(forms * scale)
    for form, bound in zip(forms, each, strict=True):
        values = np.linalg.eigvalsh(form)
        error = 1e-15 * float(np.abs(values).max())  # of eigvalsh
        assert bound >= (np.abs(values).max() - error) * scale
        assert largest_eigenvalue(form * scale) >= (max(values[-1], 0.0) - error) * scale
        assert largest_eigenvalue(form * scale) <= scale * (max(values[-1], 0.0) + 1e-7 * np.abs(values).max()) + 1e-280


@given(SEEDS)
def test_eigenvalues_of_nearly_symmetric_forms(seed: int) -> None:
    """What counts is y.Hy: an antisymmetric part, of rounding for instance, must not hide the rest."""
    rng = np.random.default_rng(seed)
    form = np.triu(rng.normal(size=(4, 4)), 1)  # nilpotent: its powers vanish
    values = np.linalg.eigvalsh((form + form.T) / 2)
    assert spectral_each(form[None])[0] >= np.abs(values).max() * (1 - 1e-12)
    assert largest_eigenvalue(form) >= values[-1] * (1 - 1e-12)


def test_what_is_no_number_is_infinite() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = np.eye(3)
        x[1, 2] = bad
        assert length(x) == spectral(x) == largest_eigenvalue(x) == np.inf
        assert lengths(x)[1] == np.inf
        assert np.isfinite(lengths(x)[[0, 2]]).all()
        assert spectral_each(np.stack([x, np.eye(3)]))[0] == np.inf
        assert np.isfinite(spectral_each(np.stack([x, np.eye(3)]))[1])
        domain = Domain(1)
        assert domain.row(x[1]) == domain.matrix(x) == domain.form(x) == domain.form_above(x) == np.inf
        assert domain.vector_form(x[None]) == domain.forms(x[None])[0] == np.inf
    assert grow(np.nan) == np.inf
    assert (grow(np.array([np.nan, np.inf])) == np.inf).all()


def test_nothing_is_small_but_not_negative() -> None:
    zero = np.zeros((3, 3))
    assert all(0 <= size <= 1e-250 for size in (length(zero), spectral(zero), largest_eigenvalue(zero)))
    assert (spectral_each(np.zeros((2, 3, 3))) <= 1e-250).all()
    for empty in (np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((0, 0))):
        assert length(empty) == spectral(empty) == 0.0
    assert (lengths(np.zeros((2, 0))) == 0).all()
    assert (spectral_each(np.zeros((2, 0, 0))) == 0).all()
    assert largest_eigenvalue(np.zeros((0, 0))) == 0.0


@given(SEEDS, st.integers(0, 3), st.integers(0, 3), st.sampled_from([1e-8, 1.0, 1e8]))
@settings(max_examples=40)
def test_sizes_over_a_domain(seed: int, box: int, ball: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    k, n, domain = box + max(ball, 1), 4, Domain(box)
    y = starts(rng, domain, k, 400)
    jacobian = torch.tensor(scale * rng.normal(size=(n, k)))
    hessians = rng.normal(size=(n, k, k))
    hessians = torch.tensor(scale * (hessians + hessians.transpose(0, 2, 1)))

    def ascend(f: object) -> float:
        at, best = y.clone().requires_grad_(True), 0.0
        for _ in range(12):
            value = f(at)  # type: ignore[operator]
            best = max(best, float(value.detach().max()))
            (gradient,) = torch.autograd.grad(value.sum(), at)
            # Conditional gradient: the best point of the domain for the gradient.
            far = torch.cat([gradient[:, :box].sign(), torch.nn.functional.normalize(gradient[:, box:])], 1)
            at = project(far.detach(), box).requires_grad_(True)
        return best * (1 - 1e-12)

    linear, curved = (lambda at: at @ jacobian.T), (lambda at: torch.einsum("nab,Ba,Bb->Bn", hessians, at, at) / 2)
    j, h = jacobian.numpy(), hessians.numpy()
    assert domain.matrix(j) >= ascend(lambda at: linear(at).norm(dim=1))
    assert domain.vector_form(h) >= ascend(lambda at: curved(at).norm(dim=1))
    assert float(y.norm(dim=1).max()) <= domain.reach * (1 + 1e-15)
    for i in range(n):
        assert domain.rows(j)[i] >= ascend(lambda at, i=i: linear(at)[:, i].abs())
        assert domain.forms(h)[i] >= ascend(lambda at, i=i: curved(at)[:, i].abs())
        assert domain.form(h[i]) >= ascend(lambda at, i=i: curved(at)[:, i].abs())
        assert domain.form_above(h[i]) >= ascend(lambda at, i=i: curved(at)[:, i])
    # Not by far, for one row: linear functions are exact, and the ball's forms nearly.
    assert domain.row(j[0]) <= ascend(lambda at: linear(at)[:, 0].abs()) * (1 + 1e-6)


@pytest.mark.parametrize("diagonal", [1e10, -1e10, 1e300, -1e300])
def test_a_large_diagonal_does_not_swallow_the_rest(diagonal: float) -> None:
    """The form 1e-7 t_2 t_3 on the box reaches 1e-7, whatever t_1 does."""
    form = np.zeros((4, 4))
    form[0, 0], form[1, 2], form[2, 1] = diagonal, 1e-7, 1e-7
    assert Domain(3).form_above(form) >= 1e-7
    assert Domain(3).form(form) >= 1e-7


def test_boxes_without_a_ball() -> None:
    rng = np.random.default_rng(0)
    jacobian, hessians, domain = rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 2)), Domain(2)
    hessians = hessians + hessians.transpose(0, 2, 1)
    for corner in ((1, 1), (1, -1)):
        t = np.array(corner, dtype=float)
        assert (domain.rows(jacobian) >= np.abs(jacobian @ t)).all()
        assert domain.matrix(jacobian) >= np.linalg.norm(jacobian @ t)
        assert (domain.forms(hessians) >= np.abs(hessians @ t @ t) / 2).all()
        assert domain.vector_form(hessians) >= np.linalg.norm(hessians @ t @ t) / 2
        assert domain.form_above(hessians[0]) >= (hessians @ t @ t)[0] / 2
