"""The monitor: false alarms at the rate asked for, planted deviations are seen by the detector that can, evasion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from attacks.batches import Make, maker

from sae_verify.attacks import Pgd, attack, replay
from sae_verify.discover import calibrate, evade, judge, seen, watch
from sae_verify.discover.monitor import DETECTORS
from sae_verify.errors import FeatureError, InputError, ShapeError
from sae_verify.problem import AtMost

from . import planted
from .planted import D

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return maker(tmp_path_factory.mktemp("monitor"))


def benign(count: int, seed: int) -> np.ndarray:
    """Positive along axes 0 to 3, which an SAE without negative features explains, and a little of the others."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(1, 2, (count, 4)), 0.05 * rng.normal(size=(count, 4))], axis=1)


def half_sae():
    """Features for axes 0 to 3 only: the others are error term and invisible."""
    return planted.sae(HOOK, torch.eye(D)[:4])


def test_false_alarms_stay_at_the_rate() -> None:
    """Averaged over calibrations, as the guarantee is."""
    rates = []
    for seed in range(60):
        monitor = calibrate(half_sae(), benign(400, seed), rate=0.1, seed=seed)
        rates.append(judge(monitor, benign(500, 1000 + seed), benign(10, 2000))[-1].false_alarms)
    assert np.mean(rates) <= 0.1 + 2 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) > 0.04  # not by never raising an alarm


@pytest.mark.parametrize(
    ("axis", "size", "sees", "blind"),
    [(6, 1.0, {"error", "shape", "invisible"}, {"features"}), (1, 3.0, {"features"}, {"error", "shape"})],
)
def test_planted_deviations_are_seen_by_the_detector_that_can(
    axis: int, size: float, sees: set[str], blind: set[str]
) -> None:
    monitor = calibrate(half_sae(), benign(800, 0), rate=0.05)
    moved = benign(200, 1)
    moved[:, axis] += size
    found = {j.name: j for j in judge(monitor, benign(200, 2), moved)}
    for name in sees:
        assert found[name].auroc > 0.98
        assert found[name].detected > 0.9
        assert found[name].detected_interval[0] <= found[name].detected <= found[name].detected_interval[1]
    for name in blind:
        assert found[name].detected < 0.1
    assert found["any"].detected > 0.9
    assert [j.name for j in judge(monitor, moved, moved)] == [*DETECTORS, "any"]


def test_the_shape_of_the_error_says_more_than_its_size() -> None:
    """Planted: benign errors lie along axis 4; one of the same length along axis 7 is out of shape only."""
    rng = np.random.default_rng(0)

    def states(count: int, axis: int) -> np.ndarray:
        found = benign(count, int(rng.integers(10**6)))
        found[:, 4:] *= 0.1
        found[:, axis] += rng.uniform(0.4, 0.6, count) * rng.choice([-1, 1], count)
        return found

    monitor = calibrate(half_sae(), states(800, 4), rate=0.05)
    found = {j.name: j for j in judge(monitor, states(200, 4), states(200, 7))}
    assert found["shape"].auroc > 0.95
    assert found["error"].auroc < 0.7


def test_watching_few_features() -> None:
    monitor = calibrate(half_sae(), benign(800, 0), watched=[2])
    moved = benign(100, 1)
    moved[:, 1] += 3
    assert float(monitor.alarms(torch.from_numpy(moved))[:, 0].double().mean()) < 0.1
    moved[:, 2] += 3
    assert bool(monitor.alarms(torch.from_numpy(moved))[:, 0].all())


def test_the_invisible_part_by_hand() -> None:
    """Against least squares, with as many active features as dimensions, dependent ones, and none."""
    generator = np.random.default_rng(0)
    sae = planted.sae(HOOK, torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0)))[0])
    doubled = dataclasses.replace(sae, W_enc=torch.cat([sae.W_enc[:, :8]] * 2, dim=1))
    for one in (sae, doubled, dataclasses.replace(sae, b_enc=sae.b_enc - 1.5)):
        monitor = calibrate(one, generator.normal(size=(400, D)))
        states = torch.from_numpy(generator.normal(size=(50, D)))
        found = monitor.scores(states)[:, 3]
        for state, score in zip(states, found, strict=True):
            columns = one.W_enc[:, one.encode(state) != 0].numpy()
            away = (state - monitor.centre).numpy()
            rest = away - columns @ np.linalg.lstsq(columns, away, rcond=None)[0] if columns.size else away
            assert float(score) == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(away), abs=2e-6)


