"""Attribution: parts add up, replays are those of the real model, and planted cases give the known answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sae_verify.attacks import Pgd, attack, replay
from sae_verify.attacks.attribution import PARTITION, Attribution, attribute, shares
from sae_verify.errors import FeatureError, InputError, ShapeError, UnsupportedError, WeightsError
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import Clamp
from sae_verify.sae import LayerNorm, ReLUSAE, Source, TopKSAE

from .batches import Make, random_points

FAMILIES = ("llama", "gpt2", "gemma2")
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
FEATURES = (2, 5)


def rebuilt(batch: Batch, sae: Any, **changes: Any) -> Batch:
    """The same problem with another SAE."""
    source = Source(hook_name=str(batch.problem.hook_point))
    return prepare(dataclasses.replace(batch.problem, sae=dataclasses.replace(sae, source=source), **changes))


def orthonormal(gain: float = 1.0, k: int | None = None) -> Any:
    """Features +-e_i: E splits x into its positive and negative parts, times `gain`, and D puts them together."""
    eye = torch.eye(8)
    both = torch.cat([eye, -eye])  # (16, 8)
    common: dict[str, Any] = {
        "W_enc": gain * both.T,
        "W_dec": both,
        "b_dec": torch.zeros(8),
        "b_enc": torch.zeros(16),
        "subtract_b_dec": True,
    }
    return ReLUSAE(**common) if k is None else TopKSAE(**common, k=k, rescale_by_decoder_norm=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_add_up_and_replay_as_by_hand(make: Make, family: str, architecture: str) -> None:
    batch = make(family, architecture, layers=2, held="free", at="h", bias=-0.6)
    delta = random_points(batch, 1, 0.5)[:, 0]
    found = attribute(batch, delta, k=3)
    assert [r.value for r in replay(batch, delta)] == pytest.approx([a.full.value for a in found], abs=2e-5)
    nothing = replay(batch, np.zeros_like(delta))
    assert [r.value for r in nothing] == pytest.approx([a.defended.value for a in found], abs=2e-5)
    sae = batch.sae
    for b, one in enumerate(found):
        assert sum(one.part(name).along for name in PARTITION) == pytest.approx(1.0)
        assert one.part("reachable").along + one.part("unreachable").along == pytest.approx(1.0)
        assert one.part("reachable").share ** 2 == pytest.approx(one.part("reachable").along)
        # Independently: the residual part is delta less the change of the reconstruction.
        states = torch.from_numpy(np.stack([batch.instances[b].h, batch.instances[b].h + delta[b]]))
        seen = sae.reconstruct(states)
        residual = delta[b] - (seen[1] - seen[0]).numpy()
        assert one.part("residual").norm == pytest.approx(np.linalg.norm(residual), abs=1e-9)
        alone = delta.copy()
        alone[b] = residual
        assert replay(batch, alone)[b].value == pytest.approx(one.part("residual").alone.value, abs=2e-5)
        without = delta.copy()
        without[b] = delta[b] - residual
        assert replay(batch, without)[b].value == pytest.approx(one.part("residual").without.value, abs=2e-5)
        for part in one.parts:
            for outcome in (part.alone, part.without):
                assert outcome.recovered == (outcome.value > batch.instances[b].tau)


def test_the_tail_says_the_same(make: Make) -> None:
    batch = make("gemma2", layers=3, held="free", at="h", bias=-0.6)
    delta = random_points(batch, 1, 0.5)[:, 0]
    for real, tail in zip(attribute(batch, delta), attribute(batch, delta, on="tail"), strict=True):
        for one, other in zip(real.parts, tail.parts, strict=True):
            assert one.alone.value == pytest.approx(other.alone.value, abs=1e-4)
            assert (one.alone_matched is None) == (other.alone_matched is None)


def test_a_perturbation_of_a_held_code_is_all_residual(make: Make) -> None:
    """Code held at h: no feature moves there, so the residual part is delta, and knocking it out leaves nothing."""
    batch = make("llama", layers=2, held="code", at="h")
    delta = attack(batch, np.full(4, 0.3), Pgd(steps=4, restarts=1)).delta
    assert np.linalg.norm(delta, axis=1).min() > 1e-3
    for one in attribute(batch, delta):
        assert one.part("residual").share == pytest.approx(1.0)
        assert one.part("residual").alone == one.full
        assert one.part("residual").without == one.defended
        assert one.part("residual").without_matched is None
        assert max(one.part("clamped").share, one.part("other").share) < 1e-12
        assert one.part("clamped").alone_matched is None
        assert one.warning is None
        assert not one.top


def test_at_x_a_code_held_there_leaves_only_the_residual(make: Make) -> None:
    batch = make("llama", layers=2, held="code", at="x")
    delta = attack(batch, np.full(4, 0.3), Pgd(steps=4, restarts=1)).delta
    assert all(one.part("residual").share == pytest.approx(1.0) for one in attribute(batch, delta, at="x"))


def test_undoing_the_clamp_is_all_clamped_features(make: Make) -> None:
    """Planted: with an orthonormal dictionary, x - h moves the clamped features and nothing else."""
    clamp = Clamp.scale({0: 0.25, 8: 0.25, 3: 0.5, 11: 0.5})
    batch = rebuilt(make(layers=2, held="free", at="h"), orthonormal(), clamp=clamp)
    delta = np.stack([i.x - i.h for i in batch.instances])
    assert np.linalg.norm(delta, axis=1).min() > 1e-3
    for one in attribute(batch, delta):
        assert one.part("clamped").share == pytest.approx(1.0)
        assert one.part("other").norm == 0.0
        assert one.part("residual").share < 1e-6
        assert one.part("clamped").alone.value == pytest.approx(one.full.value, abs=1e-5)
        assert one.part("clamped").without.value == pytest.approx(one.defended.value, abs=1e-5)
        assert one.cancellation == pytest.approx(1.0)


def test_other_features_and_the_longest_of_them(make: Make) -> None:
    """Planted: delta along e_1 (long), e_2 and e_4 (short); S is none of them."""
    batch = rebuilt(make(layers=2, held="free", at="h"), orthonormal(), clamp=Clamp.scale({0: 0.5, 8: 0.5}))
    delta = np.zeros((4, 8))
    delta[:, 1], delta[:, 2], delta[:, 4] = 0.5, 0.1, -0.2
    for one in attribute(batch, delta, k=1):
        assert one.part("other").share == pytest.approx(1.0)
        assert one.part("clamped").norm == 0.0
        assert {moved.feature % 8 for moved in one.top} == {1}
        assert len(one.top) == 1
        assert one.part("top-k").along <= 0.25 / 0.30 + 1e-9


def test_what_a_feature_does_not_code_for_is_residual(make: Make) -> None:
    """Planted: a TopK SAE that sees only the largest coordinate; a small move elsewhere is invisible and residual."""
    batch = rebuilt(make(layers=1, held="free", at="h"), orthonormal(k=1), clamp=Clamp.scale({0: 0.9, 8: 0.9}))
    delta = np.zeros((4, 8))
    for b, instance in enumerate(batch.instances):
        delta[b, np.argmin(np.abs(instance.h))] = 1e-3
    for one in attribute(batch, delta):
        assert one.part("residual").share == pytest.approx(1.0)
        assert one.part("unreachable").share == pytest.approx(1.0)
        assert one.part("invisible").share == pytest.approx(1.0)
        assert one.part("reachable").dimension == 1
        assert one.part("invisible").dimension == 7
        assert one.part("unseen").dimension == 0
        assert one.part("unseen").norm == pytest.approx(0.0, abs=1e-15)


def test_cancelling_parts_are_warned_of(make: Make) -> None:
    """Planted: the encoder overstates by 3, so the features' part is 3 delta and the residual -2 delta."""
    batch = rebuilt(make(layers=1, held="free", at="h"), orthonormal(3.0), clamp=Clamp.scale({0: 0.5, 8: 0.5}))
    delta = np.zeros((4, 8))
    delta[:, 1] = 0.2
    for one in attribute(batch, delta):
        assert one.part("other").share == pytest.approx(3.0)
        assert one.part("residual").share == pytest.approx(2.0)
        assert one.part("residual").along == pytest.approx(-2.0)
        assert one.cancellation == pytest.approx(5.0)
        assert one.warning is not None
        assert "other part is 3 times" in one.warning
        # Scaled back to the length of delta, the features' part is delta itself.
        assert one.part("other").alone_matched is not None
        assert one.part("other").alone_matched.value == pytest.approx(one.full.value, abs=1e-5)


