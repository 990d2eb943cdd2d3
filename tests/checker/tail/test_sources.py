"""Errors after linear maps: what their sources know of them, against ascent on what the maps make of the exact ones.

Theorem adjoint-identity (f).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.attention import attended
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.measure import ENTRIES, WHOLE, Measured
from sae_verify.checker.tail.normed import normed
from sae_verify.checker.tail.pointwise import activated
from sae_verify.checker.tail.signless import Several, Signless
from sae_verify.checker.tail.sizes import spectral
from sae_verify.checker.tail.softmax import Softmax
from sae_verify.checker.tail.sources import Along, Attended, Carried, Line, Mixed, Steep, along
from sae_verify.checker.tail.taylor import Source, Taylor
from sae_verify.checker.tail.weights import NormWeights

from .enclosure import (
    MP,
    activation_of,
    attack,
    attention_of,
    exact_curves,
    holds,
    model,
    norm_of,
    random_attention,
    random_norm,
)
from .test_attention_model import context

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

SEEDS = st.integers(0, 10**6)
LINEAR = st.sampled_from([1e-3, 0.05, 0.3, 1.0])


def random_map(rng: np.random.Generator, width: int) -> Array:
    """One row, a few of very different lengths, nearly one direction alone, or more rows than there are entries."""
    rows = int(rng.choice([1, 2, width, 3 * width]))
    made = rng.normal(size=(rows, width))
    kind = rng.integers(4)
    if kind == 1:
        made = made * 10.0 ** rng.integers(-4, 3, (rows, 1))
    elif kind == 2:
        made = np.outer(rng.normal(size=rows), rng.normal(size=width)) + 1e-3 * made
    elif kind == 3:
        made = made - made.mean(axis=1, keepdims=True)  # blind to what all entries share
    return made


def behind(m: Any, value: Any, gain: Array) -> Any:
    return value @ m.array(gain.T)


def check(x: Taylor, out: Taylor, exact: Any, rng: np.random.Generator, steps: int = 15) -> None:
    """The model of the site, and what some maps make of it."""
    for _ in range(3):
        gain = random_map(rng, out.width)
        holds(x, out.mapped(gain), lambda m, z, g=gain: behind(m, exact(m, z), g), rng, steps=steps)


@given(SEEDS, LINEAR, st.sampled_from([0, 0, 2]), st.booleans(), st.sampled_from([1e-5, 1.0, 1e4]))
def test_norms(seed: int, linear: float, box: int, centred: bool, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    norm = random_norm(rng, 5, centred=centred, epsilon=epsilon)
    x = model(rng, 5, 4, box, linear=linear / 3, quadratic=linear / 8, errors=linear / 8, loose=linear / 50)
    check(x, normed(x, norm), lambda m, z: norm_of(m, z, norm), rng)


@given(SEEDS, LINEAR, st.sampled_from([0, 2]), st.sampled_from(["gelu", "silu", "tanh", "gelu_tanh"]))
def test_activations(seed: int, linear: float, box: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    x = model(rng, 6, 3 + box, box, linear=linear, quadratic=linear / 5, errors=linear / 5, loose=linear / 20)
    check(x, activated(x, kind), lambda m, z: activation_of(m, z, kind), rng)


@given(SEEDS, LINEAR, st.sampled_from([0, 2]), st.sampled_from([0, 2, 5]), st.sampled_from([0.1, 1.0, 5.0]))
def test_attention(seed: int, linear: float, box: int, earlier: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    w = random_attention(rng, 4, scale=scale)
    c = context(rng, w, earlier)
    x = model(rng, 4, 3, box, linear=linear, quadratic=linear / 5, errors=linear / 6, loose=linear / 40)
    check(x, attended(x, w, c, earlier), lambda m, z: attention_of(m, z, w, c.keys.mid, c.values.mid, earlier), rng, 8)


@given(SEEDS, st.sampled_from([0.02, 0.2]))
def test_a_norm_after_a_norm_after_an_attention(seed: int, linear: float) -> None:
    """What a norm leaves out is carried by what its argument did not know, and so on."""
    rng = np.random.default_rng(seed)
    w = random_attention(rng, 4)
    c = context(rng, w, 3)
    one, other = (random_norm(rng, 4, centred=centred) for centred in (False, True))
    x = model(rng, 4, 3, linear=linear, quadratic=linear / 5)
    out = normed(normed(attended(x, w, c, 3), one), other)

    def exact(m: Any, z: Any) -> Any:
        return norm_of(m, norm_of(m, attention_of(m, z, w, c.keys.mid, c.values.mid, 3), one), other)

    check(x, out, exact, rng, 8)


@pytest.mark.parametrize("size", [1000.0, 1.0, 1e-3, 1e-140, 1e-301])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-12, 1.0])
@pytest.mark.parametrize("across", [1e-9, 1e-7, 1e-3, 1.0])
def test_a_move_that_is_nearly_along_the_centre(size: float, epsilon: float, across: float) -> None:
    """Where only rounding separates what moves from the centre; and maps that take away what the lines say."""
    c, beside = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    jacobian = size * (0.1 * c + across * beside)[:, None]
    x = Taylor(Domain(0), size * c, jacobian, (), (), np.zeros(2))
    norm = NormWeights(False, Ball.exact(np.ones(2)), np.zeros(2), epsilon)
    out = normed(x, norm)
    maps = [line.map[:, 0] for source, _ in out.errors if isinstance(source, Along) for line in source.lines]
    blind = [np.array([[-v[1], v[0]]]) / max(np.abs(v).max(), 1e-300) for v in maps]
    gains = [np.eye(2), beside[None], c[None], *blind]
    with mpmath.workdps(60):
        for gain in gains:
            mapped = out.mapped(gain)
            for y in (-1, 1, mpmath.mpf("0.5")):
                z = MP.array(x.centre) + MP.array(jacobian[:, 0]) * y
                value = behind(MP, norm_of(MP, z[None], norm), gain)[0]
                model_ = MP.array(mapped.centre) + MP.array(mapped.jacobian[:, 0]) * y
                residual = value - model_ - exact_curves(mapped, MP.array(np.ones(1)) * y)
                assert all(abs(r) <= e for r, e in zip(residual, mapped.error, strict=True)), (residual, mapped.error)
                assert mpmath.sqrt(sum(r * r for r in residual)) <= mapped.error_norm


def test_weights_that_vanish_are_paid_for() -> None:
    """A map so small that products with it vanish, of numbers that are huge."""
    scores = Taylor(Domain(0), np.zeros(2), np.array([[1e13], [-9e13]]), (), (), np.zeros(2))
    pattern, weights = np.array([0.9, 0.1]), 1e-24 * np.array([[0.2, -1.8]])
    head = Mixed(Softmax(pattern, scores, 1e-15), weights, None, 1e300)
    with mpmath.workdps(60):
        response = [mpmath.mpf(p) * mpmath.mpf(w) for p, w in zip(pattern, weights[0], strict=True)]
        moved = response[0] * (mpmath.mpf(10) ** 13 + mpmath.mpf(10) ** 26 / 2)
        moved += response[1] * (-9 * mpmath.mpf(10) ** 13 + 81 * mpmath.mpf(10) ** 26 / 2)
        left = abs(mpmath.mpf(weights[0, 0]) - moved) * mpmath.mpf(1e-300)  # all weight is on the first key
    gain = np.array([[1e-300]])
    assert left <= head.size(gain)
    assert left <= head.rows(gain)[0]
    assert left <= head.row(gain)


def sampled(source: Source, rng: np.random.Generator) -> Array:
    """One of the errors that a source admits."""
    if isinstance(source, Along):
        made = sampled(source.others, rng)
        y = rng.normal(size=3)
        y = y / np.linalg.norm(y)
        for line in source.lines:
            s = line.size * rng.choice([-1.0, 1.0])
            made = made + s * (line.map[:, 0] if line.domain is None else line.map @ y)
        return made
    if isinstance(source, Carried):
        made = sum((gain @ sampled(part, rng) for part, gain in source.errors), np.zeros(len(source.box)))
        free = rng.normal(size=len(made))
        return source.factor * rng.choice([-1.0, 1.0]) * (made + source.more * free / np.linalg.norm(free))
    if isinstance(source, Steep):
        y = rng.normal(size=3)
        x = np.abs(source.jacobian @ (y / np.linalg.norm(y))) + source.rest
        size = np.minimum(source.steep * x, source.square * x * x) + source.apart
        return size * rng.choice([-1.0, 1.0], len(x))
    e = source.box * rng.choice([-1.0, 1.0], len(source.box))
    return e * min(1.0, source.norm / float(np.linalg.norm(e)))


def random_source(rng: np.random.Generator, scale: float) -> Source:
    """Of each kind that can be sampled, (4,)."""
    plain = Source("s", scale * rng.random(4), scale * float(rng.uniform(0.3, 1.5)))
    carried = Carried("s", np.full(4, np.inf), np.inf, 0.7, ((plain, rng.normal(size=(4, 4))),), 0.3 * scale)
    lines = (
        Line(Domain(0), scale * rng.normal(size=(4, 3)), 1.5),
        Line(None, scale * rng.normal(size=(4, 1)), 0.5),
    )
    q = rng.random(4)
    steep = Steep("s", np.full(4, np.inf), np.inf, Domain(0), scale * rng.normal(size=(4, 3)), scale * 0.1 * q, q, q, q)
    # Sources with a norm of their own as those of sites have; the infinite ones say what they know alone.
    return [plain, replace(carried, norm=1e300, box=np.full(4, 1e300)), along("s", lines, plain), steep][
        int(rng.integers(4))
    ]


@given(SEEDS, st.sampled_from([1e-100, 1e-6, 1.0, 1e6, 1e60]))
def test_no_error_exceeds_what_its_source_says(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    source = random_source(rng, scale)
    if isinstance(source, Steep):
        source = replace(source, norm=1e300, box=np.full(4, 1e300))
    gain = random_map(rng, 4)
    rows, size = source.rows(gain), source.size(gain)
    pairs, off = source.parts(gain)
    parts = sum(spectral(k) * e for k, e in pairs) + np.linalg.norm(off)
    for _ in range(30):
        made = gain @ sampled(source, rng)
        assert (np.abs(made) <= rows * (1 + 1e-12)).all()
        length = scale * float(np.linalg.norm(made / scale))
        assert length <= size * (1 + 1e-12)
        assert length <= parts * (1 + 1e-12)
        assert length <= source.shallow.size(gain) * (1 + 1e-12)


@given(SEEDS, st.sampled_from([1e-150, 1.0, 1e100]), st.sampled_from([0, 2]))
def test_signless_sums(seed: int, scale: float, box: int) -> None:
    rng = np.random.default_rng(seed)
    domain = Domain(box)
    free = Signless(domain, 10.0 ** rng.integers(-5, 3, (5, 1)) * rng.normal(size=(5, 3 + box)), rng.random(5))
    weights = scale * random_map(rng, 5)

    entries, whole = free.total(Measured(weights, ENTRIES)), free.total(Measured(weights, WHOLE))
    for total, by in ((entries, ENTRIES), (whole, WHOLE)):
        several = Several((free, replace(free, rest=2 * free.rest), free)).totals(Measured(weights, by))
        assert np.allclose(several[0], total, rtol=1e-6)
        assert np.allclose(several[2], total, rtol=1e-6)
        assert (several[1] >= several[0]).all()
    for _ in range(30):
        y = np.concatenate([rng.choice([-1.0, 1.0], box), rng.normal(size=3)])
        y[box:] /= np.linalg.norm(y[box:])
        x = (np.abs(free.lines @ y) + free.rest) * rng.choice([-1.0, 1.0, 0.5], 5)
        assert (np.abs(weights @ x) <= entries * (1 + 1e-12)).all()
        assert scale * np.linalg.norm(weights @ x / scale) <= whole * (1 + 1e-12)


def test_what_was_said_of_one_gain_is_not_said_of_another() -> None:
    inner = Source("test", np.ones(2), 1.0)
    source = Carried("test", np.full(3, 9.0), 9.0, 1.0, ((inner, np.ones((3, 2))),), 0.0)
    gain = np.eye(3)
    first = source.rows(gain)
    assert source.rows(gain) is first
    assert np.allclose(source.rows(2 * gain), 2 * first)
    assert np.allclose(source.rows(gain), first)
    assert not replace(source, factor=2.0).latest


def small_attention() -> tuple[Taylor, Taylor, Any, np.random.Generator]:
    rng = np.random.default_rng(1)
    w = random_attention(rng, 6, heads=1, kv=1)
    c = context(rng, w, 4)
    x = model(rng, 6, 3, linear=0.2)
    return x, attended(x, w, c, 4), lambda m, z: attention_of(m, z, w, c.keys.mid, c.values.mid, 4), rng


def test_a_map_across_says_less() -> None:
    """One head of two dimensions: a map that is blind to its output has an error of next to nothing."""
    x, out, exact, rng = small_attention()
    (source, gain), *_ = [(s, g) for s, g in out.errors if isinstance(s, Attended)]
    across = np.linalg.svd(source.heads[0].weights)[0][:, 2:].T
    assert source.size(across @ gain) < 1e-10 * source.norm
    assert (source.rows(across @ gain) < 1e-10 * source.norm).all()
    holds(x, out.mapped(across), lambda m, z: behind(m, exact(m, z), across), rng)


def test_less_would_be_found_out() -> None:
    """The attack can fail: with a hundredth of what one head's mean leaves out, or of a line, a model is refuted."""
    x, out, exact, rng = small_attention()
    row = rng.normal(size=(1, 6))

    def cheat(source: Source) -> Source:
        if isinstance(source, Attended):
            heads = tuple(replace(h, weights=h.weights / 100, norm=h.norm / 100) for h in source.heads)
            return replace(source, heads=heads, norm=source.norm / 100)
        if isinstance(source, Along):
            lines = tuple(replace(line, size=line.size / 100) for line in source.lines)
            return replace(source, lines=lines, norm=source.norm / 100)
        return source

    less = replace(out, errors=tuple((cheat(s), g) for s, g in out.errors)).mapped(row)
    assert max(attack(x, less, lambda m, z: behind(m, exact(m, z), row), rng)) > 1
