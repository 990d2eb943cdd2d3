"""Several layers clamped at once: the Jacobian, the restored attack, and the check that refuses what is not held."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.attacks import Pgd
from sae_verify.attacks.closed_form import values
from sae_verify.attacks.joint import clamps_at, prepare_joint
from sae_verify.attacks.joint_attack import Wanted, attack_jointly, restore, shorten_jointly
from sae_verify.attacks.joint_features import displacements, feature_jacobian, null_space, violation
from sae_verify.attacks.joint_replay import ALLOWED, replay_joint
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.instance import readout_values
from sae_verify.model import run
from sae_verify.problem import Clamp
from sae_verify.sae import load_sae
from sae_verify.sae.clamp import apply_clamp
from sae_verify.study.ladder import with_threat
from tests.study.conftest import EXAMPLES, _setup

LATE = {"refusal": (223, 85), "indirect-object": (5, 60, 100)}
"""Clamped features of the bundled SAEs after the last block."""


def problems(study, held, limit=2):
    """Both layers of a bundled study; the second clamp sets its features to something, so that they are on."""
    _, setup, _ = _setup(study)
    first = with_threat(setup.problem(setup.flips[:limit]), held)
    case = study.replace("-", "_")
    late = load_sae(EXAMPLES / "cases" / case / "sae_last")
    clamp = Clamp.set(dict.fromkeys(LATE[study], 8.0))
    return first, dataclasses.replace(first, sae=late, clamp=clamp, hook=None)


@pytest.fixture(scope="module", params=["refusal", "indirect-object"])
def joint(request):
    return prepare_joint(problems(request.param, "defended"))


@pytest.fixture(scope="module")
def attacked(joint):
    norms = np.array([one.norm_h for one in joint.batch.instances])
    found = attack_jointly(joint, 0.6 * norms, Pgd(steps=8, restarts=1))
    return found, 0.6 * norms


def test_the_tail_with_its_clamps_is_the_real_model(joint):
    """One loop through the real model: clamp, perturb, clamp again."""
    generator = np.random.default_rng(0)
    delta = generator.normal(size=(2, 64)) * 0.3
    first, (later,) = joint.batch.problem, joint.later
    prompts = joint.batch.prompts

    def edit(x):
        h = apply_clamp(first.sae, first.clamp, x, prompts.lengths).clone()
        h[torch.arange(len(h)), prompts.last] += torch.from_numpy(delta).float()
        return h

    with torch.no_grad(), clamps_at([later.problem]):
        logits = run(first.model, prompts, first.hook_point, edit).logits.double()
    real = readout_values(logits, tuple(one.readout for one in joint.batch.instances)).numpy()
    assert values(joint.batch, delta[:, None])[:, 0] == pytest.approx(real, abs=1e-4)
    with torch.no_grad():
        alone = run(first.model, prompts, first.hook_point, edit).logits.double()
    assert not torch.allclose(alone, logits, atol=1e-2)  # the second clamp does something


def test_the_jacobian_is_what_finite_differences_say(joint):
    generator = np.random.default_rng(1)
    delta = generator.normal(size=(2, 64)) * 0.05
    jacobian = feature_jacobian(joint, delta)
    assert jacobian.shape[1] == sum(kept.basis.shape[1] for kept in joint.layers)
    direction = generator.normal(size=(2, 64))
    step = 1e-6
    ahead, behind = (displacements(joint, (delta + s * direction)[:, None]) for s in (step, -step))
    start = 0
    for kept, plus, minus in zip(joint.layers, ahead, behind, strict=True):
        slope = np.einsum("bkd,bd->bk", kept.basis, (plus - minus)[:, 0] / (2 * step))
        mine = np.einsum("bkd,bd->bk", jacobian[:, start : start + kept.basis.shape[1]], direction)
        assert mine == pytest.approx(slope, rel=1e-5, abs=1e-7)
        start += kept.basis.shape[1]


def test_nothing_held_moves_to_first_order_within_the_null_space(joint):
    delta = np.zeros((2, 64))
    jacobian = feature_jacobian(joint, delta)
    for rows, basis in zip(jacobian, null_space(joint, delta), strict=True):
        assert basis.shape[1] == 64 - np.linalg.matrix_rank(rows)
        assert np.abs(rows @ basis).max() < 1e-9
    assert joint.later[0].kept.basis.shape[1] > 0


def test_what_the_attack_finds_is_held_at_every_layer(joint, attacked):
    found, radii = attacked
    assert (np.linalg.norm(found.delta, axis=1) <= radii).all()
    assert (found.value > values(joint.batch, np.zeros((2, 1, 64)))[:, 0] + 0.1).all()
    for kept, moved in zip(joint.layers, displacements(joint, found.delta[:, None]), strict=True):
        assert (violation(kept, moved) < ALLOWED).all()
    for shown, value in zip(replay_joint(joint, found.delta), found.value, strict=True):
        assert shown.held
        assert shown.violation < ALLOWED
        assert shown.value == pytest.approx(value, abs=1e-3)


def test_the_codes_of_every_layer_keep_their_values(joint, attacked):
    """Asked of the SAEs themselves, not of the cells."""
    found, _ = attacked
    moved = displacements(joint, found.delta[:, None])
    for problem, reference, where in zip(
        (joint.batch.problem, joint.later[0].problem), (joint.batch.h, joint.later[0].reference), moved, strict=True
    ):
        sae = problem.sae.to(torch.float64)
        before = sae.encode(reference)[:, list(problem.held_features)]
        after = sae.encode(reference + torch.from_numpy(where[:, 0]))[:, list(problem.held_features)]
        assert (after - before).abs().max() < 1e-6 * (1 + before.abs().max())


@given(seed=st.integers(0, 10_000), prompt=st.integers(0, 1), size=st.sampled_from([1e-4, 1e-3, 1e-2]))
@settings(max_examples=20, deadline=None)
def test_what_moves_a_later_layer_by_one_in_ten_thousand_is_refused(seed, prompt, size):
    """A step that keeps the first layer's features and moves those of the second by `size`, relative."""
    joint, delta = _attacked()
    here, rows = delta[prompt], feature_jacobian(joint, delta)[prompt]
    first = joint.first.basis[prompt]
    direction = np.random.default_rng(seed).normal(size=64)
    direction -= first.T @ (first @ direction)
    later = rows[len(first) :]
    moved = np.linalg.norm(displacements(joint, delta[:, None])[1][prompt])
    change = size * moved / np.linalg.norm(later @ direction) * direction
    tried = delta.copy()
    tried[prompt] = here + change
    far = violation(joint.later[0].kept, displacements(joint, tried[:, None])[1])[prompt, 0]
    shown = replay_joint(joint, tried)[prompt]
    assert far > 0.1 * size  # of one row; the basis mixes them
    assert shown.later[0].failure is not None
    assert not shown.held


