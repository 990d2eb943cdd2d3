"""Held cells against the SAE itself: re-encode the moved point and see whether what is held was held."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.tiny import ARCHITECTURES, random_sae
from theorems.integer_saes import Point, points

from sae_verify.errors import UnsupportedError
from sae_verify.geometry.held_cell import HeldCell, held_cell
from sae_verify.geometry.inside import inside
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import ErrorBall
from sae_verify.sae import SAE, ConstantNormRescale, InputScale, LayerNorm, Normalization, TopKSAE

ROUNDING = 1e-12


def slackness(cell: HeldCell, delta: np.ndarray) -> float:
    """How far the worst constraint is from being violated; negative outside."""
    worst = -float(np.abs(cell.equal @ delta).max(initial=0.0))
    for half in cell.half_spaces:
        left = half.slack - half.sign * (half.normals @ delta)
        moving = half.normals.any(axis=1)
        worst = min(worst, float(np.min(left[moving], initial=np.inf)))
    return worst


def cells(point: Point, held: str, at: str) -> tuple[HeldCell, HeldCell]:
    threat = ErrorBall(1.0, held=held, at=at)  # type: ignore[arg-type]
    x = point.y.numpy()
    outer, inner = (held_cell(point.sae, threat, point.held, x, x, side) for side in ("outer", "inner"))
    return outer, inner


@given(points(), st.sampled_from(["code", "defended"]), st.sampled_from(["x", "h", "both"]))
@settings(max_examples=150)
def test_outer_contains_and_inner_is_contained(point: Point, held: str, at: str) -> None:
    outer, inner = cells(point, held, at)
    features = range(len(point.before)) if held == "code" else point.held
    kept = all(point.before[j] == point.after[j] for j in features)
    delta = point.delta.numpy()
    if kept:
        assert slackness(outer, delta) >= -ROUNDING
    strictly = np.abs(inner.equal @ delta).max(initial=0.0) == 0
    for half in inner.half_spaces:
        left = half.slack - half.sign * (half.normals @ delta)
        strictly &= bool((left[half.normals.any(axis=1)] > ROUNDING).all())
    if strictly:
        assert kept
    if slackness(inner, delta) >= 0:
        assert slackness(outer, delta) >= -ROUNDING


@given(points(("relu", "jumprelu", "gated")), st.sampled_from(["code", "defended"]))
@settings(max_examples=200)
def test_without_selection_the_cell_is_the_set_itself(point: Point, held: str) -> None:
    outer, inner = cells(point, held, "h")
    features = range(len(point.before)) if held == "code" else point.held
    kept = all(point.before[j] == point.after[j] for j in features)
    delta = point.delta.numpy()
    exact = slackness(outer, delta)
    assume(exact >= 0 or exact < -ROUNDING)
    assert kept == (exact >= 0)
    assert slackness(inner, delta) == exact


@given(points())
@settings(max_examples=60)
def test_preactivations_and_unreachable(point: Point) -> None:
    x, delta = point.y.numpy(), point.delta.numpy()
    cell = held_cell(point.sae, ErrorBall(1.0, held="preactivations"), point.held, x, x, "outer")
    moved = (point.sae.pre_activations(point.y + point.delta) - point.sae.pre_activations(point.y)).numpy()
    assert (slackness(cell, delta) >= 0) == (not moved[list(point.held)].any())
    cell = held_cell(point.sae, ErrorBall(1.0, held="unreachable"), point.held, x, x, "outer")
    on = point.sae.active(point.y)
    assert (slackness(cell, delta) >= 0) == (not (point.sae.W_dec[on] @ point.delta).any())
    assert [row.role for row in cell.rows] == ["decoder"] * int(on.sum())
    named = held_cell(point.sae, ErrorBall(1.0, held="unreachable", features=(1, 3)), point.held, x, x, "outer")
    assert [row.feature for row in named.rows] == [1, 3]
    assert not held_cell(point.sae, ErrorBall(1.0, held="free"), point.held, x, x, "outer").rows


def sae_of(architecture: str, seed: int, normalization: Normalization | None = None, bias: float = -0.6) -> SAE:
    return random_sae(
        architecture,
        d=8,
        m=24,
        k=4,
        hook="blocks.0.hook_resid_post",
        seed=seed,
        normalization=normalization,
        subtract=bool(seed % 2),
        bias=bias,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("held", ["code", "defended"])
@pytest.mark.parametrize("seed", range(4))
def test_attack_points_keep_what_is_held(architecture: str, held: str, seed: int) -> None:
    """The worst point of the inner cell, re-encoded, keeps S; a step further out of the outer cell does not (code)."""
    sae = sae_of(architecture, seed, InputScale(1.7) if seed == 3 else None)
    rng = np.random.default_rng(seed)
    x, h = rng.normal(size=(2, 8))
    threat = ErrorBall(1.0, held=held, at="both")  # type: ignore[arg-type]
    defended = (0, 3, 5, 11)
    inner, outer = (held_cell(sae, threat, defended, x, h, side) for side in ("inner", "outer"))
    features = list(range(24)) if held == "code" else list(defended)
    for radius in (0.05, 0.5, 5.0):
        delta = inside(inner, 0.999999 * worst_case(inner, rng.normal(size=8), radius).delta, radius)
        for y in (x, h):
            before, after = (sae.encode(torch.from_numpy(v))[features].numpy() for v in (y, y + delta))
            assert ((before != 0) == (after != 0)).all()
            assert np.abs(before - after).max() <= 1e-9
        assert slackness(outer, delta) >= -1e-9


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "gated", "topk", "topk-rescaled"])
def test_just_outside_the_code_cell_something_moves(architecture: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        sae = sae_of(architecture, seed, bias=-1.2)
        x = rng.normal(size=8)
        cell = held_cell(sae, ErrorBall(1.0, held="code", at="x"), (0,), x, x, "outer")
        assert not cell.trivial
        direction = cell.free_part(rng.normal(size=8))
        (half,) = cell.half_spaces
        speed = half.normals @ direction
        reach = np.min(half.slack[speed > 0] / speed[speed > 0])
        before = sae.encode(torch.from_numpy(x)) != 0
        for factor, same in ((1 - 1e-6, True), (1 + 1e-6, False)):
            after = sae.encode(torch.from_numpy(x + factor * reach * direction)) != 0
            assert torch.equal(before, after) is same


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_holds_more_allows_less(architecture: str) -> None:
    """free >= defended >= preactivations and defended >= code; and both >= x, h."""
    sae, rng = sae_of(architecture, 1), np.random.default_rng(2)
    x, h, g = rng.normal(size=(3, 8))
    defended = (1, 4, 6)

    def value(held: str, at: str) -> float:
        cell = held_cell(sae, ErrorBall(1.0, held=held, at=at), defended, x, h, "outer")  # type: ignore[arg-type]
        return worst_case(cell, g, 1.0).value + 1e-9

    assert value("free", "h") == pytest.approx(np.linalg.norm(g), abs=1e-8)
    for at in ("x", "h"):
        assert value("free", at) >= value("defended", at) - 1e-8
        assert value("defended", at) >= value("preactivations", at) - 1e-8 or isinstance(sae, TopKSAE)
        assert value("defended", at) >= value("code", at) - 1e-8
        assert value("code", at) >= value("code", "both") - 1e-8


@pytest.mark.parametrize("normalization", [LayerNorm(), ConstantNormRescale()])
@pytest.mark.parametrize("held", ["code", "defended", "preactivations"])
def test_a_normalisation_by_statistics_is_refused(normalization: Normalization, held: str) -> None:
    sae, x = sae_of("relu", 0, normalization), np.ones(8)
    with pytest.raises(UnsupportedError, match="linear"):
        held_cell(sae, ErrorBall(1.0, held=held), (0,), x, x, "outer")  # type: ignore[arg-type]
    assert held_cell(sae, ErrorBall(1.0, held="unreachable"), (0,), x, x, "outer").width == 8


def test_rank_and_basis() -> None:
    equal = np.array([[1.0, 0, 0], [2, 0, 0], [0, 1e-30, 0], [0, 0, 0]])
    cell = HeldCell(3, equal, (), ())
    assert cell.rank == 2
    assert not cell.trivial
    assert np.allclose(cell.free_part(np.ones(3)), [0, 0, 1])
    assert HeldCell(3, np.zeros((2, 3)), (), ()).rank == 0
    assert HeldCell(3, np.zeros((0, 3)), (), ()).basis.shape == (3, 0)
