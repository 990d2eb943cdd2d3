"""Attacks: every iterate is admissible, and on a tail without blocks they reach the proven worst case."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from geometry.cells import violation

from sae_verify.attacks import Pgd, ascend, attack, first_order, project_batch, settle, smallest_radius
from sae_verify.attacks.closed_form import value_and_gradient, values
from sae_verify.bounds import FinalNormBound
from sae_verify.geometry import held_cell
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.worst_case import project, worst_case
from sae_verify.problem import TokenAgainstAll

from .batches import Make, as_proven, random_points, with_tau

FAMILIES = ("llama", "gpt2", "gemma2")
ARCHITECTURES = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
HELD = ("free", "preactivations", "defended", "code", "unreachable")


def assert_admissible(batch: Batch, delta: np.ndarray, radii: np.ndarray) -> None:
    """Ball and half-spaces in floats, equalities up to rounding."""
    for instance, points, radius in zip(batch.instances, delta, radii, strict=True):
        for point in np.atleast_2d(points):
            assert np.linalg.norm(point) <= radius
            assert violation(instance.inner, point, max(float(radius), 1e-12)) <= 1e-9
            for half in instance.inner.half_spaces:
                assert (half.sign * (half.normals @ point) <= half.slack + 1e-15 * radius).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("held", HELD)
def test_projection_is_admissible_and_nearest(make: Make, architecture: str, held: str) -> None:
    batch = make("llama", architecture, held=held)
    for size in (0.01, 1.0, 100.0):
        points = random_points(batch, 3, size)
        radii = np.array([0.5, 1e-3, 2.0, 0.0])
        found = project_batch(batch, points, radii)
        assert_admissible(batch, found, radii)
        for b, instance in enumerate(batch.instances):
            for r in range(3):
                nearest = project(instance.inner, points[b, r], radii[b])
                assert np.linalg.norm(found[b, r] - nearest) <= 1e-8 * max(radii[b], 1e-12)
        again = project_batch(batch, found, radii)
        assert np.abs(again - found).max() <= 1e-9


def test_projection_of_half_spaces_left_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that drop what the ball cannot reach give the same projections, attacks and bounds."""
    batch = make(held="code")
    radii = np.full(4, 0.2)
    whole = project_batch(batch, random_points(batch, 4, 1.0), radii)
    bounds = [FinalNormBound().bound(i, 0.2) for i in batch.instances]
    monkeypatch.setattr(held_cell, "WORTHWHILE", 1)
    near = batch.within(radii)
    kept = [len(h.slack) for i in near.instances for h in i.inner.half_spaces]
    assert min(kept) < 8  # something was left out
    assert np.abs(project_batch(near, random_points(batch, 4, 1.0), radii) - whole).max() <= 1e-9
    for instance, bound in zip(batch.instances, bounds, strict=True):
        again = FinalNormBound().bound(instance, 0.2)
        assert again.value == pytest.approx(bound.value, abs=1e-9)
        assert again.multipliers is not None
        assert bound.multipliers is not None
        for (f, v), (g, w) in zip(again.multipliers.upper, bound.multipliers.upper, strict=True):
            assert dict(zip(f.tolist(), v.tolist(), strict=True)) == pytest.approx(
                dict(zip(g.tolist(), w.tolist(), strict=True)), rel=1e-4
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_that_of_the_readout(make: Make, family: str) -> None:
    batch = make(family, layers=2, hook="blocks.0.hook_resid_post")
    delta, step = random_points(batch, 2, 0.1), 1e-6 * random_points(batch, 2, 1.0, seed=1)
    value, gradient = value_and_gradient(batch, delta)
    assert value == pytest.approx(values(batch, delta))
    slope = (values(batch, delta + step) - values(batch, delta - step)) / 2
    assert slope == pytest.approx((gradient * step).sum(axis=-1), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("held", ["free", "preactivations", "unreachable"])
def test_first_order_in_closed_form_without_half_spaces(make: Make, family: str, held: str) -> None:
    """The gain of the linearisation is eps ||P g||, in the direction P g."""
    batch = make(family, held=held, layers=2, hook="blocks.0.hook_resid_post")
    radii = np.array([0.1, 1.0, 1e-6, 3.0])
    delta = first_order(batch, radii)
    _, gradient = value_and_gradient(batch, np.zeros((4, 1, batch.h.shape[1])))
    for b, instance in enumerate(batch.instances):
        free = instance.inner.free_part(gradient[b, 0])
        assert gradient[b, 0] @ delta[b] == pytest.approx(radii[b] * np.linalg.norm(free), rel=1e-9)
        assert np.linalg.norm(delta[b]) == pytest.approx(radii[b], rel=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_order_is_the_worst_case_of_the_linearisation(make: Make, architecture: str) -> None:
    batch = make("gpt2", architecture, held="code")
    radii = np.full(4, 0.7)
    delta = first_order(batch, radii)
    assert_admissible(batch, delta, radii)
    _, gradient = value_and_gradient(batch, np.zeros((4, 1, batch.h.shape[1])))
    for b, instance in enumerate(batch.instances):
        dual = worst_case(instance.inner, gradient[b, 0], 0.7).dual
        assert gradient[b, 0] @ delta[b] == pytest.approx(dual, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("held", HELD)
def test_attack_reaches_the_proven_worst_case(make: Make, family: str, held: str) -> None:
    """No block follows: where the bound is exact, the gap closes to 1e-5 of the readout's range, and never inverts."""
    batch = as_proven(make(family, "jumprelu", held=held))
    for radius in (0.1, 1.0):
        radii = np.full(4, radius)
        found = attack(batch, radii, Pgd())
        assert_admissible(batch, found.delta, radii)
        assert values(batch, found.delta[:, None])[:, 0] == pytest.approx(found.value)
        for instance, delta, value in zip(batch.instances, found.delta, found.value, strict=True):
            bound = FinalNormBound().bound(instance, radius)
            w, constant = instance.functional(None)
            assert value <= bound.value + 1e-9 * np.linalg.norm(w)
            on_sphere = np.linalg.norm(delta) >= radius * (1 - 1e-6)
            if bound.value >= constant or (on_sphere and not instance.inner.half_spaces):
                assert bound.value - value <= 1e-5 * np.linalg.norm(w)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attack_reaches_the_proven_worst_case_for_every_architecture(make: Make, architecture: str) -> None:
    batch = as_proven(make("llama", architecture, held="code", at="both"))
    found = attack(batch, np.full(4, 0.5), Pgd())
    for instance, value in zip(batch.instances, found.value, strict=True):
        bound = FinalNormBound().bound(instance, 0.5)
        size = np.linalg.norm(instance.functional(None)[0])
        assert value <= bound.value + 1e-9 * size
        if bound.value >= 0:
            assert bound.value - value <= 1e-5 * size


@pytest.mark.parametrize("family", FAMILIES)
def test_ascent_never_falls_below_its_start_or_zero(make: Make, family: str) -> None:
    batch = make(family, layers=3, hook="blocks.1.hook_resid_pre", held="defended")
    radii = np.full(4, 0.5)
    start = project_batch(batch, random_points(batch, 3, 0.3), radii)
    climbed = ascend(batch, radii, start, 5)
    assert (climbed.value >= values(batch, start).max(axis=1) - 1e-12).all()
    settled = settle(batch, radii, climbed)
    assert (settled.value >= climbed.value).all()
    assert_admissible(batch, settled.delta, radii)
    best = attack(batch, radii, Pgd(steps=3, restarts=1))
    assert (best.value >= values(batch, np.zeros((4, 1, batch.h.shape[1])))[:, 0]).all()


def test_attack_grows_with_the_radius_and_takes_hints(make: Make) -> None:
    batch = make("gpt2", layers=2, hook="blocks.0.hook_resid_post", held="code")
    found = [attack(batch, np.full(4, r), Pgd()) for r in (0.05, 0.2, 0.8)]
    for smaller, larger in itertools.pairwise(found):
        assert (smaller.value <= larger.value + 1e-6).all()
    hinted = attack(batch, np.full(4, 0.8), Pgd(steps=1, restarts=1), hint=found[-1].delta)
    assert (hinted.value >= found[-1].value - 1e-9).all()


def test_attack_is_reproducible_and_zero_at_radius_zero(make: Make) -> None:
    batch = make("llama", layers=2, hook="blocks.0.hook_resid_post")
    first, second = (attack(batch, np.full(4, 0.4), Pgd(seed=3)) for _ in range(2))
    assert (first.delta == second.delta).all()
    still = attack(batch, np.zeros(4), Pgd())
    assert not still.delta.any()
    assert still.value == pytest.approx(values(batch, np.zeros((4, 1, batch.h.shape[1])))[:, 0])


def test_token_against_all(make: Make) -> None:
    batch = as_proven(make("llama", held="preactivations", readout=TokenAgainstAll(4)))
    found = attack(batch, np.full(4, 0.5), Pgd())
    for instance, value in zip(batch.instances, found.value, strict=True):
        assert value <= FinalNormBound().bound(instance, 0.5).value + 1e-9


# --- the smallest radius --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("held", HELD)
def test_smallest_radius_meets_the_certified_one(make: Make, family: str, held: str) -> None:
    """No block follows: certified <= attacked, and within a thousandth where the bound is exact."""
    batch = as_proven(make(family, held=held))
    start = values(batch, np.zeros((4, 1, batch.h.shape[1])))[:, 0]
    tops = np.array([FinalNormBound().bound(i, 0.5 * i.norm_h).value for i in batch.instances])
    batch = with_tau(batch, 0.5 * (start + tops) + 1e-3)
    proven = [FinalNormBound().certified(i) for i in batch.instances]
    lower = np.array([np.nan if b is None or b.radius is None else b.radius for b in proven])
    known = attack(batch, 0.6 * np.array([i.norm_h for i in batch.instances]), Pgd())
    lengths, deltas = smallest_radius(batch, Pgd(), np.nan_to_num(lower), known)
    reached = values(batch, deltas[:, None])[:, 0]
    for instance, length, delta, value, radius in zip(batch.instances, lengths, deltas, reached, lower, strict=True):
        if not np.isfinite(length):
            assert not delta.any()
            assert tops[instance.index] - start[instance.index] < 0.05 or instance.inner.trivial
            continue
        assert np.linalg.norm(delta) == pytest.approx(length)
        assert value > instance.tau
        assert length >= radius * (1 - 1e-9)
        if instance.tau >= instance.functional(None)[1] or held in ("free", "preactivations"):
            assert length <= radius * (1 + 2e-3)
    assert_admissible(batch, deltas, np.where(np.isfinite(lengths), lengths * (1 + 1e-12), 0.0))


def test_smallest_radius_when_nothing_breaks_the_claim(make: Make) -> None:
    batch = make("llama", held="code")
    impossible = with_tau(batch, np.full(4, 1e6))
    known = attack(impossible, np.full(4, 0.3), Pgd())
    lengths, deltas = smallest_radius(impossible, Pgd(steps=4), np.zeros(4), known)
    assert np.isinf(lengths).all()
    assert not deltas.any()


def test_smallest_radius_with_blocks_improves_on_what_was_known(make: Make) -> None:
    batch = make("gpt2", layers=3, hook="blocks.0.hook_resid_post", held="defended")
    start = values(batch, np.zeros((4, 1, batch.h.shape[1])))[:, 0]
    known = attack(batch, np.full(4, 1.0), Pgd())
    batch = with_tau(batch, 0.5 * (start + known.value))
    lengths, deltas = smallest_radius(batch, Pgd(), np.zeros(4), known)
    assert (lengths < np.linalg.norm(known.delta, axis=1)).all()
    assert (values(batch, deltas[:, None])[:, 0] > [i.tau for i in batch.instances]).all()
