"""Trilinear forms: never below what ascent finds, no larger than the unfoldings' norms and the sum of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array
from sae_verify.checker.tail.pieces import narrowed
from sae_verify.checker.tail.trilinear import Rows, _largest, nearly, together, trilinear

from .test_crossed import climbed

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-100, 1e-6, 1.0, 1e6, 1e60])
COUNTS = st.sampled_from([1, 2, 6, 9])
KINDS = st.sampled_from(["any", "zeros", "alike", "opposed"])


def matrices(seed: int, scale: float, n: int, count: int, kind: str) -> tuple[Array, Array, Array]:
    """a (n, P), K (P, 3) and M (P, 5)."""
    rng = np.random.default_rng(seed)
    a, one, other = rng.normal(size=(n, count)), scale * rng.normal(size=(count, 3)), rng.normal(size=(count, 5))
    if kind == "zeros":
        one[0], other[-1], a[:, count // 2] = 0.0, 0.0, 0.0
    if kind in ("alike", "opposed"):
        a[:], one[:], other[:] = a[:, :1], one[0], other[0]
    if kind == "opposed":
        a *= np.where(np.arange(count) % 2, -1.0, 1.0)
    return a, one, other


def unfolded(a: Array, one: Array, other: Array) -> float:
    """The least norm of the three unfoldings."""
    tensor = np.einsum("nj,jk,jq->nkq", a, one, other)
    sides = (np.moveaxis(tensor, i, 0).reshape(tensor.shape[i], -1) for i in range(3))
    return min(float(np.linalg.norm(side, 2)) for side in sides)


def as_rows(*parts: tuple[Array, float]) -> Rows:
    return Rows.of(parts, len(parts[0][0]))


def alone(matrix: Array) -> Rows:
    return as_rows((matrix, 1.0)).stacked(np.ones(1))


@given(SEEDS, SCALES, st.sampled_from([1, 4]), COUNTS, KINDS)
@example(0, 1.0, 1, 9, "opposed")
@example(0, 1e60, 4, 1, "zeros")
def test_both_ways_to_bound_a_form(seed: int, scale: float, n: int, count: int, kind: str) -> None:
    """By Gram matrices over j, and by the unfoldings' own: also where those have more rows than there are j."""
    a, one, other = matrices(seed, scale, n, count, kind)
    found = climbed(a, one, other, np.random.default_rng(seed))
    sizes = np.linalg.norm(a, axis=0) * np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    for bound in (together(alone(a.T), alone(one), alone(other)), trilinear(a, one, other)):
        assert found <= bound * (1 + 1e-12) + 1e-290
        assert bound <= sizes.sum() * (1 + 1e-6) + 1e-280
        # The largest eigenvalue is exceeded by P^(1/64) at most, and rounding is seen where nearly all cancels.
        assert bound <= unfolded(a, one, other) * 1.06 + 1e-5 * sizes.sum() + 1e-280
    if n == 1 and kind == "any" and count > 2:
        assert trilinear(a, one, other) <= found * 1.05  # a matrix: the spectral norm's own slack
    assert trilinear(a, 0 * one, other) < 1e-290


@given(SEEDS, SCALES, st.sampled_from([1, 4]), COUNTS)
def test_parts_side_by_side(seed: int, scale: float, n: int, count: int) -> None:
    """What cosines say of parts side by side is what the whole matrix says, and the form's norm is a norm of it."""
    rng = np.random.default_rng(seed)
    a, other = rng.normal(size=(n, count)), rng.normal(size=(count, 2))
    parts = [(scale * rng.normal(size=(count, q)), float(rng.uniform(0.1, 10))) for q in (1, 4, 2)]
    shares = rng.dirichlet(np.ones(3)) ** 0.5 * (1 - 1e-12)
    whole = np.concatenate([k * (size / t) for (k, size), t in zip(parts, shares, strict=True)], axis=1)
    made = as_rows(*parts).stacked(shares)
    np.testing.assert_allclose(made.sizes, np.linalg.norm(whole, axis=1), rtol=1e-7)
    units = whole / np.linalg.norm(whole, axis=1)[:, None]
    np.testing.assert_allclose(made.cosines, units @ units.T, atol=1e-7)
    bound = together(alone(a.T), made, alone(other))
    for _ in range(20):
        d = rng.normal(size=2)
        d /= np.linalg.norm(d)
        total = np.zeros(n)
        for k, size in parts:
            e = rng.normal(size=k.shape[1])
            total += a @ ((k @ (size * e / np.linalg.norm(e))) * (other @ d))
        assert np.linalg.norm(total) <= bound * (1 + 1e-12)