def test_scores_are_differentiable() -> None:
    monitor = calibrate(half_sae(), benign(800, 0))
    states = torch.from_numpy(benign(3, 5))
    assert torch.autograd.gradcheck(monitor.scores, states.requires_grad_(), atol=1e-6)


def recovering(batch, radius: float):
    """The batch with claims half-way up what the attack reaches, so that it recovers with room to be quiet."""
    radii = np.full(4, radius)
    found = attack(batch, radii, Pgd(steps=8, restarts=1))
    zero = np.array([r.value for r in replay(batch, np.zeros_like(found.delta))])
    tau = zero + 0.4 * (found.value - zero)
    pairs = zip(batch.instances, tau, strict=True)
    return (
        dataclasses.replace(batch, instances=tuple(dataclasses.replace(i, tau=float(t)) for i, t in pairs)),
        found,
        radii,
    )


@pytest.mark.parametrize("held", ["free", "defended", "code"])
@pytest.mark.parametrize("at", ["h", "x"])
def test_evasion_is_quieter_admissible_and_still_recovers(make: Make, held: str, at: str) -> None:
    batch, found, radii = recovering(make("llama", layers=2, held=held, bias=-0.6), 1.0)
    rng = np.random.default_rng(0)
    centre = seen(batch, np.zeros_like(found.delta), at)
    states = centre[rng.integers(0, 4, 400)] + 0.1 * rng.normal(size=(400, 8))
    monitor = calibrate(batch.sae, states, rate=0.1)
    result = evade(batch, monitor, found.delta, radii, at=at)
    assert (result.excess <= result.before + 1e-9).all()
    assert result.excess.mean() < result.before.mean()
    assert result.recovered.all()
    assert (np.linalg.norm(result.delta, axis=1) <= radii * (1 + 1e-12)).all()
    for one, instance in zip(replay(batch, result.delta), batch.instances, strict=True):
        assert one.held
        assert one.value > instance.tau
    alarms = monitor.alarms(torch.from_numpy(seen(batch, result.delta, at))).any(dim=1).numpy()
    assert (result.evaded == ~alarms).all()


def test_a_problem_is_watched(make: Make) -> None:
    batch = make("llama", layers=2, held="free", at="h", bias=-0.6, radius=1.0)
    reached = attack(batch, batch.radii, Pgd(steps=6, restarts=1)).value
    claim = AtMost(float(np.sort(reached)[1]) - 1e-3)  # three of the four can be recovered
    problem = dataclasses.replace(batch.problem, claim=claim)
    rng = np.random.default_rng(0)
    usual = [row.tolist() for row in rng.integers(1, 20, (150, 3))]
    for at in ("h", "x"):
        found = watch(problem, usual, rate=0.2, at=at, search=Pgd(steps=6, restarts=1))
        assert (found.prompts, found.recovered) == (4, 3)
        assert 0 <= found.evaded <= 3
        assert len(found.excess) == len(found.quietest) == 3
        assert (found.quietest <= found.excess + 1e-9).all()
        assert found.evaded == sum(found.quietest <= 1)
        assert found.attacked[-1].name == "any"
        assert found.attacked[-1].false_alarms < 0.5
    with pytest.raises(InputError, match="no perturbation recovers"):
        watch(dataclasses.replace(problem, claim=AtMost(1e6)), usual, rate=0.2, search=Pgd(steps=2, restarts=0))
    with pytest.raises(InputError, match="at is"):
        watch(problem, usual, at="z")


def test_what_is_refused(make: Make) -> None:
    states = benign(100, 0)
    with pytest.raises(InputError, match="100 benign states"):
        calibrate(half_sae(), states, rate=0.01)
    with pytest.raises(InputError, match="rate is"):
        calibrate(half_sae(), states, rate=1.5)
    with pytest.raises(ShapeError):
        calibrate(half_sae(), states[:, :3])
    with pytest.raises(FeatureError):
        calibrate(half_sae(), benign(400, 0), watched=[99])
    batch = make("llama")
    with pytest.raises(InputError, match="at is"):
        seen(batch, np.zeros((4, 8)), "z")
    with pytest.raises(ShapeError):
        evade(batch, calibrate(batch.sae, benign(400, 0)), np.zeros((3, 8)), np.ones(3))
