"""Replays on the real model: which state is perturbed, what drift is rounding, and when a held feature has moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_verify.attacks import Pgd, attack, replay
from sae_verify.attacks.closed_form import values
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, readout_values
from sae_verify.model import run
from sae_verify.problem import Clamp, TokenAgainstAll
from sae_verify.sae import InputScale
from sae_verify.sae.clamp import apply_clamp

from .batches import Make, random_points

FAMILIES = ("llama", "gpt2", "gemma2")
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
f64 = torch.float64


def admissible(batch: Batch, radius: float) -> Array:
    return attack(batch, np.full(len(batch.instances), radius), Pgd(steps=3, restarts=1)).delta


def by_hand(batch: Batch, delta: Array, *, before_the_clamp: bool) -> list[float]:
    """The readout when delta is added at x, and the clamp then acts, or to the clamped state."""
    problem, prompts = batch.problem, batch.prompts
    rows, last = torch.arange(len(prompts)), prompts.last

    def edit(x: torch.Tensor) -> torch.Tensor:
        push = torch.zeros_like(x)
        push[rows, last] = torch.from_numpy(delta).to(x.dtype)
        if before_the_clamp:
            return apply_clamp(problem.sae, problem.clamp, x + push, prompts.lengths)
        return apply_clamp(problem.sae, problem.clamp, x, prompts.lengths) + push

    logits = run(problem.model, prompts, problem.hook_point, edit).logits.double()
    return readout_values(logits, tuple(i.readout for i in batch.instances)).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, 3])
def test_an_admissible_perturbation_replays_as_the_tail_says(make: Make, family: str, layers: int) -> None:
    batch = make(family, layers=layers, held="defended")
    delta = admissible(batch, 0.3)
    for one, expected in zip(replay(batch, delta), values(batch, delta[:, None])[:, 0], strict=True):
        assert one.value == pytest.approx(expected, abs=2e-4)
        assert one.held
        assert one.dtype == "float32"
        assert one.drift <= one.allowed


@pytest.mark.parametrize("at", ["x", "h", "both"])
@pytest.mark.parametrize("held", ["code", "defended", "preactivations", "unreachable"])
def test_where_the_perturbation_is_added(make: Make, at: str, held: str) -> None:
    """Where the code at x is held, the clamp may see the perturbed residual; otherwise delta is added to its result."""
    batch = make("llama", held=held, at=at, dtype=f64, clamp=Clamp.scale({2: 3.0, 5: 0.0, 9: -2.0, 11: 2.0}))
    delta = random_points(batch, 1, 0.3)[:, 0]  # not admissible: the two differ
    at_x, at_h = (by_hand(batch, delta, before_the_clamp=before) for before in (True, False))
    assert np.abs(np.subtract(at_x, at_h)).max() > 1e-3
    expected = at_x if held == "code" and at != "h" else at_h
    assert [r.value for r in replay(batch, delta)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["set", "scale", "add", "set_if_active"])
def test_a_kept_code_makes_both_places_agree(make: Make, kind: str) -> None:
    """What the clamp writes depends on the code alone: x + delta clamped is h + delta, for every admissible delta."""
    clamp = getattr(Clamp, kind)({2: 0.5, 5: 0.0, 9: 2.0})
    batch = make("gpt2", "relu", held="code", at="x", dtype=f64, clamp=clamp)
    delta = admissible(batch, 0.2)
    assert by_hand(batch, delta, before_the_clamp=True) == pytest.approx(
        by_hand(batch, delta, before_the_clamp=False), abs=1e-9
    )
    assert all(r.held for r in replay(batch, delta))


def test_nothing_held(make: Make) -> None:
    batch = make("gpt2", held="free", at="x", dtype=f64)
    delta = random_points(batch, 1, 5.0)[:, 0]
    for one, value in zip(replay(batch, delta), by_hand(batch, delta, before_the_clamp=False), strict=True):
        assert one.held
        assert (one.drift, one.allowed) == (0.0, 0.0)
        assert one.value == pytest.approx(value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("held", ["code", "defended"])
@pytest.mark.parametrize("at", ["x", "h", "both"])
def test_a_flipped_feature_is_seen(make: Make, architecture: str, held: str, at: str) -> None:
    """Across one boundary by a hundredth of a percent: not held. Short of it by as much: held."""
    batch = make("llama", architecture, held=held, at=at, dtype=f64)
    rng = np.random.default_rng(0)
    flips = 0
    for inward in (True, False):
        delta = np.zeros((4, 8))
        crossing = np.zeros(4, dtype=bool)
        for b, instance in enumerate(batch.instances):
            cell = instance.outer
            direction = cell.free_part(rng.normal(size=8))
            reach = np.inf
            for half in cell.half_spaces:
                speed = half.sign * (half.normals @ direction)
                ahead = (speed > 1e-6) & np.isfinite(half.slack)
                reach = min(reach, float(np.min(half.slack[ahead] / speed[ahead], initial=np.inf)))
            if np.isfinite(reach) and reach > 1e-3 and not cell.trivial:
                crossing[b] = True
                delta[b] = direction * reach * (0.9999 if inward else 1.0001)
        for one, crosses in zip(replay(batch, delta), crossing, strict=True):
            assert one.held == (inward or not crosses)
            flips += crosses and not inward
        rng = np.random.default_rng(0)
    if held == "code" or "topk" not in architecture:
        assert flips


@pytest.mark.parametrize("held", ["code", "defended", "preactivations", "unreachable"])
@pytest.mark.parametrize("at", ["x", "h"])
def test_a_moved_equality_is_drift(make: Make, held: str, at: str) -> None:
    """A perturbation along a held normal: small beside the residual, large beside rounding."""
    batch = make("gpt2", "relu", held=held, at=at, bias=-0.5)
    delta = np.zeros((4, 8))
    for b, instance in enumerate(batch.instances):
        rows = instance.outer.equal[np.linalg.norm(instance.outer.equal, axis=1) > 0]
        if len(rows):
            delta[b] = 1e-2 * rows[0] / np.linalg.norm(rows[0])
    shown = replay(batch, delta)
    assert delta.any()
    for one, moved in zip(shown, delta, strict=True):
        if moved.any():
            assert one.drift > one.allowed
            assert not one.held
    for one in replay(batch, delta * 1e-9):  # below float32
        assert one.held


def test_features_that_are_not_held_may_move(make: Make) -> None:
    batch = make("llama", "relu", held="defended", features=(1,), dtype=f64)
    encoder = batch.sae.W_enc.numpy()
    delta = np.stack([i.outer.free_part(encoder[:, 3]) for i in batch.instances])
    before = batch.sae.encode(batch.h)
    delta = np.where(before[:, 1:2].numpy() != 0, delta, -np.outer(np.ones(4), encoder[:, 1]))  # off: away from it
    assert (batch.sae.encode(batch.h + torch.from_numpy(delta)) != before).any()
    assert all(r.held for r in replay(batch, delta))


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_the_allowance_follows_the_input_scale_and_large_biases(make: Make, scale: float) -> None:
    """Regression: rounding of s x W + b grows with s and with |b|; a zero perturbation must always be held."""
    import dataclasses

    batch = make("llama", "relu", held="preactivations")
    sae = dataclasses.replace(
        batch.problem.sae, normalization=InputScale(scale), b_enc=batch.problem.sae.tensors()["b_enc"] + 3000.0
    )
    problem = dataclasses.replace(batch.problem, sae=sae)
    other = dataclasses.replace(batch, problem=problem, sae=sae.to(f64))
    encoder = sae.W_enc.double().numpy()
    chosen = encoder[:, list(problem.held_features)].T
    free = np.eye(8) - np.linalg.pinv(chosen) @ chosen
    for seed in range(10):
        delta = random_points(other, 1, 1.0, seed)[:, 0] @ free
        assert all(r.held for r in replay(other, delta))
    moved = np.repeat(encoder[:, problem.held_features[:1]].T, 4, axis=0)
    assert not any(r.held for r in replay(other, moved * max(1.0, 1.0 / scale)))


def test_token_against_all_is_the_gap_to_the_runner_up(make: Make) -> None:
    batch = make("llama", held="free", readout=TokenAgainstAll(4))
    delta = random_points(batch, 1, 0.2)[:, 0]
    logits = batch.tail(batch.h + torch.from_numpy(delta))
    others = torch.cat([logits[:, :4], logits[:, 5:]], dim=1).amax(dim=1)
    assert [r.value for r in replay(batch, delta)] == pytest.approx((logits[:, 4] - others).tolist(), abs=1e-4)