def test_shares_count_only_what_was_recovered(make: Make) -> None:
    batch = make("llama", layers=2, held="code", at="h")
    delta = attack(batch, np.full(4, 0.3), Pgd(steps=4, restarts=1)).delta
    taus = [one.full.value - (0.1 if b % 2 else -0.1) for b, one in enumerate(attribute(batch, delta))]
    pairs = zip(batch.instances, taus, strict=True)
    batch = dataclasses.replace(batch, instances=tuple(dataclasses.replace(i, tau=t) for i, t in pairs))
    counted = {share.name: share for share in shares(attribute(batch, delta))}
    residual = counted["residual"]
    assert (residual.of, residual.alone, residual.alone_matched, residual.alone_matched_of) == (2, 2, 2, 2)
    assert (residual.without_matched, residual.without_matched_of) == (0, 0)
    assert counted["clamped"].alone_matched_of == 0
    assert counted["clamped"].without == 2
    assert shares([]) == ()


def test_effect_is_a_share_of_the_gain(make: Make) -> None:
    batch = make("llama", layers=2, held="code", at="h")
    delta = attack(batch, np.full(4, 0.3), Pgd(steps=4, restarts=1)).delta
    one: Attribution = attribute(batch, delta)[0]
    assert one.effect(one.full) == 1.0
    assert one.effect(one.defended) == 0.0
    assert one.effect(None) is None


def test_no_perturbation(make: Make) -> None:
    batch = make("llama", held="code", at="h")
    for one in attribute(batch, np.zeros((4, 8))):
        assert one.full == one.defended
        assert one.cancellation == 0.0
        assert one.effect(one.full) is None


def test_what_is_refused(make: Make) -> None:
    batch, delta = make("llama"), np.zeros((4, 8))
    with pytest.raises(ShapeError, match="one perturbation a prompt"):
        attribute(batch, delta[:3])
    with pytest.raises(WeightsError, match="NaN"):
        attribute(batch, delta * np.nan)
    with pytest.raises(InputError, match="k is 0"):
        attribute(batch, delta, k=0)
    with pytest.raises(FeatureError):
        attribute(batch, delta, features=[99])
    with pytest.raises(InputError, match="at is 'y'"):
        attribute(batch, delta, at="y")  # type: ignore[arg-type]
    normed = dataclasses.replace(batch, sae=dataclasses.replace(batch.sae, normalization=LayerNorm()))
    with pytest.raises(UnsupportedError, match="attribution"):
        attribute(normed, delta)
