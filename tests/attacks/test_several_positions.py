"""Several perturbed positions: each keeps what is held there, all share a ball, and replays say what the tail says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from geometry.cells import violation

from sae_verify.attacks import Pgd, attack, project_batch, replay, smallest_radius
from sae_verify.attacks.attribution import attribute
from sae_verify.attacks.closed_form import values
from sae_verify.attacks.variants import replay_variants
from sae_verify.errors import InputError, ProblemFileError, ShapeError, ThreatError, UnsupportedError
from sae_verify.geometry.cell_product import product
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell, within
from sae_verify.geometry.instance import Batch, Instance, readout_values
from sae_verify.geometry.worst_case import project, worst_case
from sae_verify.hosts.clamped import clamped
from sae_verify.model import run
from sae_verify.problem import Clamp, ErrorBall
from sae_verify.problem_file import load_problem
from sae_verify.sae.clamp import apply_clamp

from .batches import Make, random_points, with_tau

D = 8
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 1, 2, 9], [8, 3, 11], [9, 10, 11, 12]]
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
HELD = ("free", "preactivations", "defended", "code", "unreachable")


def cells(batch: Batch, instance: Instance) -> list[HeldCell]:
    """What is held at each position, by itself."""
    threat, features = batch.problem.threat, batch.problem.held_features
    places = [*((p.x, p.h) for p in instance.earlier), (instance.x, instance.h)]
    return [held_cell(batch.sae, threat, features, x, h, "inner") for x, h in places]


def projected(parts: list[HeldCell], point: Array, radius: float) -> Array:
    """Onto the product and the ball by bisection over the ball's multiplier; each position by itself."""
    rows = point.reshape(len(parts), D)

    def at(share: float) -> Array:
        return np.concatenate([project(cell, share * row, 1e6) for cell, row in zip(parts, rows, strict=True)])

    low, high = 0.0, 1.0
    if np.linalg.norm(at(1.0)) <= radius:
        return at(1.0)
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.linalg.norm(at(middle)) <= radius else (low, middle)
    return at(low)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("at", ["x", "both"])
def test_the_joint_cell_is_the_product(make: Make, architecture: str, held: str, at: str) -> None:
    """Projection against one that knows the positions apart; the linear worst case against its own dual."""
    batch = make("llama", architecture, held=held, at=at, positions=2, prompts=PROMPTS)
    rng = np.random.default_rng(0)
    for instance in batch.instances[:2]:
        parts = cells(batch, instance)
        joint = product(parts)
        assert joint.width == 2 * D
        assert joint.rank == sum(part.rank for part in parts)
        for radius in (1e-3, 0.5):
            point = rng.normal(size=2 * D)
            ours = project(joint, point, radius)
            assert np.abs(ours - projected(parts, point, radius)).max() <= 1e-7 * radius
            found = worst_case(joint, point, radius)
            assert found.dual - found.value <= 1e-7 * radius * np.linalg.norm(point)
            for part, row in zip(parts, found.delta.reshape(2, D), strict=True):
                assert violation(part, row, radius) <= 1e-9
        assert product(parts[:1]) is parts[0]


