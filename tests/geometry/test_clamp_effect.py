"""Undoing, restoring and countering a clamp, and closing its first-order effect: by hand, by reference, by checker."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.tiny import ARCHITECTURES, random_sae, tiny_sae

from sae_verify.certificates.linear import Ball, linear_step
from sae_verify.checker import Rejected
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.check import prove
from sae_verify.checker.weights import load_weights
from sae_verify.errors import FeatureError, InputError, ShapeError
from sae_verify.geometry.clamp_effect import clamp_effect, counterable, restore, undo
from sae_verify.geometry.closing import closes, closing_set, remaining_step
from sae_verify.geometry.held_cell import held_cell
from sae_verify.geometry.reference import project_reference
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import Clamp, ErrorBall
from sae_verify.sae import SAE, load_sae

from .cells import Case, admissible_samples, cases, cell_of, make_case, violation


def sae_of(architecture: str, seed: int = 0) -> SAE:
    return random_sae(
        architecture,
        d=8,
        m=24,
        k=4,
        hook="h",
        seed=seed,
        normalization=None,
        subtract=True,
        bias=-0.2,
        dtype=torch.float32,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "clamp", [Clamp.set({1: 2.0, 3: 0.0}), Clamp.scale({4: 0.0}), Clamp.add({2: 1.5}), Clamp.drop_error({1: 1.0})]
)
def test_the_effect_is_that_of_the_algebra(architecture: str, clamp: Clamp) -> None:
    sae, x = sae_of(architecture), np.random.default_rng(0).normal(size=8)
    found = clamp_effect(sae, clamp, x)
    exact, point = sae.to(torch.float64), torch.from_numpy(x)
    code = exact.encode(point)
    new = code.clone()
    for feature, value in zip(clamp.features, clamp.values, strict=True):
        new[feature] = {"scale": code[feature] * value, "add": code[feature] + value}.get(clamp.kind, value)
    error = point - exact.decode(code, point)
    h = exact.decode(new, point) + (0.0 if clamp.kind == "drop-error" else error)
    assert found.h == pytest.approx(h.numpy(), abs=1e-12)
    assert found.effect == pytest.approx(found.h - x)
    assert found.norm_e == pytest.approx(float(error.norm()))
    assert found.norm_h == pytest.approx(float(h.norm()))
    assert found.norm == pytest.approx(np.linalg.norm(found.h - x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_undoing_where_nothing_is_held(architecture: str) -> None:
    sae, x = sae_of(architecture), np.random.default_rng(1).normal(size=8)
    effect = clamp_effect(sae, Clamp.set({1: 2.0, 3: 0.5}), x).effect
    free = undo(cell_of(8), effect)
    assert free.admissible
    assert free.remaining_share == 0.0
    assert (free.nearest == -effect).all()
    near = undo(cell_of(8), effect, 0.25 * free.norm)
    assert not near.admissible
    assert near.remaining_share == pytest.approx(0.75)
    # Where the clamped features' own pre-activations are held at h, the clamp cannot be undone entirely, unless it
    # moved none of them.
    exact = sae.to(torch.float64)
    h = x + effect
    held = undo(held_cell(exact, ErrorBall(1.0, held="preactivations"), (1, 3), x, h, "outer"), effect)
    moved = exact.W_enc[:, [1, 3]].T.numpy() @ effect
    assert held.admissible == (np.abs(moved).max() <= 1e-9)
    assert 0 < held.remaining_share <= 1


@given(cases(max_width=6), st.sampled_from([0.3, 1.0, np.inf]))
@settings(max_examples=40)
def test_undo_agrees_with_the_reference(case: Case, share: float) -> None:
    effect = 0.5 * case.g
    assume(np.linalg.norm(effect) > 0)
    length = float(np.linalg.norm(effect))
    found = undo(case.cell, effect, share * length)
    reference = project_reference(case.cell, -effect, min(share, 1.0) * length)
    assert np.linalg.norm(found.remaining) == pytest.approx(reference.value, abs=1e-6 * length)
    assert found.remaining_share == pytest.approx(np.linalg.norm(found.remaining) / length)
    assert found.remaining == pytest.approx(effect + found.nearest)
    assert violation(case.cell, found.nearest, min(share, 1.0) * length) <= 1e-9
    if found.admissible:
        assert found.remaining_share == 0.0
        assert violation(case.cell, found.delta, length) <= 1e-9
    else:
        assert violation(case.cell, found.delta, share * length if np.isfinite(share) else length) > 0


@pytest.mark.parametrize("kind", ["no slack", "duplicate rows", "dependent", "in the span"])
def test_undo_on_degenerate_cells(kind: str) -> None:
    for seed in range(10):
        case = make_case(kind, seed, 5, 2, 9, 1.0)
        found = undo(case.cell, case.g)
        reference = project_reference(case.cell, -case.g, float(np.linalg.norm(case.g)))
        assert np.linalg.norm(found.remaining) == pytest.approx(reference.value, abs=1e-6)


def test_no_effect_at_all() -> None:
    cell = cell_of(3, np.eye(3)[:1])
    found = undo(cell, np.zeros(3))
    assert found.admissible
    assert found.norm == found.remaining_share == 0.0
    share = counterable(cell, np.zeros(3), np.ones(3))
    assert share.vector == 0.0
    assert share.along is None
    assert share.readout == 0.0


def test_counterable_by_hand() -> None:
    cell = cell_of(3, [[1.0, 0.0, 0.0]])
    share = counterable(cell, np.array([3.0, 4.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    assert share.vector == pytest.approx(0.8)
    assert share.along == pytest.approx(4 / 7)
    assert share.readout == 7.0
    assert counterable(cell, np.array([1.0, 0.0, 0.0]), np.ones(3)).vector == 0.0
    assert counterable(cell_of(3), np.ones(3), np.ones(3)).along == pytest.approx(1.0)
    assert counterable(cell, np.array([0.0, 1.0, -1.0]), np.ones(3)).along is None  # g . effect = 0
    against = counterable(cell, np.array([3.0, 1.0, 0.0]), np.array([1.0, -1.0, 0.0]))
    assert against.along == pytest.approx(-0.5)  # what the equality protects is more than the whole


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_counterable_splits_the_effect(case: Case, seed: int) -> None:
    effect = np.random.default_rng(seed).normal(size=case.cell.width)
    share = counterable(case.cell, effect, case.g)
    held = case.cell.basis @ (case.cell.basis.T @ effect)
    assert share.vector**2 + (np.linalg.norm(held) / np.linalg.norm(effect)) ** 2 == pytest.approx(1.0)
    if share.along is not None:
        scale = np.linalg.norm(case.g) * np.linalg.norm(effect)
        assert share.along * share.readout + case.g @ held == pytest.approx(share.readout, abs=1e-10 * scale)
    more = cell_of(case.cell.width, np.concatenate([case.cell.equal, effect[None]]))
    assert counterable(more, effect, case.g).vector <= 1e-9


@given(cases(radii=(1.0, 10.0)), st.floats(0.05, 0.95))
@settings(max_examples=60)
def test_restore_reaches_the_level_and_nothing_shorter_does(case: Case, share: float) -> None:
    top = worst_case(case.cell, case.g, case.radius).value
    assume(top > 1e-6 * np.linalg.norm(case.g) * case.radius)
    found = restore(case.cell, case.g, share * top, case.radius, norm_h=2.0, norm_e=0.5)
    assert found.delta is not None
    assert found.norm is not None
    assert case.g @ found.delta == pytest.approx(share * top, rel=1e-6)
    assert found.in_h == pytest.approx(found.norm / 2.0)
    assert found.in_e == pytest.approx(found.norm / 0.5)
    assert found.lower <= found.norm
    assert found.lower >= found.norm * (1 - 1e-6)
    shorter = admissible_samples(case.cell, found.lower * (1 - 1e-9), 50, 0)
    assert (shorter @ case.g).max() <= share * top + 1e-9 * np.linalg.norm(case.g)


def test_a_level_out_of_reach() -> None:
    g = np.array([1.0, 0.0])
    box = cell_of(2, None, (1.0, np.eye(2), np.ones(2)))
    ended = restore(box, g, 1.5, 1e3)  # the cell ends at 1
    assert ended.delta is ended.norm is ended.in_h is None
    assert ended.lower == np.inf
    held = restore(cell_of(2, np.eye(2)), g, 0.1, 1e3)
    assert held.delta is None
    assert held.lower == np.inf
    far = restore(cell_of(2), g, 50.0, 10.0)  # it could be reached, but not within the largest radius
    assert far.delta is None
    assert far.lower == pytest.approx(50.0)
    for level in (0.0, -2.0):
        assert restore(box, g, level, 1.0).norm == 0.0
    assert np.isnan(restore(box, g, 0.5, 1e3).in_h or 0.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_lower_bound_is_certified(architecture: str, tmp_path: Path) -> None:
    """Just below it the checker proves that the level is not reached, with the multipliers as they are."""
    where = tiny_sae(tmp_path / "sae", architecture)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=8), rng.normal(size=8)
    threat = ErrorBall(1.0, "absolute", "code", "x")
    cell = held_cell(load_sae(where).to(torch.float64), threat, (), x, x, "outer")
    level = 0.5 * worst_case(cell, g, 1.0).value
    found = restore(cell, g, level, 10.0)
    assert found.norm is not None
    assert found.optimum is not None
    subject = Subject(load_weights(where, None), x[None], where.parent)
    step = linear_step(subject, 0, threat, g, Ball("l2", found.lower * (1 - 1e-8)), cell, found.optimum)
    assert prove(subject, step, "step").values["upper"] < level
    assert found.lower == pytest.approx(found.norm, rel=1e-6)


def test_bad_input() -> None:
    cell = cell_of(2)
    for call in (
        lambda: undo(cell, np.ones(3)),
        lambda: counterable(cell, np.ones(2), np.array([1.0, np.inf])),
        lambda: restore(cell, np.ones(1), 1.0, 1.0),
        lambda: clamp_effect(sae_of("relu"), Clamp.add({0: 1.0}), np.ones(7)),
        lambda: closes(cell, np.ones(3), np.eye(2), []),
        lambda: closing_set(cell, np.ones(2), np.eye(3), 1),
        lambda: remaining_step(np.eye(2), 0, [0], [], np.ones(3), 1.0),
    ):
        with pytest.raises(ShapeError):
            call()
    for call in (
        lambda: undo(cell, np.ones(2), -1.0),
        lambda: undo(cell, np.ones(2), np.nan),
        lambda: restore(cell, np.ones(2), np.inf, 1.0),
        lambda: restore(cell, np.ones(2), 1.0, 0.0),
        lambda: closing_set(cell, np.ones(2), np.eye(2), -1),
        lambda: remaining_step(np.eye(2), 0, [0], [], np.ones(2), np.inf),
    ):
        with pytest.raises(InputError):
            call()
    for call in (
        lambda: closes(cell, np.ones(2), np.eye(2), [0, 0]),
        lambda: closes(cell, np.ones(2), np.eye(2), [2]),
        lambda: remaining_step(np.eye(2), 0, [], [], np.ones(2), 1.0),
        lambda: remaining_step(np.eye(2), 0, [0], [0], np.ones(2), 1.0),
    ):
        with pytest.raises(FeatureError):
            call()


# --- closing ------------------------------------------------------------------------------------------------------


@given(cases(), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_what_is_left_is_the_worst_case_with_the_set_held_too(case: Case, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, case.cell.width))
    chosen = sorted(rng.choice(count, int(rng.integers(0, count + 1)), replace=False).tolist())
    found = closes(case.cell, case.g, rows, chosen)
    tighter = cell_of(case.cell.width, np.concatenate([case.cell.equal, rows[chosen]]))
    assert found.reach == pytest.approx(worst_case(tighter, case.g, 1.0).value, abs=1e-8 * np.linalg.norm(case.g))
    assert 0.0 <= found.share <= 1.0


@given(st.integers(2, 6), st.integers(3, 9), st.integers(0, 2), st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(max_examples=80)
def test_the_smallest_closing_set_is_found_by_exhaustion(
    width: int, count: int, equalities: int, seed: int, planted: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, equal = rng.normal(size=(count, width)), rng.normal(size=(equalities, width))
    g = rng.normal(size=planted) @ rows[:planted] if planted else rng.normal(size=width)
    if equalities:
        g = g + rng.normal(size=equalities) @ equal
    cell = cell_of(width, equal)
    found = closing_set(cell, g, rows, width)
    sizes = [
        k
        for k in range(min(count, width) + 1)
        for u in combinations(range(count), k)
        if closes(cell, g, rows, u).closed
    ]
    assert found.closed == bool(sizes)
    assert found.at_least <= min(sizes, default=count + 1)
    if found.smallest:
        assert len(found.features) == min(sizes)
    if sizes and min(sizes) in (1, 2):
        assert found.smallest
        assert len(found.features) == min(sizes)
    assert found.shares[-1] == pytest.approx(closes(cell, g, rows, found.features.tolist()).share, abs=1e-8)
    for k, best in enumerate(found.best, start=1):
        exact = min(closes(cell, g, rows, u).share for u in combinations(range(count), k))
        assert best == pytest.approx(min(exact, *found.best[:k]), abs=1e-7)


def test_nearly_parallel_rows_close_together() -> None:
    """Neither of two nearly equal columns explains g; their difference does. Angles alone cannot tell."""
    rng = np.random.default_rng(0)
    a, g = rng.normal(size=6), rng.normal(size=6)
    g -= a * (a @ g) / (a @ a)
    rows = np.concatenate([rng.normal(size=(20, 6)), [a, a + 1e-5 * g]])
    found = closing_set(cell_of(6), g, rows, 4)
    assert sorted(found.features.tolist()) == [20, 21]
    assert found.smallest
    assert found.best[0] > 0.1


def test_duplicates_and_zero_rows_add_nothing() -> None:
    rows = np.array([[1.0, 0, 0], [1.0, 0, 0], [-2.0, 0, 0], [0, 0, 0]])
    found = closing_set(cell_of(3), np.array([1.0, 1.0, 0.0]), rows, 4)
    assert not found.closed
    assert len(found.features) == 1
    assert found.shares[-1] == pytest.approx(0.5**0.5)
    assert closes(cell_of(3), np.array([1.0, 1.0, 0.0]), rows, [0, 1, 2, 3]).share == pytest.approx(0.5**0.5)
    nothing = closing_set(cell_of(3), np.ones(3), np.zeros((2, 3)), 2)
    assert not nothing.closed
    assert nothing.shares.tolist() == [1.0]


def test_nothing_is_left_to_close() -> None:
    cell = cell_of(3, np.eye(3)[:2])
    found = closing_set(cell, np.array([1.0, -2.0, 0.0]), np.eye(3), 3)
    assert found.closed
    assert found.smallest
    assert found.at_least == 0
    assert found.features.size == 0


def test_generic_rows_close_only_when_they_are_as_many_as_the_dimensions() -> None:
    rng = np.random.default_rng(0)
    rows, g = rng.normal(size=(60, 12)), rng.normal(size=12)
    cell = cell_of(12, rng.normal(size=(3, 12)))
    found = closing_set(cell, g, rows, 20)
    assert found.closed
    assert len(found.features) == 9
    assert found.at_least == 3
    assert not found.smallest
    assert (np.diff(found.shares) < 0).all()
    few = closing_set(cell, g, rows, 4)
    assert len(few.features) == 4
    assert not few.closed
    assert few.shares.tolist() == pytest.approx(found.shares[:5].tolist())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_remaining_effect_is_certified(architecture: str, tmp_path: Path) -> None:
    where = tiny_sae(tmp_path / "sae", architecture)
    sae = load_sae(where).to(torch.float64)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=8), rng.normal(size=8)
    encoder = np.ascontiguousarray(sae.W_enc.numpy().T)
    subject = Subject(load_weights(where, None), x[None], where.parent)
    held = [0, 3, 5]
    cell = held_cell(sae, ErrorBall(1.0, held="preactivations", at="x"), tuple(held), x, x, "outer")
    before = np.inf
    for extra in ([], [1], [1, 2], [1, 2, 4, 6, 7, 8]):
        step = remaining_step(encoder, 0, held, extra, g, 0.7)
        upper = prove(subject, step, "step").values["upper"]
        assert upper == pytest.approx(0.7 * closes(cell, g, encoder, extra).reach, abs=1e-9)
        assert upper <= before
        before = upper
        for broken in ({"upper": 0.9 * upper - 1e-9}, {"features": [*held, *extra][1:]}):
            with pytest.raises(Rejected):
                prove(subject, {**step, **broken}, "step")
    assert before <= 1e-9  # nine generic rows in eight dimensions close everything
