"""Sums of products whose factors move together: ascent on them, and on one row of what gates and activations leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array
from sae_verify.checker.tail.activations import FACTS
from sae_verify.checker.tail.crossed import Crossed, Moves, crossed, linear, nonlinear
from sae_verify.checker.tail.curves import Forms, Products
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.pointwise import activated, product
from sae_verify.checker.tail.taylor import Source, Taylor

from .enclosure import activation_of, holds, model

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
SCALES = st.sampled_from([1e-100, 1e-6, 1.0, 1e6, 1e60])


def unit(x: Array) -> Array:
    return x / max(float(np.linalg.norm(x)), 1e-300)


def climbed(a: Array, one: Array, other: Array, rng: np.random.Generator) -> float:
    """The trilinear form's norm by alternating maximisation from some starts: a lower bound of it."""
    tensor = np.einsum("nj,jk,jq->nkq", a, one, other)
    best = 0.0
    for _ in range(8):
        x, y = unit(rng.normal(size=one.shape[1])), unit(rng.normal(size=other.shape[1]))
        for _ in range(30):
            u = unit(np.einsum("nkq,k,q->n", tensor, x, y))
            x = unit(np.einsum("nkq,n,q->k", tensor, u, y))
            y = unit(np.einsum("nkq,n,k->q", tensor, u, x))
        best = max(best, float(np.linalg.norm(np.einsum("nkq,k,q->n", tensor, x, y))))
    return best


def random_rest(rng: np.random.Generator, n: int, k: int, box: int, scale: float) -> Taylor:
    """A model with every kind of curve, errors and loose ends."""
    curves = (
        (Products(rng.normal(size=(3, k)), rng.normal(size=(3, k))), scale * rng.normal(size=(n, 3))),
        (Products(rng.normal(size=(2, k)), rng.normal(size=(1, k))), scale * rng.normal(size=(n, 2))),
        (Forms(rng.normal(size=(1, k, k))), scale * rng.normal(size=(n, 1))),
        (Forms(rng.normal(size=(2, k, k))), scale * rng.normal(size=(n, 2))),
    )
    source = Source("s", rng.random(3), float(rng.uniform(0.3, 1.5)))
    errors = ((source, scale * rng.normal(size=(n, 3))),)
    return Taylor(Domain(box), np.zeros(n), rng.normal(size=(n, k)), curves, errors, scale * 0.1 * rng.random(n))


def sampled(z: Taylor, rng: np.random.Generator) -> tuple[Array, Array]:
    """A point of the domain, and a value of what is not linear there."""
    m, k = z.domain.box, z.order
    y = np.concatenate([rng.choice([-1.0, 1.0], m), unit(rng.normal(size=k - m))])
    rest = z.loose * rng.choice([-1.0, 1.0], z.width)
    for curve, gain in z.curves:
        q = curve.forms @ y @ y if isinstance(curve, Forms) else (curve.left @ y) * (curve.right @ y)
        rest = rest + gain @ q
    for source, gain in z.errors:
        e = source.box * rng.choice([-1.0, 1.0], len(source.box))
        rest = rest + gain @ (e * min(1.0, source.norm / float(np.linalg.norm(e))))
    return y, rest


