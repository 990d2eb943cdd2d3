"""Blocks at several perturbed positions at once: ascent on the residual, fifty digits, and what one position gives."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.attention import attended as attended_alone
from sae_verify.checker.tail.block import through_block
from sae_verify.checker.tail.context import Context, contexts
from sae_verify.checker.tail.moving import Places, apart, attended, through_blocks
from sae_verify.checker.tail.proof import Done, read_node, verify, write_node
from sae_verify.checker.tail.relaxation import Relaxation, free_basis, side_by_side
from sae_verify.checker.tail.taylor import Taylor
from sae_verify.checker.tail.weights import AttentionWeights

from .enclosure import (
    FAMILIES,
    TORCH,
    attack,
    holds,
    holds_exactly,
    mlp_of,
    model,
    norm_of,
    random_attention,
    random_block,
    scaled_to,
    turned,
)
from .test_sandwich import Case, highest, make, mutants, proved

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them
D = 4

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"heads": 4, "kv": 2},
    "rotary": {"heads": 2, "kv": 1, "d_head": 4, "rotary": 100.0},
    "capped": {"softcap": 1.5},
    "gemma": {"heads": 2, "kv": 1, "rotary": 1e4, "softcap": 20.0},
    "negative": {"scale": -0.7},
}


def attention_of(m: Any, ys: Any, at: int, w: AttentionWeights, context: Context, first: int) -> Any:
    """At place `at`, from the normed inputs (..., d) of all places; every key by hand, hidden ones left out."""
    out = m.array(w.output_bias)
    here = first + at
    oldest = 0 if w.window is None else here + 1 - w.window
    shown = context.keys.mid.shape[1]
    past = [p for p in range(first - shown, first) if p >= oldest]
    moving = [j for j in range(at + 1) if first + j >= oldest]

    def head(y: Any, weight: Array, bias: Array, norm: Any, position: int) -> Any:
        x = y @ m.array(weight.T) + m.array(bias)
        x = x if norm is None else norm_of(m, x, norm)
        return x if w.rotary_base is None else turned(m, x, float(w.rotary_base), position)  # type: ignore[arg-type]

    for h in range(w.n_heads):
        kv = h // (w.n_heads // w.n_kv_heads)
        rows, kv_rows = slice(h * w.d_head, (h + 1) * w.d_head), slice(kv * w.d_head, (kv + 1) * w.d_head)
        q = head(ys[at], w.query[rows], w.query_bias[rows], w.query_norm, here)
        scores, values = [], []
        for p in past:
            scores.append((q @ m.array(context.keys.mid[kv, p - first + shown]))[..., None])
            values.append(m.array(context.values.mid[kv, p - first + shown]))
        for j in moving:
            k = head(ys[j], w.key[kv_rows], w.key_bias[kv_rows], w.key_norm, first + j)
            scores.append((q * k).sum(-1)[..., None])
            values.append(ys[j] @ m.array(w.value[kv_rows].T) + m.array(w.value_bias[kv_rows]))
        s = m.join(scores) * m.array(w.scale.mid)
        if w.softcap is not None:
            s = m.tanh(s / m.array(w.softcap)) * m.array(w.softcap)
        raised = m.exp(s - m.top(s))
        p = raised / raised.sum(-1)[..., None]
        mixed = sum(p[..., i : i + 1] * v for i, v in enumerate(values))
        out = out + mixed @ m.array(w.output[:, rows].T)
    return out


def blocks_of(m: Any, z: Any, blocks: Any, shown: Any, places: Places) -> Any:
    """The last residual after all blocks, from (..., count d)."""
    d = z.shape[-1] // places.count
    xs = [z[..., i * d : (i + 1) * d] for i in range(places.count)]
    for b, context in zip(blocks, shown, strict=True):
        ys = [norm_of(m, x, b.attention_norm) for x in xs]
        after = []
        for at, x in enumerate(xs):
            change = attention_of(m, ys, at, b.attention, context, places.first)
            if b.attention_post_norm is not None:
                change = norm_of(m, change, b.attention_post_norm)
            written = mlp_of(m, norm_of(m, x if b.parallel else x + change, b.mlp_norm), b.mlp)
            if b.mlp_post_norm is not None:
                written = norm_of(m, written, b.mlp_post_norm)
            after.append(x + change + written)
        xs = after
    return xs[-1]


def context(rng: np.random.Generator, w: AttentionWeights, earlier: int, size: float = 1.0) -> Context:
    """As `contexts` gives it for the first of the places, which is number `earlier`."""
    shown = earlier if w.window is None else min(earlier, w.window - 1)
    shape = (w.n_kv_heads, shown, w.d_head)
    return Context(Ball.exact(size * rng.normal(size=shape)), Ball.exact(rng.normal(size=shape)))


def split(z: Any, count: int) -> list[Any]:
    d = z.shape[-1] // count
    return [z[..., i * d : (i + 1) * d] for i in range(count)]


def exact(w: AttentionWeights, c: Context, places: Places) -> Any:
    return lambda m, z: attention_of(m, split(z, places.count), places.count - 1, w, c, places.first)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("count", "earlier"), [(2, 0), pytest.param(2, 3, marks=pytest.mark.slow), (3, 2)])
def test_residuals(shape: str, count: int, earlier: int) -> None:
    """Keys and values that move beside constant ones, or with none of those (the whole prompt is perturbed)."""
    rng = np.random.default_rng(earlier)
    for box, linear, rest in ((0, 0.02, 0.0), (2, 0.1, 0.1), (0, 2.0, 2.0)):  # where little moves, little is allowed
        w, places = random_attention(rng, D, **SHAPES[shape]), Places(count, count + earlier)
        c = context(rng, w, earlier)
        x = model(rng, count * D, 4, box, linear=linear, quadratic=rest / 5, errors=rest / 6, loose=rest / 40)
        holds(x, attended(apart(x, count), w, c, places), exact(w, c, places), rng, steps=15)


@pytest.mark.parametrize("window", [1, 2, 3, 4, 9])
def test_windows(window: int) -> None:
    """Shorter than what is perturbed, reaching a part of what is before it, and longer than the prompt."""
    rng = np.random.default_rng(window)
    w, places = replace(random_attention(rng, D, rotary=100.0), window=window), Places(3, 6)
    c = context(rng, w, 3)
    x = model(rng, 3 * D, 4, linear=0.02)
    ys = apart(x, 3)
    for at in range(3):

        def value(m: Any, z: Any, at: int = at) -> Any:
            return attention_of(m, split(z, 3), at, w, c, 3)

        holds(x, attended(ys[: at + 1], w, c, places), value, rng, steps=15)


@pytest.mark.parametrize("scale", [1e-6, 10.0, 300.0])
@pytest.mark.parametrize("linear", [1e-3, 0.1, 1.0])
def test_saturated_and_uniform_patterns(scale: float, linear: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(2):
        w, places = random_attention(rng, D, scale=scale), Places(2, 5)
        c = context(rng, w, 3)
        x = model(rng, 2 * D, 4, linear=linear, errors=linear / 10)
        holds(x, attended(apart(x, 2), w, c, places), exact(w, c, places), rng, steps=20)


def test_the_remainder_is_of_third_order_and_tight_to_a_factor() -> None:
    rng = np.random.default_rng(6)
    w, places = random_attention(rng, D), Places(2, 5)
    c = context(rng, w, 3)
    x = model(rng, 2 * D, 3, linear=0.5, quadratic=0.2)
    sizes = [attended(apart(scaled_to(x, t), 2), w, c, places).error_norm for t in (1e-1, 1e-2)]
    assert 7e2 < sizes[0] / sizes[1] < 1.5e3
    small = scaled_to(x, 0.1)
    assert max(attack(small, attended(apart(small, 2), w, c, places), exact(w, c, places), rng)) > 0.02


@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-8, 1.0, 1e8]),
    st.sampled_from([0.0, 1e-14, 1e-7]),
    st.sampled_from(["plain", "rotary", "capped", "gemma"]),
    st.integers(0, 2),
)
def test_fifty_digits(seed: int, size: float, linear: float, shape: str, earlier: int) -> None:
    rng = np.random.default_rng(seed)
    w = random_attention(rng, D, **{**SHAPES[shape], "scale": min(1.0, size**-2)})
    c, places = context(rng, w, earlier, max(1.0, size)), Places(2, 2 + earlier)
    x = model(rng, 2 * D, 2, centre=size, linear=linear * size, quadratic=linear * size, loose=linear * size)
    out = attended(apart(x, 2), w, c, places)
    holds_exactly(x, out, exact(w, c, places), rng)
    assert (out.error > 0).all()
    if linear == 0.0:
        assert out.error_norm < 1e-9 * max(1.0, size)


SLOW = pytest.mark.slow
ROUNDS = [
    ("gpt2", 2, 0.1),
    ("gemma2", 2, 0.1),
    *(pytest.param(f, 3, s, marks=SLOW) for f in FAMILIES for s in (0.01, 1.0)),
]


@pytest.mark.parametrize(("family", "count", "linear"), ROUNDS)
def test_two_blocks(family: str, count: int, linear: float) -> None:
    """A change of the first position reaches the last one in both blocks, also by way of the second position."""
    rng = np.random.default_rng(1)
    blocks = [random_block(rng, D, family) for _ in range(2)]
    places = Places(count, count + 2)
    shown = [context(rng, b.attention, 2) for b in blocks]
    x = model(rng, count * D, 4, centre=2.0, linear=linear, quadratic=linear / 4, errors=linear / 5)
    for degree in (2, 1, 0):
        out = through_blocks(x, blocks, shown, places, degree)
        if degree == 2:
            holds(x, out, lambda m, z: blocks_of(m, z, blocks, shown, places), rng, steps=10)
        else:
            inside(x, out, lambda m, z: blocks_of(m, z, blocks, shown, places), rng)


def inside(x: Taylor, out: Taylor, value: Any, rng: np.random.Generator) -> None:
    """At random points of a model without errors the value is within the model's reach."""
    plain = replace(x, errors=(), loose=np.zeros(x.width))
    y = rng.normal(size=(200, x.order))
    y /= np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-9)
    z = plain.centre + y @ plain.jacobian.T + 0.5 * np.einsum("nab,Ba,Bb->Bn", plain.hessians, y, y)
    apart_ = np.abs(value(TORCH, torch.tensor(z)).numpy() - out.centre)
    assert (apart_ <= out.reach * (1 + 1e-9) + 1e-9).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_position_is_what_it_was(family: str) -> None:
    """The same parts by the same formulas: equal to rounding."""
    rng = np.random.default_rng(2)
    block = random_block(rng, D, family)
    c = context(rng, block.attention, 3)
    x = model(rng, D, 3, centre=2.0, linear=0.2, quadratic=0.05, errors=0.02)
    y, z = attended_alone(x, block.attention, c, 3), attended([x], block.attention, c, Places(1, 4))
    for new, old in ((z, y), (through_blocks(x, [block], [c], Places(1, 4), 2), through_block(x, block, c, 3))):
        np.testing.assert_allclose(new.centre, old.centre, atol=1e-13)
        np.testing.assert_allclose(new.jacobian, old.jacobian, atol=1e-13)
        np.testing.assert_allclose(new.hessians, old.hessians, atol=1e-12)
        np.testing.assert_allclose(new.error, old.error, rtol=1e-9)
        assert new.error_norm == pytest.approx(old.error_norm, rel=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_positions_that_do_not_move_are_constants(family: str) -> None:
    """The model then is that of the last position alone, with the earlier ones among the constant keys."""
    rng = np.random.default_rng(5)
    block = random_block(rng, D, family)
    rows = rng.normal(size=(4, D))
    x = model(rng, D, 3, linear=0.1)
    (whole,) = contexts([block], Ball.exact(rows), 5)
    (before,) = contexts([block], Ball.exact(rows[:2]), 3)
    still = [Taylor(x.domain, row, np.zeros((D, 3)), (), (), np.zeros(D)) for row in rows[2:]]
    joint = Taylor(
        x.domain,
        np.concatenate([*rows[2:], x.centre]),
        np.concatenate([*(s.jacobian for s in still), x.jacobian]),
        (),
        (),
        np.zeros(3 * D),
    )
    alone = through_block(x, block, whole, 4)
    new = through_blocks(joint, [block], [before], Places(3, 5), 2)
    np.testing.assert_allclose(new.centre, alone.centre, atol=1e-12)
    np.testing.assert_allclose(new.jacobian, alone.jacobian, atol=1e-12)
    assert new.error_norm == pytest.approx(alone.error_norm, rel=1e-6)


def test_far_out_nothing_wrong_is_said() -> None:
    rng = np.random.default_rng(8)
    w, places = random_attention(rng, D), Places(2, 5)
    c = context(rng, w, 3)
    for linear in (30.0, 1e4, 1e100, 1e200):
        x = model(rng, 2 * D, 3, linear=linear, errors=linear)
        holds(x, attended(apart(x, 2), w, c, places), exact(w, c, places), rng, steps=3)


def test_nothing_known_stays_so() -> None:
    rng = np.random.default_rng(9)
    w, places = random_attention(rng, D), Places(2, 5)
    c = context(rng, w, 3)
    x = model(rng, 2 * D, 3)
    for bad in (np.nan, np.inf):
        for place in (0, 2 * D - 1):
            broken = x.centre.copy()
            broken[place] = bad
            assert attended(apart(replace(x, centre=broken), 2), w, c, places).error_norm == np.inf


class Joint(Case):
    """A tail with several perturbed positions, and how it computes (readout, rho) of their states (..., count d)."""

    def exactly(self, m: Any, x: Any) -> tuple[Any, Any]:
        tail, f = self.relaxation, self.readout
        x = blocks_of(m, x, tail.blocks, tail.contexts, Places(tail.places, tail.position + 1))
        z = x - x.sum(-1)[..., None] / x.shape[-1] if f.centred else x
        rho = m.sqrt((z * z).sum(-1)[..., None] + m.array(f.d_epsilon.mid))[..., 0]
        return z @ m.array(f.weight.mid) / rho + m.array(f.constant.mid), rho


def joint(seed: int, family: str, count: int = 2, blocks: int = 1) -> Joint:
    """Each position with an equality of its own."""
    rng, one = np.random.default_rng(seed), make(seed, family, blocks, d=D, held=1)
    layers = one.relaxation.blocks
    shown = tuple(context(rng, b.attention, 2) for b in layers)
    basis, slip, stretch = side_by_side([free_basis(rng.normal(size=(1, D)), D) for _ in range(count)])
    start = Ball.exact(2 * rng.normal(size=count * D))
    return Joint(Relaxation(start, basis, slip, stretch, layers, shown, count + 1, places=count), one.readout)


@pytest.mark.parametrize("family", ["gpt2", *(pytest.param(f, marks=SLOW) for f in FAMILIES[1:])])
def test_what_is_proved_is_true(family: str) -> None:
    """Trees that the search finds are accepted, and ascent finds nothing above their level; false levels have none."""
    case = joint(0, family)
    assert case.relaxation.width == 2 * (D - 1)
    radius, tau, node = proved(case, 0.3)
    again = read_node(write_node(node), "regions", 2 * D, [4096])
    assert verify(case.relaxation, case.readout, radius, tau, again) >= 1
    assert highest(case, radius) <= tau
    top = highest(case, 3 * radius)
    for tree in (node, Done(), *mutants(node, np.random.default_rng(0), case.relaxation.basis)[:6]):
        with pytest.raises(Rejected):
            verify(case.relaxation, case.readout, 3 * radius, top - 1e-6 * abs(top), tree)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_radius_gives_the_gradient(family: str) -> None:
    """With respect to all positions at once."""
    case = joint(1, family, 3, 2)
    tail, tau = case.relaxation, case.value()
    x = torch.tensor(tail.start.mid[None], requires_grad=True)
    readout, rho = case.exactly(TORCH, x)
    ((readout - tau) * rho).sum().backward()
    assert x.grad is not None
    region = tail.ball(1e-6)
    bound = tail.bound(region, region.frame(), case.readout, tau)  # type: ignore[arg-type]
    np.testing.assert_allclose(bound.gradient / 1e-6, x.grad.numpy()[0] @ tail.basis, rtol=1e-6, atol=1e-8)
    assert np.abs(x.grad.numpy()[0, :D]).max() > 1e-4


def test_scales() -> None:
    """Radii from next to nothing to far beyond everything: the bound is above ascent, or says nothing."""
    case = joint(2, "gemma2")
    tail, tau = case.relaxation, case.value()
    tops = []
    for radius in (1e-200, 1e-12, 1e-3, 0.1, 1.0, 30.0, 1e10):
        region = tail.ball(radius)
        top = tail.bound(region, region.frame(), case.readout, tau).top  # type: ignore[arg-type]
        tops.append(top)
        if 1e-12 < radius < 1e3:
            assert top >= highest(case, radius, tau=tau, steps=15) * (1 - 1e-12)
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(tops))


def test_bases_side_by_side() -> None:
    """Of different ranks, one of them full, one empty: held directions stay held at each position."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(2, D)), np.zeros((0, D)), np.concatenate([np.eye(D), rng.normal(size=(1, D))])]
    parts = [free_basis(r, D) for r in rows]
    basis, slip, stretch = side_by_side(parts)
    assert basis.shape == (3 * D, D - 2 + D + 0)
    for at, r in enumerate(rows):
        assert np.abs(r @ basis[at * D : (at + 1) * D]).max(initial=0.0) < 1e-12
    delta = rng.normal(size=(100, 3 * D))
    for at, r in enumerate(rows):
        if len(r):
            part = delta[:, at * D : (at + 1) * D]
            delta[:, at * D : (at + 1) * D] = part - part @ np.linalg.pinv(r) @ r
    off = np.linalg.norm(delta - delta @ basis @ basis.T, axis=1)
    size = np.linalg.norm(delta, axis=1)
    assert (off <= (slip + 1e-14) * size).all()
    assert (np.linalg.norm(delta @ basis, axis=1) <= stretch * size).all()
    one = side_by_side(parts[:1])
    assert np.array_equal(one[0], parts[0][0])
    assert one[1:] == parts[0][1:]