def test_nearly_is_the_tensors_frobenius_norm() -> None:
    a, one, other = matrices(0, 1.0, 4, 6, "any")
    tensor = np.einsum("nj,jk,jq->nkq", a, one, other)
    found = nearly(alone(a.T), as_rows((one, 1.0), (2 * one, 3.0)), alone(other))
    np.testing.assert_allclose(found, np.linalg.norm(tensor) * np.array([1.0, 6.0]), rtol=1e-6)


@given(SEEDS, st.sampled_from(["full", "rank one", "apart", "zero"]))
def test_eigenvalues_of_products(seed: int, kind: str) -> None:
    """Also where the product is far from symmetric, and where nearly nothing is left of it."""
    rng = np.random.default_rng(seed)
    order = int(rng.integers(1, 9))
    x, y = rng.normal(size=(order, order)), rng.normal(size=(order, order))
    if kind == "rank one":
        x, y = x[:, :1], y[:, :1]
    if kind == "apart":  # ranges nearly at right angles
        x, y = x[:, : (order + 1) // 2], rng.normal(size=(order, 1))
        y = y - x @ np.linalg.lstsq(x, y, rcond=None)[0] + 1e-7 * y
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    left, right = x @ x.T, y @ y.T
    left = left / np.abs(left).sum()
    if kind == "zero":
        left = 0 * left
    truth = max(np.linalg.eigvals(left @ right).real.max(), 0.0)
    found = _largest(left, right, 1e-15)
    assert truth - 1e-13 <= found
    assert found <= truth * 1.05 + 1e-4


def test_what_is_no_number_says_nothing() -> None:
    """Entries that are infinite: the form's bound is no number below the sum of sizes, which is infinite."""
    a, one, other = matrices(0, 1.0, 4, 3, "any")
    one[1, 1] = np.inf
    assert together(alone(a.T), alone(one), alone(other)) == np.inf
    assert trilinear(a, one, other) == np.inf


@given(SEEDS, SCALES, st.sampled_from(["full", "dependent", "zero", "graded"]))
def test_fewer_rows_say_as_much(seed: int, scale: float, kind: str) -> None:
    """||W x|| <= ||R x|| + off sum |x|, and hardly more."""
    rng = np.random.default_rng(seed)
    w = scale * rng.normal(size=(12, 5))
    if kind == "dependent":
        w[:, 3:] = w[:, :2] * 2
    if kind == "zero":
        w[:] = 0.0
    if kind == "graded":
        w *= 10.0 ** np.array([0, -8, -16, 8, 16])
    r, off = narrowed(w)
    assert r.shape == (5, 5)
    longest = float(np.linalg.norm(w, axis=0).max())
    assert off <= 1e-12 * longest + 1e-280
    null = np.linalg.svd(r)[2]
    for x in (*rng.normal(size=(10, 5)), *null, *np.eye(5)):
        whole, made = np.linalg.norm(w @ x), np.linalg.norm(r @ x)
        assert whole <= made + off * np.abs(x).sum()
        assert made <= whole * (1 + 1e-8) + 1e-12 * longest * np.abs(x).sum() + 1e-280
    same, nothing = narrowed(w.T)
    np.testing.assert_array_equal(same, w.T)
    assert nothing == 0.0
