from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sae_verify.attacks import Pgd
from sae_verify.errors import InputError, SoundnessError
from sae_verify.geometry.instance import prepare
from sae_verify.model import run
from sae_verify.sae.clamp import apply_clamp
from sae_verify.study.certified import Radius, check_sandwich, inherited
from sae_verify.study.controls import other_token, random_shares, unclamped
from sae_verify.study.drift import allowed_drift, drift_of
from sae_verify.study.ladder import Exact, Found, confirm, with_threat
from sae_verify.study.unit import attack_rows, climb_all
from tests.study.conftest import small_plan


@pytest.fixture(scope="module")
def climbed(refusal):
    plan, setup, _ = refusal
    problem = setup.problem(setup.flips)
    exact = Exact(setup.subject.sae)
    return plan, setup, problem, exact, climb_all(plan, problem, exact)


def test_recoveries_are_what_the_real_model_says(climbed):
    """Replayed here by hand: the clamp, then delta at the last position, then the model."""
    _, setup, problem, _, rungs = climbed
    subject = setup.subject
    for rung in rungs.values():
        for place, item in enumerate(setup.flips):
            short = rung.shortest[place]
            assert short is not None
            prompts = subject.prompts([item.text])

            def edit(x, delta=short.delta, prompts=prompts):
                h = apply_clamp(subject.sae, setup.clamp, x, prompts.lengths).clone()
                h[0, -1] += torch.from_numpy(delta).float()
                return h

            with torch.no_grad():
                logits = run(subject.model, prompts, problem.hook_point, edit).logits[0]
            readout = rung.batch.instances[place].readout
            assert float(logits[readout.positive] - logits[readout.negative]) > 0


def test_what_is_held_does_not_move_and_no_radius_is_exceeded(climbed):
    plan, setup, _, _, rungs = climbed
    sae, features = setup.subject.sae.to(torch.float64), list(setup.clamp.features)
    for threat, rung in rungs.items():
        for budget, found in rung.best.items():
            for one, instance in zip(found, rung.batch.instances, strict=True):
                assert one.length <= budget * instance.norm_h
                if not one.admissible:
                    continue
                h = torch.from_numpy(np.stack([instance.h, instance.h + one.delta]))
                if threat == "preactivations":
                    columns = sae.W_enc[:, features].numpy()
                    assert np.abs(one.delta @ columns).max() < 1e-6 * np.linalg.norm(columns, 2) * one.length
                if threat == "defended":
                    codes = sae.encode(h)[:, features]
                    assert torch.allclose(codes[0], codes[1], atol=1e-9)
                if threat == "code":
                    x = torch.from_numpy(np.stack([instance.x, instance.x + one.delta]))
                    assert torch.allclose(*sae.encode(x), atol=1e-9)
        if threat == "drift":
            deltas = np.stack([one.delta for one in rung.best[plan.budgets[-1]]])[:, None]
            assert (drift_of(rung.batch, deltas)[:, 0] <= allowed_drift(rung.batch, plan.drift)).all()


def test_stricter_threats_do_not_recover_sooner_than_search_allows(climbed):
    """Not a theorem about searches, but where they are far apart the search is broken."""
    *_, rungs = climbed
    for place in range(2):
        length = {threat: rung.shortest[place].length for threat, rung in rungs.items()}
        assert length["free"] <= 1.02 * length["preactivations"]
        assert length["free"] <= 1.02 * length["drift"]
        assert length["drift"] <= 1.02 * length["defended"]


def test_an_inadmissible_perturbation_is_no_recovery(climbed):
    _, _, problem, exact, rungs = climbed
    held = prepare(with_threat(problem, "code"))
    free = np.stack([one.delta for one in rungs["free"].best[0.8]])
    tampered = confirm_raw(held, free, exact)
    assert not any(one.recovers() for one in tampered)
    assert any(one.value > 0 for one in tampered)


def confirm_raw(batch, delta, exact):
    """As `confirm`, without moving the perturbation into the cell."""
    nothing = tuple(dataclasses.replace(i, inner=prepare_free(i)) for i in batch.instances)
    return confirm(dataclasses.replace(batch, instances=nothing), delta, exact)


def prepare_free(instance):
    return dataclasses.replace(instance.inner, equal=instance.inner.equal[:0], rows=(), half_spaces=())


def test_rows_have_the_published_metrics(climbed):
    plan, setup, _, _, rungs = climbed
    rows = attack_rows(plan, rungs, setup.flips, "base")
    assert len(rows) == 2 * 5 * (len(plan.budgets) + 1)
    for row in rows:
        assert row["length"] == pytest.approx(row["relative_norm"] * row["norm_h"])
        if row["recovered"] and row["threat"] in ("preactivations", "defended"):
            assert row["relative_drift"] < 1e-9
            assert row["zero_reactivation"]


def test_controls(climbed):
    _, _, problem, _, rungs = climbed
    batch = rungs["free"].batch
    norms = np.array([i.norm_h for i in batch.instances])
    shares = random_shares(batch, 0.0 * norms, (1.0,), 0, draws=8)
    assert (shares == 0).all()  # nothing moved, nothing recovered
    assert random_shares(batch, 30 * norms, (1.0,), 0, draws=64).max() > 0  # so far out, some direction does
    assert np.isnan(random_shares(batch, np.full(2, np.nan), (1.0,), 0, draws=2)).all()
    settings = Pgd(steps=6)
    assert (unclamped(problem, batch, settings) > 0).all()
    first, again = (other_token(problem, batch, settings, seed=1) for _ in range(2))
    assert (first == again).all()


def test_certificates_of_weaker_threats_speak_for_stricter_ones():
    known = {"free": Radius(1.0, "free", False, ""), "code": Radius(None, "", False, "no bound")}
    assert inherited("code", known, "").value == 1.0
    assert inherited("drift", known, "").by == "free"
    assert inherited("drift", known | {"drift": Radius(2.0, "drift", False, "")}, "").value == 2.0
    assert inherited("drift", {}, "not asked").why_not == "not asked"
    assert inherited("code", {"code": known["code"]}, "").why_not == "no bound"
    assert inherited("free", {"code": Radius(2.0, "code", False, "")}, "").value is None


def test_a_recovery_within_a_certified_radius_is_a_defect():
    check_sandwich("code", Radius(1.0, "free", False, ""), 1.0)
    with pytest.raises(SoundnessError, match="within the radius"):
        check_sandwich("code", Radius(1.0, "free", False, ""), 0.99)


def test_what_the_checker_does_not_accept_does_not_count():
    assert not Found(np.ones(2), 5.0, 5.0, held=True, within=None).recovers()
    assert not Found(np.ones(2), 5.0, 5.0, held=False, within=0.0).recovers()
    assert Found(np.ones(2), 5.0, 5.0, held=True, within=0.0).recovers()


def test_plans_are_validated():
    for bad in ({"budgets": ()}, {"budgets": (0.1, 0.1)}, {"certify": ("luck",)}, {"find": "luck"}, {"drift": 0.0}):
        with pytest.raises(InputError):
            small_plan("refusal", **bad)
