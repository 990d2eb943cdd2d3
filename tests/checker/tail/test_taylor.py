"""Linear operations on Taylor models: shared errors cancel as the exact ones do, and rounding is covered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.tail.curves import Products
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.taylor import NEGLIGIBLE, Source, Taylor, asked, stacked

from .enclosure import MP, holds, holds_exactly, model

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-140, 1e-8, 1.0, 1e8, 1e140])


@pytest.mark.parametrize("box", [0, 2])
def test_linear_maps_with_shared_errors(box: int) -> None:
    rng = np.random.default_rng(0)
    x = model(rng, 5, 4, box, quadratic=0.5, errors=0.4, loose=0.01)
    w, v, b, f = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=5)
    holds(x, x.mapped(w, b) + x.mapped(v), lambda m, z: z @ m.array((w + v).T) + m.array(b), rng)
    holds(x, x.scaled(f, np.ones(5)), lambda m, z: z * m.array(f) + 1, rng)
    holds(x, x.centred(), lambda m, z: z - z.sum(-1)[..., None] / 5, rng)
    both = stacked([x.mapped(w), x.mapped(v)])
    holds(x, both, lambda m, z: m.join([z @ m.array(w.T), z @ m.array(v.T)]), rng)
    holds(x, x.moving, lambda m, z: z - m.array(x.centre), rng)


def test_what_is_shared_cancels() -> None:
    """Only what is loose is counted twice."""
    x = model(np.random.default_rng(1), 4, 3, quadratic=1.0, errors=1.0)
    nothing = x + x.scaled(-np.ones(4))
    assert nothing.error_norm < 1e-13 * x.error_norm
    assert nothing.linear_norm < 1e-200
    other = replace(x, errors=tuple((replace(s), g) for s, g in x.errors))  # of the same size, but others
    assert (x + other.scaled(-np.ones(4))).error_norm > x.error_norm


@given(SEEDS, SCALES, SCALES, st.sampled_from([0.0, 1.0]))
@settings(max_examples=40)
def test_maps_in_fifty_digits(seed: int, scale: float, weight: float, moving: float) -> None:
    rng = np.random.default_rng(seed)
    x = model(rng, 6, 3, centre=scale, linear=scale * moving, quadratic=scale * moving, loose=scale * moving * 1e-16)
    w, b = weight * rng.normal(size=(2, 6)), scale * weight * rng.normal(size=2)
    factor = weight * rng.normal(size=6)
    for out, exact in (
        (x.mapped(w, b), lambda m, z: z @ m.array(w.T) + m.array(b)),
        (x.scaled(factor, x.centre), lambda m, z: z * m.array(factor) + m.array(x.centre)),
        (x.centred(), lambda m, z: z - z.sum(-1)[..., None] / 6),
        (x + x.mapped(weight * np.eye(6)[::-1]), lambda m, z: z + m.array(weight) * z[..., ::-1]),
    ):
        holds_exactly(x, out, exact, rng)
        assert (out.loose > 0).all()
        assert (out.loose <= (1 + 20 * weight) * (x.loose.max() + 1e-13 * x.parts.max())).all()


@given(SEEDS)
def test_uncertain_maps(seed: int) -> None:
    """Exact rows within their l2 distance, exact factors within theirs."""
    rng = np.random.default_rng(seed)
    x = model(rng, 4, 3, quadratic=0.3, loose=0.1)
    w, lost = rng.normal(size=(2, 4)), 0.1 * rng.random(2)
    away = rng.normal(size=(2, 4))
    away *= (lost / np.linalg.norm(away, axis=1))[:, None] * (1 - 1e-12)
    holds_exactly(x, x.mapped(w, row_error=lost), lambda m, z: z @ (m.array(w) + m.array(away)).T, rng)
    factor, off = rng.normal(size=4), 0.1 * rng.random(4)
    sign = rng.choice([-1.0, 1.0], 4)
    out = x.scaled(factor, factor_error=off)
    holds_exactly(x, out, lambda m, z: z * (m.array(factor) + m.array(off) * m.array(sign)), rng)


@given(SEEDS)
def test_sizes_of_errors(seed: int) -> None:
    """`rows` and `error_norm` against the worst errors of one source, by its two bounds."""
    rng = np.random.default_rng(seed)
    gain, box = rng.normal(size=(3, 4)), rng.random(4)
    source = Source("s", box, float(rng.uniform(0.1, 1.5) * np.linalg.norm(box)))
    x = Taylor(Domain(), np.zeros(3), np.zeros((3, 1)), (), ((source, gain),), np.zeros(3))
    for _ in range(50):
        e = box * rng.choice([-1.0, 1.0, 0.5], 4)
        e *= min(1.0, source.norm / np.linalg.norm(e)) * (1 - 1e-12)
        assert (np.abs(gain @ e) <= x.error).all()
        assert np.linalg.norm(gain @ e) <= x.error_norm


def test_new_errors() -> None:
    x = model(np.random.default_rng(2), 3, 2)
    wider = x.with_source("a", np.array([1.0, 2.0, np.inf]), 1.5)
    assert (wider.error >= [1.0, 1.5, 1.5]).all()
    assert 1.5 <= wider.error_norm < 1.6
    assert x.with_error_at(1, "b", 2.0).error[1] >= 2.0
    assert x.with_error_at(1, "b", np.nan).error[1] == np.inf
    assert (x.loosened(np.array([0.0, 1.0, np.nan])).error >= [0.0, 1.0, np.inf]).all()
    assert MP.array([0.5])[0] == 0.5


def test_a_part_that_occurs_twice_counts_twice() -> None:
    x = model(np.random.default_rng(3), 3, 2, quadratic=1.0, errors=1.0)
    twice = replace(x, curves=(*x.curves, *x.curves), errors=(*x.errors, *x.errors))
    nothing = x.scaled(np.zeros(3))
    for other in (twice + nothing, stacked([twice])):
        np.testing.assert_allclose(other.hessians, 2 * x.hessians)
        np.testing.assert_allclose([gain for _, gain in other.errors], [2 * gain for _, gain in x.errors])


@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-3, 0.5, 1.0, 1e150, np.inf]), max_size=6), st.integers(0, 2**32 - 1))
def test_few_errors_are_not_asked(sizes: list[float], seed: int) -> None:
    """What is said is never below what all sources say when they are asked, and hardly above it."""
    rng = np.random.default_rng(seed)
    errors = tuple((Source("test", np.array([size]), size), np.eye(1)) for size in sizes)
    coarse = [np.array([size * (1 + rng.random())]) for size in sizes]
    said = {id(source): size.copy() * rng.random() for (source, _), size in zip(errors, coarse, strict=True)}
    calls = []

    def ask(source: Source, _: object) -> np.ndarray:
        calls.append(source)
        return said[id(source)]

    exact = sum(said.values(), np.ones(1))
    found = sum(asked(errors, coarse, np.ones(1), ask), np.ones(1))
    assert (found >= exact).all()
    left = sum(size for (source, _), size in zip(errors, coarse, strict=True) if source not in calls)
    assert (left <= NEGLIGIBLE * found * (1 + 1e-6)).all()


@pytest.mark.parametrize(("norm", "weight"), [(1e200, 1e-200), (1e40, 1e-290), (1.0, 1e-300)])
def test_gains_that_vanish_are_paid_for(norm: float, weight: float) -> None:
    """A gain of 1 / norm before an error as large as norm: after the map it is no float above zero."""
    gain, none = np.array([[1.0 / norm]]), np.zeros(1)
    large = Taylor(Domain(0), none, np.zeros((1, 1)), (), ((Source("test", np.array([norm]), norm), gain),), none)
    root = np.array([[norm**0.5]])
    curved = Taylor(Domain(0), none, np.zeros((1, 1)), ((Products(root, root), gain),), (), none)
    for z in (large, curved):
        for then in (z.mapped(np.array([[weight]])), z.scaled(np.array([weight]))):
            assert then.reach[0] >= weight
            assert then.rest_norm >= weight
            assert then.mapped(np.array([[1.0 / weight]])).reach[0] >= 1.0 - 1e-12
