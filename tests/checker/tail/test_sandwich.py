"""Whole tails, random and tiny, of the three families: the bound of the claim is above what ascent finds, always."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.bounds.through_blocks import Budget, linear_radius, prove
from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.block import through_block
from sae_verify.checker.tail.context import Context
from sae_verify.checker.tail.proof import Cut, Done, Node, Split, read_node, verify, write_node
from sae_verify.checker.tail.readout import Functional, affine
from sae_verify.checker.tail.relaxation import Relaxation, free_basis

from .enclosure import DIGITS, FAMILIES, MP, TORCH, block_of, holds, model, random_block

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them


class Case(NamedTuple):
    """A tail, its readout, and how it computes (readout, rho) of the hook's states (..., d)."""

    relaxation: Relaxation
    readout: Functional

    def exactly(self, m: Any, x: Any) -> tuple[Any, Any]:
        tail, f = self.relaxation, self.readout
        for block, context in zip(tail.blocks, tail.contexts, strict=True):
            x = block_of(m, x, block, context.keys.mid, context.values.mid, tail.position)
        z = x - x.sum(-1)[..., None] / x.shape[-1] if f.centred else x
        rho = m.sqrt((z * z).sum(-1)[..., None] + m.array(f.d_epsilon.mid))[..., 0]
        return z @ m.array(f.weight.mid) / rho + m.array(f.constant.mid), rho

    def value(self) -> float:
        return float(self.exactly(TORCH, torch.tensor(self.relaxation.start.mid)[None])[0])


def make(seed: int, family: str, blocks: int = 2, d: int = 5, held: int = 0, size: float = 0.5) -> Case:
    rng = np.random.default_rng(seed)
    layers = tuple(random_block(rng, d, family, size) for _ in range(blocks))
    contexts = tuple(
        Context(*(Ball.exact(rng.normal(size=(b.attention.n_kv_heads, 3, b.attention.d_head))) for _ in range(2)))
        for b in layers
    )
    basis, slip, stretch = free_basis(rng.normal(size=(held, d)), d)
    relaxation = Relaxation(Ball.exact(2 * rng.normal(size=d)), basis, slip, stretch, layers, contexts, 3)
    w = rng.normal(size=d)
    centred = family == "gpt2"
    return Case(
        relaxation,
        Functional(
            Ball.exact(w - w.mean() if centred else w), Ball.exact(float(rng.normal())), centred, Ball.exact(d * 1e-5)
        ),
    )


