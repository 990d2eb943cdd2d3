"""Attacks on the bundled models: every iterate is admissible, and the replay tells when something held has moved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import sae_verify as sv
from sae_verify.attacks import attack, first_order, project_batch, replay, smallest_radius
from sae_verify.attacks.closed_form import value_and_gradient, values
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.geometry.least_norm import least_norm
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import ErrorBall

CASES = Path(__file__).parent.parent / "examples" / "cases"


def batch_of(case: str, name: str, threat: ErrorBall | None = None, count: int = 3) -> Batch:
    problem = sv.load_problem(CASES / case / name)
    changes = {} if threat is None else {"threat": threat}
    return prepare(
        dataclasses.replace(
            problem, prompts=list(problem.prompts)[:count], readout=list(problem.readouts)[:count], **changes
        )
    )


@pytest.fixture(scope="module")
def early() -> Batch:
    return batch_of("indirect_object", "problem_early.toml")


@pytest.mark.parametrize(("case", "name"), [("refusal", "problem_last.toml"), ("unlearning", "problem_last.toml")])
@pytest.mark.parametrize(("held", "at"), [("code", "x"), ("defended", "both"), ("unreachable", "x"), ("free", "h")])
def test_projection_is_admissible_and_nearest(case: str, name: str, held: str, at: str) -> None:
    batch = batch_of(case, name, ErrorBall(0.1, held=held, at=at))  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    points = generator.normal(size=(3, 5, 64)) * 3
    found = project_batch(batch, points, batch.radii)
    for b, instance in enumerate(batch.instances):
        cell = instance.inner
        assert (np.linalg.norm(found[b], axis=1) <= batch.radii[b] * (1 + 1e-12)).all()
        if cell.equal.size:
            assert np.abs(found[b] @ cell.equal.T).max() <= 1e-12 * np.abs(cell.equal).max() * batch.radii[b] * 64
        for half in cell.half_spaces:
            for point in found[b]:  # one product a point: a product of all may round differently
                assert (half.sign * (half.normals @ point) <= half.slack).all()
        # Nearest: no admissible point is on the far side of the supporting hyperplane at the projection.
        for r in range(5):
            normal = points[b, r] - found[b, r]
            best = worst_case(cell, normal, float(batch.radii[b]))
            assert best.value <= float(normal @ found[b, r]) + 1e-6 * np.linalg.norm(normal) * batch.radii[b]
    again = project_batch(batch, found, batch.radii)
    np.testing.assert_allclose(again, found, atol=1e-9)


def test_gradient_is_that_of_the_tail(early: Batch) -> None:
    generator = np.random.default_rng(1)
    delta, step = generator.normal(size=(2, 3, 1, 64)) * 0.1
    _, gradient = value_and_gradient(early, delta)
    ahead, behind = (values(early, delta + s * 1e-5 * step) for s in (1, -1))
    np.testing.assert_allclose((gradient * step).sum(-1), (ahead - behind) / 2e-5, rtol=1e-6)


def test_first_order_is_the_closed_form_without_half_spaces() -> None:
    batch = batch_of("indirect_object", "problem_early.toml", ErrorBall(0.05, held="preactivations"))
    _, gradient = value_and_gradient(batch, np.zeros((3, 1, 64)))
    for instance, g, delta, radius in zip(
        batch.instances, gradient[:, 0], first_order(batch, batch.radii), batch.radii, strict=True
    ):
        length = np.linalg.norm(instance.inner.free_part(g))
        assert g @ delta == pytest.approx(radius * length, rel=1e-9)  # eps ||P g||


def test_an_attack_never_falls_below_no_attack(early: Batch) -> None:
    found = attack(early, early.radii, sv.Pgd(steps=3, restarts=1))
    assert (found.value >= values(early, np.zeros((3, 1, 64)))[:, 0]).all()
    assert attack(early, early.radii * 0, sv.Pgd(steps=3)).delta.any() == np.False_


def test_smallest_radius_ends_above_the_claim_and_below_the_ascent(early: Batch) -> None:
    known = attack(early, early.radii, sv.Pgd(steps=10))
    lengths, delta = smallest_radius(early, sv.Pgd(steps=10), np.zeros(3), known)
    assert np.isfinite(lengths).all()
    assert (values(early, delta[:, None])[:, 0] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(delta, axis=1), lengths)
    assert (lengths[known.value > 0] <= early.radii[known.value > 0]).all()
    for result in replay(early, delta):
        assert result.held
        assert result.value > 0
    # A third shorter along the same direction is no recovery: the readout is nearly linear there.
    assert (values(early, 0.66 * delta[:, None])[:, 0] < 0).all()


def test_least_norm_inverts_the_linear_worst_case(early: Batch) -> None:
    generator = np.random.default_rng(2)
    for instance in early.instances:
        g = generator.normal(size=64)
        found = worst_case(instance.inner, g, 0.7)
        shortest = least_norm(instance.inner, g, found.value, 100.0)
        assert shortest is not None
        assert np.linalg.norm(shortest) == pytest.approx(0.7, rel=1e-6)
        assert least_norm(instance.inner, g, -1.0, 100.0) is not None
        assert least_norm(instance.inner, g, found.value, 0.5) is None


@pytest.mark.parametrize("held", ["preactivations", "defended", "code", "unreachable"])
def test_replay_notices_what_moves(held: str) -> None:
    batch = batch_of("unlearning", "problem_early.toml", ErrorBall(0.3, held=held))  # type: ignore[arg-type]
    still = replay(batch, np.zeros((3, 64)))
    assert all(r.held for r in still)
    for r, instance in zip(still, batch.instances, strict=True):
        assert r.value == pytest.approx(instance.defended, abs=1e-4)
    rows = {"unreachable": batch.sae.W_dec.numpy(), "code": batch.sae.W_enc.numpy().T}
    features = list(batch.problem.held_features)
    for b, instance in enumerate(batch.instances):
        normals = instance.inner.equal if instance.inner.equal.size else rows["code"][features]
        push = 0.5 * normals.sum(axis=0) + 3.0 * normals[0]
        delta = np.zeros((3, 64))
        delta[b] = 4.0 * push
        found = replay(batch, delta)
        assert not found[b].held, (held, b)
        assert found[b].drift > found[b].allowed or held in ("code", "defended")
        assert all(r.held for i, r in enumerate(found) if i != b)


def test_perturbing_before_or_after_the_clamp_is_the_same_when_the_code_is_held(early: Batch) -> None:
    delta = first_order(early, early.radii)
    at_x = replay(early, delta)
    after = dataclasses.replace(early.problem, threat=dataclasses.replace(early.problem.threat, at="h"))
    at_h = replay(dataclasses.replace(early, problem=after), delta)
    for one, other in zip(at_x, at_h, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-4)


def test_leaving_out_distant_half_spaces_changes_nothing(early: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_verify.geometry import held_cell

    monkeypatch.setattr(held_cell, "WORTHWHILE", 1)
    near = early.within(early.radii * 0.2)
    assert len(near.instances[0].inner.half_spaces[0].slack) < len(early.instances[0].inner.half_spaces[0].slack)
    generator = np.random.default_rng(3)
    for one, full in zip(near.instances, early.instances, strict=True):
        g = generator.normal(size=64)
        radius = 0.2 * full.radius
        small, large = worst_case(one.inner, g, radius), worst_case(full.inner, g, radius)
        assert small.dual == pytest.approx(large.dual, rel=1e-9)
        (rows, _), (features, _) = small.upper[0], large.upper[0]
        assert set(one.inner.half_spaces[0].named(rows).tolist()) == set(features.tolist())