def test_half_spaces_that_the_ball_cannot_reach_are_left_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make("gpt2", "relu", positions=3, prompts=PROMPTS)
    points, radii = random_points(batch, 4, 1.0), np.full(4, 0.2)
    whole = project_batch(batch, points, radii)
    monkeypatch.setattr("sae_verify.geometry.held_cell.WORTHWHILE", 1)
    near = batch.within(radii)
    counts = [sum(len(h.slack) for h in i.inner.half_spaces) for b in (batch, near) for i in b.instances]
    assert sum(counts[4:]) < sum(counts[:4])
    np.testing.assert_allclose(project_batch(near, points, radii), whole, atol=1e-10)
    assert within(near.instances[0].inner, 1e-6).half_spaces[-1].start == 2 * D


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_attacks_are_admissible_and_replay_as_the_tail_says(make: Make, family: str, held: str) -> None:
    """In every position's own cell, together in the ball, and no lower than no perturbation."""
    batch = make(family, held=held, layers=3, positions=2, prompts=PROMPTS, clamp=Clamp.scale({2: 0.5, 5: 0.0}))
    radii = 0.5 * batch.radii
    found = attack(batch, radii, Pgd(steps=6, restarts=1))
    assert (np.linalg.norm(found.delta, axis=1) <= radii * (1 + 1e-15)).all()
    for instance, delta in zip(batch.instances, found.delta, strict=True):
        for cell, row in zip(cells(batch, instance), delta.reshape(2, D), strict=True):
            assert violation(cell, row, float(instance.radius)) <= 1e-9
    assert (found.value >= values(batch, np.zeros((4, 1, 2 * D)))[:, 0]).all()
    np.testing.assert_array_equal(values(batch, found.delta[:, None])[:, 0] - found.value, 0.0)
    for one, expected in zip(replay(batch, found.delta), found.value, strict=True):
        assert one.value == pytest.approx(expected, abs=2e-4)
        assert one.held


def test_an_early_position_matters_through_blocks_alone(make: Make) -> None:
    """With blocks the worst direction has a part at the first position; without, that part does nothing."""
    for layers, hook in ((3, "blocks.0.hook_resid_post"), (1, "blocks.0.hook_resid_post")):
        batch = make("llama", layers=layers, hook=hook, held="free", positions=3, prompts=PROMPTS)
        found = attack(batch, np.full(4, 0.5), Pgd(steps=8, restarts=0))
        early = found.delta.copy()
        early[:, D:] = 0.0
        moved = values(batch, early[:, None])[:, 0] - values(batch, 0.0 * early[:, None])[:, 0]
        assert (np.abs(moved).max() > 1e-3) == (layers > 1)