def highest(case: Case, radius: float, seed: int = 0, steps: int = 60, tau: float | None = None) -> float:
    """The largest readout that ascent finds within the radius; with `tau`, the largest (readout - tau) rho."""
    rng, tail = np.random.default_rng(seed), case.relaxation
    y = rng.normal(size=(24, tail.width))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    y[12:] *= rng.random((12, 1))
    at, best = torch.tensor(radius * y, requires_grad=True), -np.inf
    optimiser = torch.optim.Adam([at], lr=radius / 15)
    for _ in range(steps):
        readout, rho = case.exactly(TORCH, torch.tensor(tail.start.mid) + at @ torch.tensor(tail.basis).T)
        goal = readout if tau is None else (readout - tau) * rho
        best = max(best, float(goal.detach().max()))
        optimiser.zero_grad()
        (-goal.sum()).backward()
        optimiser.step()
        with torch.no_grad():
            at.mul_((radius / at.norm(dim=1, keepdim=True)).clamp(max=1.0))
    return best


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("linear", [0.01, 0.1, 1.0])
def test_one_block(family: str, linear: float) -> None:
    """Its Taylor model, with errors that came in: entry by entry, and in norm."""
    for seed in range(2):
        case = make(seed, family, 1)
        block, context = case.relaxation.blocks[0], case.relaxation.contexts[0]
        rng = np.random.default_rng(seed)
        x = model(rng, 5, 3, seed, centre=2.0, linear=linear, quadratic=linear / 4, errors=linear / 5)
        holds(
            x,
            through_block(x, block, context, 3),
            lambda m, z, b=block, c=context: block_of(m, z, b, c.keys.mid, c.values.mid, 3),
            rng,
            steps=15,
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("blocks", "held"), [(0, 0), (1, 2), *(pytest.param(*p, marks=pytest.mark.slow) for p in ((2, 0), (3, 1)))]
)
def test_affine_bounds(family: str, blocks: int, held: int) -> None:
    """For levels above, below and at the value, on balls and on caps: the bound itself, at every point."""
    for seed, radius in ((0, 1e-2), (1, 0.3), (2, 3.0)):
        case = make(seed, family, blocks, held=held)
        tail, value = case.relaxation, case.value()
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=tail.width)
        normal /= np.linalg.norm(normal)
        for region in (tail.ball(radius), tail.ball(radius).cut(normal, 0.4 * radius)):
            frame = region.frame()
            assert frame is not None
            m = frame.box.shape[1]
            s = rng.normal(size=(400, tail.width))
            s[:, m:] /= np.linalg.norm(s[:, m:], axis=1, keepdims=True)
            s[:, :m] = np.clip(s[:, :m], -1, 1)
            y = frame.centre + s @ frame.columns.T
            readout, rho = case.exactly(TORCH, torch.tensor(tail.start.mid + y @ tail.basis.T))
            with np.errstate(all="ignore"):
                resid = tail.resid(region, frame)
            for tau in (value, value - 2.0, value + 2.0, value + 50.0, float(case.readout.constant.mid)):
                bound = affine(resid, case.readout, tau)
                left = ((readout - tau) * rho).numpy()
                slack = 1e-12 * np.abs(left).max()
                assert (left <= bound.constant + s @ bound.gradient + slack).all()
                assert bound.top >= (bound.constant + s @ bound.gradient).max() - slack
        assert tail.bound(tail.ball(radius), tail.ball(radius).frame(), case.readout, value).top >= highest(  # type: ignore[arg-type]
            case, radius, tau=value, steps=30
        ) * (1 - 1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_radius_gives_the_gradient(family: str) -> None:
    case = make(0, family)
    tail, tau = case.relaxation, case.value()
    x = torch.tensor(tail.start.mid[None], requires_grad=True)
    readout, rho = case.exactly(TORCH, x)
    ((readout - tau) * rho).sum().backward()
    assert x.grad is not None
    radius = 1e-6
    region = tail.ball(radius)
    bound = tail.bound(region, region.frame(), case.readout, tau)  # type: ignore[arg-type]
    assert np.allclose(bound.gradient / radius, x.grad.numpy()[0], rtol=1e-6, atol=1e-8)
    assert 0 <= bound.constant < 1e-8 + bound.errors["rounding"] < 1e-7
    ratios = []
    for r in (1e-3, 1e-4):  # what is beyond the gradient is of second order
        region = tail.ball(r)
        bound = tail.bound(region, region.frame(), case.readout, tau)  # type: ignore[arg-type]
        ratios.append(bound.constant - bound.errors["rounding"])
    assert 80 < ratios[0] / ratios[1] < 130


@pytest.mark.parametrize("family", FAMILIES)
def test_a_larger_radius_gives_no_smaller_bound(family: str) -> None:
    case = make(1, family, held=1)
    tail, tau = case.relaxation, case.value() + 0.5
    tops = []
    for radius in np.geomspace(1e-4, 30, 6):
        region = tail.ball(float(radius))
        tops.append(tail.bound(region, region.frame(), case.readout, tau).top)  # type: ignore[arg-type]
    assert all(a <= b * (1 + 1e-9) or not a > 0 for a, b in itertools.pairwise(tops))


@given(st.integers(0, 10**4), st.sampled_from(FAMILIES), st.sampled_from([1e-3, 0.05]))
def test_without_blocks(seed: int, family: str, radius: float) -> None:
    """The final norm alone, at its own level: a linear function and a square, in closed form to second order."""
    case = make(seed, family, 0)
    tail, f = case.relaxation, case.readout
    tau = case.value()
    region = tail.ball(radius)
    bound = tail.bound(region, region.frame(), f, tau)  # type: ignore[arg-type]
    h = tail.start.mid - (tail.start.mid.mean() if f.centred else 0)
    s = float(np.sqrt(h @ h + f.d_epsilon.mid))
    k = float(f.constant.mid) - tau
    slope = f.weight.mid + k / s * h
    slope = slope - (slope.mean() if f.centred else 0)
    expected = radius * np.linalg.norm(slope) + max(k, 0) * radius**2 / (2 * s)
    assert bound.top >= highest(case, radius, tau=tau, steps=5) - 1e-12
    assert abs(bound.top - expected) <= 1e-6 * expected + 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_neurons_and_heads_does_not_matter(family: str) -> None:
    case = make(2, family)
    tail, tau = case.relaxation, case.value()

    def permuted(block: Any) -> Any:
        mlp = block.mlp
        order = np.random.default_rng(0).permutation(len(mlp.up))
        gate = {} if mlp.gate is None else {"gate": mlp.gate[order], "gate_bias": mlp.gate_bias[order]}
        mlp = replace(mlp, up=mlp.up[order], up_bias=mlp.up_bias[order], down=mlp.down[:, order], **gate)
        return replace(block, mlp=mlp)

    other = replace(tail, blocks=tuple(permuted(b) for b in tail.blocks))
    for radius in (1e-2, 0.3):
        region = tail.ball(radius)
        a, b = (t.bound(region, region.frame(), case.readout, tau) for t in (tail, other))  # type: ignore[arg-type]
        assert a.top == pytest.approx(b.top, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_centre_in_fifty_digits(family: str) -> None:
    """With no radius to speak of, (readout - tau) rho is at most the constant, and hardly less."""
    for seed in range(2):
        case = make(seed, family, 3)
        for tau in (case.value(), 0.0):
            region = case.relaxation.ball(1e-30)
            bound = case.relaxation.bound(region, region.frame(), case.readout, tau)  # type: ignore[arg-type]
            with mpmath.workdps(DIGITS):
                readout, rho = case.exactly(MP, MP.array(case.relaxation.start.mid)[None])
                exact = (readout[0] - mpmath.mpf(tau)) * rho[0]
                assert exact <= bound.constant
                assert bound.constant <= float(exact) + 1e-5


def proved(case: Case, gap: float) -> tuple[float, float, Node]:
    """A radius that one pass proves, or somewhat more with a few of them; its level and its tree."""
    tau = case.value() + gap
    radius = 2 * (linear_radius(case.relaxation, case.readout, tau) or 1.0)
    node = None
    for _ in range(20):
        node = prove(case.relaxation, case.readout, radius, tau, Budget(1))
        if node is not None:
            break
        radius *= 0.6
    assert node is not None, "nothing was proved"
    for longer in (1.5, 1.2):
        tree = prove(case.relaxation, case.readout, longer * radius, tau, Budget(6))
        if tree is not None:
            return longer * radius, tau, tree
    return radius, tau, node


CASES = [(f, 0) for f in FAMILIES] + [pytest.param(f, 1, marks=pytest.mark.slow) for f in FAMILIES]


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_what_is_proved_is_true(family: str, seed: int) -> None:
    """Trees that the search finds are accepted, also after a round trip, and ascent finds nothing above the level."""
    case = make(seed, family, 1 + seed, d=4 + seed, held=seed)
    for gap in (0.05, 0.5):
        radius, tau, node = proved(case, gap)
        assert verify(case.relaxation, case.readout, radius, tau, node) >= 1
        again = read_node(write_node(node), "regions", len(case.relaxation.basis), [4096])
        assert verify(case.relaxation, case.readout, radius, tau, again) >= 1
        assert highest(case, radius, seed) <= tau


def mutants(node: Node, rng: np.random.Generator, basis: Array) -> list[Node]:
    """Another direction, another point or axis, a part less, done too early, one more cut or split."""

    def unit() -> Array:
        n = basis @ rng.normal(size=basis.shape[1])
        return n / np.linalg.norm(n)

    wrong: list[Node] = [Done(), Cut(unit(), Done()), Cut(unit(), node)]
    if isinstance(node, Cut):
        tilted = node.normal + 0.3 * unit()
        wrong += [Cut(-node.normal, node.then), Cut(unit(), node.then), Cut(tilted / np.linalg.norm(tilted), node.then)]
        wrong += [
            node.then,
            Cut(node.normal, Done()),
            *(Cut(node.normal, m) for m in mutants(node.then, rng, basis)[:2]),
        ]
    if isinstance(node, Split):
        wrong += [replace(node, parts=node.parts[1:]), replace(node, parts=node.parts[:-1], at=node.at[:-1])]
        wrong += [replace(node, at=tuple(a + 0.1 for a in node.at)), replace(node, parts=node.parts[::-1])]
        wrong += [replace(node, axis=7, normal=None), replace(node, normal=unit(), axis=None)]
    wrong.append(Split(None, unit(), (0.0,), (node, node)))
    wrong.append(Split(None, unit(), (float(rng.normal()),), (node, Done())))
    return wrong


@pytest.mark.parametrize("family", ["gpt2", *(pytest.param(f, marks=pytest.mark.slow) for f in ("llama", "gemma2"))])
def test_mutants_prove_nothing_false(family: str) -> None:
    """At a level that is false at the radius no tree whatever is accepted."""
    case = make(3, family, 1, d=4)
    rng = np.random.default_rng(0)
    radius, tau, node = proved(case, 0.2)
    accepted = 0
    for mutant in mutants(node, rng, case.relaxation.basis):
        with contextlib.suppress(Rejected):
            verify(case.relaxation, case.readout, radius, tau, mutant)
            accepted += 1
    assert accepted == 0 or highest(case, radius, 5) <= tau
    for wide in (1.2, 3.0):
        top = highest(case, wide * radius)
        false = top - 1e-6 * abs(top)
        for mutant in (node, *mutants(node, rng, case.relaxation.basis)):
            with pytest.raises(Rejected):
                verify(case.relaxation, case.readout, wide * radius, false, mutant)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_many_tails(family: str, seed: int) -> None:
    """One to three blocks, some held directions: what is proved is true, and proves nothing false."""
    case = make(seed, family, 1 + seed % 3, d=4 + seed % 7, held=seed % 3)
    radius, tau, node = proved(case, 0.1 + 0.2 * (seed % 3))
    verify(case.relaxation, case.readout, radius, tau, node)
    assert highest(case, radius, seed, 100) <= tau
    top = highest(case, 3 * radius, seed)
    with pytest.raises(Rejected):
        verify(case.relaxation, case.readout, 3 * radius, top - 1e-9 * abs(top), node)


@pytest.mark.parametrize("family", FAMILIES)
def test_enormous_radii_end_in_no_number(family: str) -> None:
    """Models blow up block by block: the bound becomes infinite, and nothing is raised."""
    case = make(4, family, 3, d=3)
    tail = replace(case.relaxation, blocks=case.relaxation.blocks * 2, contexts=case.relaxation.contexts * 2)
    for radius in (10.0, 1e10, 1e300):
        with pytest.raises(Rejected, match="bound is"):
            verify(tail, case.readout, radius, -1e3, Done())
    for radius in (1e-300, 1e-200, 1e-160):  # squares vanish
        region = tail.ball(radius)
        frame = region.frame()
        assert frame is not None
        assert (np.diag(frame.ball) >= radius).all()