@given(SEEDS, st.sampled_from([0, 1, 2]), SCALES, st.sampled_from([1, 3]))
def test_sums_of_products(seed: int, box: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    z = random_rest(rng, 5, 4, box, scale)
    a, factor = rng.normal(size=(n, 5)), rng.normal(size=5)
    lines, rests = linear(z.domain, z.jacobian), nonlinear(z)
    bounds = crossed(a, lines, rests), crossed(a, rests, rests), crossed(a, rests.scaled(factor), rests)
    for _ in range(20):
        y, r = sampled(z, rng)
        line = z.jacobian @ y
        for bound, values in zip(bounds, (line * r, r * r, factor * r * r), strict=True):
            assert np.linalg.norm(a @ values) <= bound * (1 + 1e-12)


def test_left_over_entries_on_both_sides() -> None:
    """|u'| may exceed |u| by what is left over: (2 - 1)(2 - 1) = 1 with sizes of 1 each."""
    part = ((np.array([[2.0]]), 1.0),)
    moves = Moves(part, np.array([1.0]), np.array([3.0]))
    assert crossed(np.ones((1, 1)), moves, moves) >= 9.0


@pytest.mark.parametrize("kind", tuple(FACTS))
@pytest.mark.parametrize("linear_size", [0.05, 0.5, 3.0])
def test_one_row_of_activations(kind: str, linear_size: float) -> None:
    """The sharper bound of a single row is a bound, too, of what really happens."""
    rng = np.random.default_rng(0)
    for box in (0, 1):
        x = model(rng, 6, 4, box, linear=linear_size, quadratic=linear_size / 4, errors=linear_size / 3)
        row = rng.normal(size=(1, 6))
        holds(x, activated(x, kind).mapped(row), lambda m, z, w=row: activation_of(m, z, kind) @ m.array(w.T), rng)


@pytest.mark.parametrize("size", [0.05, 0.5, 3.0])
def test_one_row_of_gates(size: float) -> None:
    rng = np.random.default_rng(1)
    for box in (0, 1):
        x = model(rng, 12, 4, box, linear=size, quadratic=size / 4, errors=size / 3)
        row, top, bottom = rng.normal(size=(1, 6)), np.eye(12)[:6], np.eye(12)[6:]
        out = product(activated(x.mapped(top), "silu"), x.mapped(bottom)).mapped(row)

        def exact(m, z, w=row):
            return (activation_of(m, z[..., :6], "silu") * z[..., 6:]) @ m.array(w.T)

        holds(x, out, exact, rng)


def test_signs_cancel_in_one_row() -> None:
    """Neurons that move alike and are read with opposite signs: nothing is left, though each by itself is large."""
    domain = Domain()
    z = Taylor(domain, np.zeros(2), np.array([[1.0, 0.0], [1.0, 0.0]]), (), (), np.zeros(2))
    z = Taylor(domain, z.centre, z.jacobian, (), ((Source("s", np.ones(1), 1.0), np.ones((2, 1))),), z.loose)
    crossing = next(s for s, _ in product(z, z).errors if isinstance(s, Crossed))
    assert crossing.size(np.array([[1.0, -1.0]])) < 1e-12
    assert crossing.size(np.array([[1.0, 1.0]])) >= 2.0


def sized(k: Array) -> Moves:
    """One part K (P, 1) with E = 1."""
    return Moves(((k, 1.0),), np.zeros(len(k)), 1.0001 * np.abs(k[:, 0]))


def test_products_that_vanish_before_they_are_large() -> None:
    """Regression: |a| |K| below the least float, times a large |M|; in models, by the order of the three factors."""

    def moving(jacobian: list[float], gain: float) -> Taylor:
        errors = ((Source("s", np.ones(1), 1.0), np.array([[gain]])),) if gain else ()
        return Taylor(Domain(), np.zeros(1), np.array([jacobian]), (), errors, np.zeros(1))

    for scale, line, error in ((1e-100, 1e-225, 1e225), (1e-155, 1e-165, 1e165)):
        model = product(moving([line, 0.0], 0.0), moving([0.0, 0.0], error)).mapped(np.array([[scale]]))
        assert float(model.reach[0]) >= scale
    many = np.zeros((200, 1))
    many[0] = 1.0
    assert crossed(1e-100 * many.T, sized(1e-225 * many), sized(1e225 * many)) >= 1e-100


def test_sizes_that_vanish() -> None:
    """Regression: products of sizes, and of what is left over, that vanish before a large a multiplies them."""
    small = sized(np.array([[1e-200]]))
    assert crossed(np.array([[1e300]]), small, small) >= 1e-100
    left = Moves(((np.zeros((1, 1)), 1.0),), np.array([1e-170]), np.array([1e-170]))
    assert crossed(np.array([[1e300]]), left, left) >= 1e-40


def test_columns_as_small_as_what_lengths_are_raised_by() -> None:
    """Regression: the change of such lengths is no share of them, and cancels something else."""
    tiny = 2.0**-1000
    small, large = 0.01 * tiny, 1000 * tiny

    def raised(size: float) -> float:
        length = size * (1 + 2.0**-28) + tiny
        return size * ((length + tiny) / length)

    k = np.array([[1e150], [1e150 * raised(small) / raised(large)]])
    m = np.full((2, 1), 1e140)
    exact = abs(small * k[0, 0] - large * k[1, 0]) * 1e140
    assert crossed(np.array([[small, -large]]), sized(k), sized(m)) >= exact


def test_the_least_float_as_a_size() -> None:
    """Regression: E / t, E the least float, is rounded by up to a half of it, for many entries."""
    count, least = 200, 5e-324
    k = np.full((count, 1), 1e300)
    moves = Moves(((k, least), (k, least)), np.zeros(count), np.full(count, 2.0001 * (least * 1e300)))
    exact = count * 2 * (least * 1e300)
    assert crossed(np.ones((1, count)), moves, sized(np.ones((count, 1)))) >= exact