@pytest.mark.parametrize("at", ["x", "h"])
@pytest.mark.parametrize("positions", ["all", "last", (0, 2)])
def test_a_replay_edits_every_position(make: Make, at: str, positions: object) -> None:
    """By hand, where the clamp acts at all positions, at one or at some."""
    batch = make(
        "gpt2",
        layers=3,
        held="code",
        at=at,
        positions=3,
        prompts=PROMPTS,
        dtype=torch.float64,
        clamp=Clamp.scale({2: 3.0, 5: 0.0, 9: -2.0, 11: 2.0}, positions=positions),
    )
    problem, prompts = batch.problem, batch.prompts
    delta = random_points(batch, 1, 0.2)[:, 0]

    def edit(x: torch.Tensor) -> torch.Tensor:
        push = torch.zeros_like(x)
        for b, length in enumerate(prompts.lengths.tolist()):
            push[b, length - 3 : length] = torch.from_numpy(delta[b].reshape(3, D))
        if at == "x":
            return apply_clamp(problem.sae, problem.clamp, x + push, prompts.lengths)
        return apply_clamp(problem.sae, problem.clamp, x, prompts.lengths) + push

    logits = run(problem.model, prompts, problem.hook_point, edit).logits
    expected = readout_values(logits, tuple(i.readout for i in batch.instances)).tolist()
    assert [r.value for r in replay(batch, delta)] == pytest.approx(expected, abs=1e-12)
    if at == "h":
        tail = batch.readout(batch.h[:, None] + torch.from_numpy(delta)[:, None])[:, 0]
        assert tail.tolist() == pytest.approx(expected, abs=1e-12)
        assert replay_variants(batch, delta[:, None])[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("place", range(3))
def test_a_feature_that_moves_at_any_position_is_seen(make: Make, place: int) -> None:
    batch = make("llama", "relu", held="code", positions=3, prompts=PROMPTS, bias=-0.3, dtype=torch.float64)
    delta = np.zeros((4, 3, D))
    for b, instance in enumerate(batch.instances):
        row = cells(batch, instance)[place].equal[0]
        delta[b, place] = 1e-3 * row / np.linalg.norm(row)
    assert not any(one.held for one in replay(batch, delta.reshape(4, -1)))
    assert all(one.held for one in replay(batch, 0.0 * delta.reshape(4, -1)))


def test_more_positions_recover_within_a_shorter_radius(make: Make) -> None:
    """The shortest perturbations found break the claim; the search with more positions starts from those of fewer."""
    one = make("gpt2", layers=3, held="defended", prompts=PROMPTS)
    three = make("gpt2", layers=3, held="defended", positions=3, prompts=PROMPTS)
    start = values(one, np.zeros((4, 1, D)))[:, 0]
    known = attack(one, np.full(4, 1.0), Pgd(steps=10))
    tau = 0.5 * (start + known.value)
    one, three = with_tau(one, tau), with_tau(three, tau)
    lengths, deltas = smallest_radius(one, Pgd(steps=10), np.zeros(4), known)
    padded = np.concatenate([np.zeros((4, 2 * D)), deltas], axis=1)
    hint = dataclasses.replace(known, delta=padded, value=values(three, padded[:, None])[:, 0])
    shorter, deltas = smallest_radius(three, Pgd(steps=10), np.zeros(4), hint)
    assert (shorter < lengths * 0.999).any()
    assert (shorter <= lengths).all()
    assert (values(three, deltas[:, None])[:, 0] > tau).all()


def test_what_is_refused(make: Make) -> None:
    for wrong in (0, -1, True, 1.5, "2", None):
        with pytest.raises(ThreatError, match="positions"):
            ErrorBall(0.1, positions=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="4 positions are perturbed and a prompt has 3"):
        make(positions=4, prompts=PROMPTS)
    batch = make(positions=2, prompts=PROMPTS)
    with pytest.raises(UnsupportedError, match="2 positions"):
        attribute(batch, np.zeros((4, 2 * D)))
    with pytest.raises(ThreatError, match="drift"):
        ErrorBall(0.1, held="drift", drift=0.1, positions=2)


@pytest.mark.parametrize("named", [False, True])
def test_the_context_manager_puts_it_on_the_model(make: Make, named: bool) -> None:
    """A perturbation of several positions, one a prompt, by hooks of its own: what the replay gives."""
    batch = make("gpt2", layers=3, held="free", positions=2, prompts=PROMPTS, dtype=torch.float64)
    problem, delta = batch.problem, random_points(batch, 1, 0.2)[:, 0]
    lengths = batch.prompts.lengths.tolist()
    for b, one in enumerate(replay(batch, delta)):
        tokens = batch.prompts.tokens[b : b + 1, : lengths[b]]
        at = lengths[b] - 1 if named else None
        with clamped(problem.model, problem.sae, problem.clamp, delta=delta[b], position=at) as module:
            logits = module(input_ids=tokens).logits[:, -1]
        assert readout_values(logits, (batch.instances[b].readout,)).item() == pytest.approx(one.value, abs=1e-12)
    with pytest.raises(ShapeError), clamped(problem.model, problem.sae, problem.clamp, delta=delta[0, 1:]):
        pass


def test_a_problem_file_says_how_many(tmp_path: Path) -> None:
    case = Path(__file__).parents[2] / "examples" / "cases" / "unlearning"
    text = (case / "problem_early.toml").read_text()
    text = text.replace('path = "."', f'path = "{case}"').replace('"sae_early"', f'"{case / "sae_early"}"')
    for value, good in (("3", True), ("0", False), ('"2"', False), ("true", False)):
        (tmp_path / "problem.toml").write_text(text.replace("radius = 0.15", f"radius = 0.15\npositions = {value}"))
        if good:
            assert load_problem(tmp_path / "problem.toml").threat.positions == 3
        else:
            with pytest.raises(ProblemFileError, match="positions"):
                load_problem(tmp_path / "problem.toml")
