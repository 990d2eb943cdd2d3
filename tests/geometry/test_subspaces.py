"""Spans, complements, singular values and angles: against numpy's SVD, known spectra, and degenerate rows."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.errors import FeatureError, InputError, SaeVerifyError, ShapeError, WeightsError
from sae_verify.geometry.rank import rank
from sae_verify.geometry.rows import BLOCK, active_features, select
from sae_verify.geometry.spectrum import REFINED_BELOW, spectrum
from sae_verify.geometry.subspace import Subspace, complement, principal_angles, span
from sae_verify.sae import ReLUSAE


def known(values: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """(n, d) rows with these singular values."""
    rng, d = np.random.default_rng(seed), len(values)
    left, right = np.linalg.qr(rng.normal(size=(n, d)))[0], np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (left * values) @ right.T


def tiny_sae(m: int = 9, d: int = 5) -> ReLUSAE:
    generator = torch.Generator().manual_seed(0)
    return ReLUSAE(
        W_enc=torch.randn(d, m, generator=generator),
        W_dec=torch.randn(m, d, generator=generator),
        b_dec=torch.randn(d, generator=generator),
        b_enc=torch.randn(m, generator=generator),
        subtract_b_dec=False,
    )


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(1, 12), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60)
def test_values_are_numpys(seed: int, n: int, d: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-6, 0, (n, 1))).astype(dtype)
    if n > 3:
        rows[1] = rows[0]
    exact = np.concatenate([np.linalg.svd(rows.astype(np.float64), compute_uv=False), np.zeros(d)])[:d]
    found = spectrum(rows)
    assert found.values.shape == (d,)
    assert (np.diff(found.values) <= 0).all()
    # Documented: 1e-9 of a value above the cut, and 1e-12 of the largest below.
    assert (np.abs(found.values - exact) <= 1e-9 * exact + 1e-12 * exact[0]).all()
    k = found.vectors.shape[1]
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-12)
    lengths = np.linalg.norm(rows.astype(np.float64) @ found.vectors, axis=0)
    assert (np.abs(lengths - found.values[d - k :]) <= 1e-11 * exact[0]).all()


@pytest.mark.parametrize("n", [40, 3 * BLOCK + 5])
def test_the_small_end_is_far_better_than_the_gram_matrix(n: int) -> None:
    values = np.concatenate([np.linspace(8, 2, 20), [1e-7, 3e-9, 1e-10, 0.0]])
    rows = known(values, n)
    found = spectrum(rows).values
    alone = np.sqrt(np.maximum(np.linalg.eigvalsh(rows.T @ rows)[::-1], 0.0))
    error, before = np.abs(found - values)[20:], np.abs(alone - values)[20:]
    assert error.max() <= 1e-13
    assert before.max() > 1e4 * error.max()


@pytest.mark.parametrize("scale", [1.0, 2.0**-1060, 1e-150, 1e-30, 1e30, 1e150, 1e300])
def test_scales(scale: float) -> None:
    rows = known(np.array([4.0, 2.0, 1.0]), 10) * scale
    np.testing.assert_allclose(spectrum(rows).values, np.array([4.0, 2.0, 1.0]) * scale, rtol=1e-4)
    assert span(rows).dimension == 3
    assert span(rows[:2]).dimension == 2


@pytest.mark.parametrize("small", [0.0, 1e-6, REFINED_BELOW, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("n", [3, 6, 50])
def test_vectors_are_those_of_the_values_up_to_the_threshold(small: float, n: int) -> None:
    rows = known(np.array([1.0, 1.0, 0.5, 1e-4, 1e-8, 0.0]), 60)[:n]
    found = spectrum(rows, small=small)
    assert found.vectors.shape == (6, int((found.values <= small * found.values[0]).sum()))


def test_zero_dimensional_answers_have_shapes() -> None:
    sae = tiny_sae()
    for matrix in ("decoder", "encoder"):
        everything = span(sae, matrix=matrix)  # type: ignore[arg-type]
        assert everything.dimension == 5
        assert everything.complement.basis.shape == (5, 0)
        assert complement(sae, matrix=matrix).basis.shape == (5, 0)  # type: ignore[arg-type]
        nothing = span(sae, [], matrix=matrix)  # type: ignore[arg-type]
        assert nothing.basis.shape == (5, 0)
        assert nothing.complement.dimension == complement(sae, [], matrix=matrix).dimension == 5  # type: ignore[arg-type]
    v = np.arange(5.0)
    assert not nothing.part(v).any()
    assert np.array_equal(nothing.rest(v), v)
    assert nothing.share(v) == 0.0
    assert nothing.complement.share(v) == 1.0
    assert principal_angles(nothing, everything).shape == (0,)
    assert span(np.zeros((4, 5))).dimension == 0
    assert spectrum(np.zeros((4, 5))).effective_rank == 0.0
    assert spectrum(np.zeros((0, 5))).values.shape == (5,)
    assert rank(np.zeros((0, 5))).rank == rank(np.zeros((4, 5))).rank == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 14), st.integers(1, 9))
@settings(max_examples=60)
def test_span_and_complement_split_the_space(seed: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (n, d)).astype(np.float32)
    inside, outside = span(rows), complement(rows)
    assert inside.dimension == rank(rows).rank  # small integers: no singular value comes near the threshold
    assert inside.dimension + outside.dimension == d
    v = rng.normal(size=(3, d))
    np.testing.assert_allclose(inside.part(v) + outside.part(v), v, atol=1e-12)
    np.testing.assert_allclose(inside.rest(v), outside.part(v), atol=1e-12)
    np.testing.assert_allclose(inside.share(v) ** 2 + outside.share(v) ** 2, 1.0, atol=1e-12)
    np.testing.assert_allclose(inside.part(rows), rows, atol=1e-12)
    assert np.abs(rows @ outside.basis).max(initial=0.0) <= 1e-12 * max(1, n)
    np.testing.assert_allclose(inside.complement.part(v), outside.part(v), atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([0.0, 1e-12, 1e-8, 1e-3, 0.7, 1.5, np.pi / 2]), max_size=4))
@settings(max_examples=60)
def test_principal_angles_of_known_subspaces(seed: int, angles: list[float]) -> None:
    d, k = 9, len(angles)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    first = turn[:, :k]
    second = first * np.cos(angles) + turn[:, k : 2 * k] * np.sin(angles)
    wider = np.concatenate([second, turn[:, 2 * k : 2 * k + 1]], axis=1)
    for other in (second, wider):
        for pair in ((first, other), (other, first)):
            np.testing.assert_allclose(principal_angles(*map(Subspace, pair)), np.sort(angles), atol=1e-14)


def test_effective_rank() -> None:
    assert spectrum(known(np.full(6, 3.0), 20)).effective_rank == pytest.approx(6)
    assert spectrum(known(np.array([2.0, 0, 0]), 20)).effective_rank == pytest.approx(1)
    share = np.array([0.75, 0.25])
    assert spectrum(known(share, 20)).effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert spectrum(known(np.array([4.0, 1.0, 0.5]), 20)).rank(0.75) == 2


def test_active_features_of_one_token() -> None:
    sae = tiny_sae()
    x = torch.linspace(-1, 1, 5)
    chosen = active_features(sae, x)
    assert chosen.tolist() == torch.nonzero(sae.encode(x)).ravel().tolist()
    assert 0 < len(chosen) < 9
    assert span(sae, chosen).dimension == min(len(chosen), 5)
    assert span(sae, chosen).share(sae.write(sae.encode(x), x).numpy()) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(select(sae, chosen, "encoder"), sae.W_enc.numpy().T[chosen])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: spectrum(np.array([[np.nan, 1.0]])), WeightsError),
        (lambda: spectrum(np.ones((2, 2), dtype=np.int64)), InputError),  # type: ignore[arg-type]
        (lambda: spectrum([[1.0]]), InputError),  # type: ignore[arg-type]
        (lambda: spectrum(np.ones(3)), ShapeError),
        (lambda: spectrum(np.ones((3, 0))), ShapeError),
        (lambda: spectrum(np.ones((3, 2)), small=1.5), InputError),
        (lambda: span(np.ones((1, 2)), relative=np.nan), InputError),
        (lambda: spectrum(tiny_sae(), [9]), FeatureError),
        (lambda: spectrum(tiny_sae(), [-1]), FeatureError),
        (lambda: spectrum(tiny_sae(), [1, 1]), FeatureError),
        (lambda: spectrum(tiny_sae(), [0.5]), FeatureError),  # type: ignore[list-item]
        (lambda: spectrum(tiny_sae(), matrix="bias"), InputError),  # type: ignore[arg-type]
        (lambda: Subspace(np.ones((2, 1))), InputError),
        (lambda: Subspace(np.ones((1, 2))), ShapeError),
        (lambda: Subspace(np.eye(2)).part(np.ones(3)), ShapeError),
        (lambda: principal_angles(Subspace(np.eye(2)), Subspace(np.eye(3))), ShapeError),
        (lambda: rank(np.eye(2), primes=[4]), InputError),
        (lambda: rank(np.eye(2), primes=[]), InputError),
    ],
)
def test_bad_input_is_told(call: Any, error: type[SaeVerifyError]) -> None:
    with pytest.raises(error):
        call()


def test_memory_is_a_small_multiple_of_the_weights() -> None:
    """Beside the float32 weights, less than twice as much again: no float64 copy of them, and nothing m x m."""
    rows = np.random.default_rng(0).normal(size=(32768, 128)).astype(np.float32)
    for work in (spectrum, span, rank):
        tracemalloc.start()
        work(rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * rows.nbytes
