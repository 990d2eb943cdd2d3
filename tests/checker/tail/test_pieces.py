"""The slab-wise remainder of a softmax mean, against gradient ascent on the exact remainder.

Theorem attention-remainder (f), (g).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker.arithmetic import Array
from sae_verify.checker.tail import pieces
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.softmax import Softmax, mean
from sae_verify.checker.tail.taylor import Taylor

STEPS = 60
TOUCH = 1.0 + 1e-9
"""The ascent runs in floats."""


def moving(seed: int, box: int, spread: float, rest: float) -> tuple[Softmax, Array]:
    """A random pattern with scores that move by about `spread` over the domain, and centred weights."""
    rng = np.random.default_rng(seed)
    count, k, width = int(rng.integers(1, 9)), box + int(rng.integers(2, 6)), int(rng.integers(1, 5))
    pattern = rng.dirichlet(np.full(count, rng.choice([0.2, 1.0, 5.0]))) + 1e-6
    pattern = pattern / pattern.sum()
    jacobian = rng.normal(size=(count, k)) * rng.choice([0.3, 1.0, 2.0], size=(count, 1)) * spread / np.sqrt(k)
    if rng.random() < 0.3 and count > 2:
        jacobian[1] = jacobian[2]  # keys that move together
    jacobian = jacobian - pattern @ jacobian
    scores = Taylor(Domain(box), np.zeros(count), jacobian, (), (), np.full(count, rest) * (count > 1))
    weights = rng.normal(size=(width, count))
    return Softmax(pattern, scores, 1e-9), weights - (weights @ pattern)[:, None]


def largest(softmax: Softmax, weights: Array, seed: int) -> float:
    """The largest norm of the remainder that an ascent over y and the scores' errors finds."""
    p, jacobian = torch.tensor(softmax.pattern), torch.tensor(softmax.scores.jacobian)
    w, room, m = torch.tensor(weights), torch.tensor(softmax.scores.loose), softmax.scores.domain.box
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(48, jacobian.shape[1], dtype=torch.float64, generator=generator)
    e = torch.randn(48, len(p), dtype=torch.float64, generator=generator)
    best = 0.0
    for step in range(STEPS):
        with torch.no_grad():
            ball = y[:, m:] / y[:, m:].norm(dim=1, keepdim=True).clamp(min=1.0)
            y = torch.cat([y[:, :m].clamp(-1, 1), ball], dim=1)
            e = e.clamp(-1, 1)
        y, e = y.detach().requires_grad_(), e.detach().requires_grad_()
        linear = y @ jacobian.T
        c = linear + e * room
        c = c - (c * p).sum(1, keepdim=True)  # centred, as the scores of a softmax may be
        exact = torch.softmax(torch.log(p) + c, 1) @ w.T
        remainder = (exact - ((c + linear**2 / 2) * p) @ w.T).norm(dim=1)
        best = max(best, float(remainder.detach().max()))
        gy, ge = torch.autograd.grad(remainder.sum(), (y, e))
        rate = 0.5 * 0.93**step
        with torch.no_grad():
            y = y + rate * gy / gy.norm(dim=1, keepdim=True).clamp(min=1e-30)
            e = e + rate * torch.sign(ge)
    return best


@given(
    st.integers(0, 10**6),
    st.integers(0, 2),
    st.sampled_from([0.3, 1.0, 2.0, 4.0]),
    st.sampled_from([0.0, 1e-3, 0.1]),
)
def test_no_ascent_exceeds_it(seed: int, box: int, spread: float, rest: float) -> None:
    softmax, weights = moving(seed, box, spread, rest)
    # Centring errors move the centred errors by up to twice: the model allows for them in `loose`.
    doubled = Softmax(
        softmax.pattern, softmax.scores.loosened(softmax.scores.loose), softmax.slip
    )  # the ascent's centred errors reach twice the room
    usual = mean(doubled, weights).norm
    sharp = pieces.sharper(doubled, weights, usual)
    found = largest(softmax, weights, seed)
    assert found <= usual * TOUCH + 1e-9
    assert found <= sharp * TOUCH + 1e-9
    assert sharp <= usual


def test_it_is_much_sharper_for_one_key_that_moves_far() -> None:
    pattern = np.array([0.2, 0.5, 0.3])
    jacobian = np.array([[2.3, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.1]])
    jacobian = jacobian - pattern @ jacobian
    scores = Taylor(Domain(0), np.zeros(3), jacobian, (), (), np.zeros(3))
    softmax, weights = Softmax(pattern, scores, 1e-12), np.array([[1.0, -0.2, -1.0 / 3]])
    usual = mean(softmax, weights).norm
    assert pieces.sharper(softmax, weights, usual) < 0.7 * usual


def test_a_slab_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without the outer slabs the bound is too small."""
    whole = pieces.cut

    def inner(softmax: Softmax, weights: Array, worthwhile: float) -> pieces.Slabs | None:
        made = whole(softmax, weights, worthwhile)
        return made and replace(made, parts=made.parts[1:-1])

    monkeypatch.setattr(pieces, "cut", inner)
    softmax, weights = moving(3, 0, 4.0, 0.0)
    exceeded = []
    for seed in range(40):
        softmax, weights = moving(seed, 0, 4.0, 0.0)
        bound = pieces.sharper(softmax, weights, mean(softmax, weights).norm)
        exceeded.append(largest(softmax, weights, seed) > bound * TOUCH + 1e-9)
    assert any(exceeded)