@cache
def _attacked():
    joint = prepare_joint(problems("refusal", "code"))
    norms = np.array([one.norm_h for one in joint.batch.instances])
    return joint, attack_jointly(joint, 0.3 * norms, Pgd(steps=4, restarts=0)).delta


def test_a_feature_turned_on_at_a_later_layer_is_refused():
    """Where the late features are off, only half-spaces hold them."""
    first, second = problems("refusal", "defended")
    joint = prepare_joint((first, dataclasses.replace(second, clamp=Clamp.scale(dict.fromkeys(LATE["refusal"], -1.0)))))
    assert joint.later[0].kept.basis.shape[1] == 0
    kept = joint.later[0].kept
    jacobian_of = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        delta = jacobian_of.normal(size=(2, 64))
        delta *= 3.0 * np.linalg.norm(joint.batch.h.numpy(), axis=1, keepdims=True) / 8
        delta -= np.einsum("bkd,bk->bd", joint.first.basis, np.einsum("bkd,bd->bk", joint.first.basis, delta))
        far = violation(kept, displacements(joint, delta[:, None])[1])[:, 0]
        for shown, worst in zip(replay_joint(joint, delta), far, strict=True):
            assert (shown.later[0].failure is None) == (worst < ALLOWED)
            refused += shown.later[0].failure is not None
    assert refused


def test_restored_points_are_held_and_shortened_ones_recover(joint):
    norms = np.array([one.norm_h for one in joint.batch.instances])
    aim = np.random.default_rng(2).normal(size=(2, 64)) * 0.05 * norms[:, None]
    delta, reached = restore(joint, np.zeros((2, 64)), aim, Wanted(norms))
    assert reached.all()
    assert (violation(joint.later[0].kept, displacements(joint, delta[:, None])[1]) < 1e-9).all()
    found = attack_jointly(joint, norms, Pgd(steps=10, restarts=0))
    tau = values(joint.batch, np.zeros((2, 1, 64)))[:, 0] + 0.2
    length, short = shorten_jointly(joint, tau, found.delta)
    assert (length < np.linalg.norm(found.delta, axis=1)).all()
    assert (values(joint.batch, short[:, None])[:, 0] > tau).all()
    assert (violation(joint.later[0].kept, displacements(joint, short[:, None])[1]) < ALLOWED).all()


def test_layers_that_do_not_fit_are_refused():
    first, second = problems("refusal", "defended")
    with pytest.raises(InputError, match="at least two"):
        prepare_joint([first])
    with pytest.raises(InputError, match="order of the blocks"):
        prepare_joint([second, first])
    with pytest.raises(InputError, match="more than SAE, clamp and hook"):
        prepare_joint([first, with_threat(second, "code")])
    with pytest.raises(UnsupportedError, match="positions 'last'"):
        prepare_joint([first, dataclasses.replace(second, clamp=Clamp.set({1: 0.0}, positions="last"))])
