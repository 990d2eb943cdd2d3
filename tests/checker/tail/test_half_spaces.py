"""Half-spaces within a region: what they lower a bound to holds for every perturbation that obeys them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import tiny_model, tiny_sae

from sae_verify.bounds import ThroughBlocks
from sae_verify.bounds.half_spaces import weigh
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.checker import Rejected
from sae_verify.checker.multipliers import Sparse
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.halves import Halves, weighed, within
from sae_verify.checker.tail.proof import Done, Weighed, read_node, verify, write_node
from sae_verify.checker.tail.readout import Affine
from sae_verify.checker.tail.region import Region
from sae_verify.geometry.instance import Instance, prepare
from sae_verify.model import load_model
from sae_verify.problem import Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.sae import load_sae

D = 6


def cut_region(rng: np.random.Generator, radius: float, cuts: int) -> Region:
    region = Region.whole(D, radius)
    for _ in range(cuts):
        normal = rng.normal(size=D)
        region = region.cut(normal / np.linalg.norm(normal), float(rng.uniform(-0.5, 0.4)) * radius)
    return region


@pytest.mark.parametrize("cuts", [0, 1, 2])
def test_the_lowered_bound_holds_where_the_half_spaces_do(cuts: int) -> None:
    rng = np.random.default_rng(cuts)
    inside = close = 0
    for _ in range(60):
        radius, n = 10 ** rng.uniform(-3, 3), int(rng.integers(1, 8))
        region = cut_region(rng, radius, cuts)
        frame = region.frame()
        if frame is None:
            continue
        basis = np.linalg.qr(rng.normal(size=(D, D)))[0]
        rows, room = rng.normal(size=(n, D)), np.abs(rng.normal(size=n)) * radius * rng.choice([0.0, 0.1, 1.0])
        gradient, constant = rng.normal(size=D) * rng.choice([1.0, 1e-6]), float(rng.normal())
        bound = Affine(Domain(frame.box.shape[1]), constant, gradient, 0.0, 0.0, {})
        values = np.abs(rng.normal(size=n)) * rng.choice([0.01, 1.0]) * np.linalg.norm(gradient) / radius
        low = weighed(bound, *within(rows, room, basis, 0.0, region, frame), values)
        y = rng.normal(size=(4000, D))
        y *= radius * rng.random((4000, 1)) ** (1 / D) / np.linalg.norm(y, axis=1, keepdims=True)
        good = (rows @ (basis @ y.T) <= room[:, None]).all(axis=0)
        good &= ((region.low <= y @ region.axes) & (y @ region.axes <= region.high)).all(axis=1)
        t = np.linalg.solve(frame.columns, (y[good] - frame.centre).T).T
        exact, lowered = constant + t @ gradient, low.constant + t @ low.gradient
        assert (exact <= lowered + 1e-12 * (abs(low.constant) + np.abs(t) @ np.abs(low.gradient))).all()
        inside += good.sum()
        close += bool(good.any() and low.top < bound.top)
    assert inside > 200
    assert close > 0


def test_what_is_named_is_found_and_nothing_else() -> None:
    halves = Halves({"x": np.array([7, 2, 9]), "h": np.array([2])}, np.eye(4), np.arange(4.0))
    named = {"h": Sparse(np.array([2]), np.array([0.5])), "x": Sparse(np.array([9, 7]), np.array([1.0, 2.0]))}
    rows, values = halves.find(named)
    assert dict(zip(rows.tolist(), values.tolist(), strict=True)) == {2: 1.0, 0: 2.0, 3: 0.5}
    back = halves.name(rows, values)
    assert halves.find(back)[0].tolist() == rows.tolist()
    for point, feature, value in (("x", 3, 1.0), ("h", 7, 1.0), ("z", 2, 1.0), ("x", 2, -1e-9)):
        with pytest.raises(Rejected):
            halves.find({point: Sparse(np.array([feature]), np.array([value]))})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, Instance, Any]:
    place: Path = tmp_path_factory.mktemp("halves")
    model = load_model(tiny_model(place / "model", "llama", layers=2))
    sae = load_sae(tiny_sae(place / "sae", "jumprelu", hook="blocks.0.hook_resid_post", bias=-1.0, m=32))
    clamp, readout = Clamp.set({1: 1.0, 2: 0.0}), LogitDifference(1, 2)
    problem = Problem(model, sae, [[3, 5, 7, 2]], clamp, ErrorBall(0.15, held="code"), readout)
    (instance,) = prepare(problem).instances
    return problem, instance, open_problem(problem, instance, locate_weights(problem))


def test_through_a_block_they_lower_the_bound_and_the_checker_agrees(opened: tuple[Problem, Instance, Any]) -> None:
    _, instance, setting = opened
    relaxation, radius = setting.relaxation, 0.15 * instance.norm_h
    bare = dataclasses.replace(relaxation, halves=None)
    plain, held = (ThroughBlocks(one, setting.functional, 1, 0.0).bound(instance, radius) for one in (bare, relaxation))
    assert plain is not None
    assert held is not None
    assert held.value < plain.value - 1e-3
    assert isinstance(held.regions, Weighed)
    tree: Any = write_node(held.regions)
    functional = setting.functional(None)
    assert verify(relaxation, functional, radius, held.value, read_node(tree, "regions", D + 2, [99])) == 1
    with pytest.raises(Rejected, match="below the claim"):
        verify(relaxation, functional, radius, held.value, Done())
    with pytest.raises(Rejected, match="no half-spaces"):
        verify(bare, functional, radius, held.value, held.regions)
    (point,) = tree["half_spaces"]
    changes: tuple[dict[str, list[Any]], ...] = ({"features": [10**6]}, {"values": [-1.0]}, {"features": [1, 1]})
    for change in changes:
        part = tree["half_spaces"][point]
        wrong = {key: [*part[key], *change.get(key, part[key][:1])] for key in part}
        forged = {"half_spaces": {point: wrong}, "then": "done"}
        with pytest.raises(Rejected):
            verify(relaxation, functional, radius, held.value, read_node(forged, "regions", D + 2, [99]))


def test_multipliers_are_not_worse_than_none(opened: tuple[Problem, Instance, Any]) -> None:
    _, instance, setting = opened
    relaxation, functional = setting.relaxation, setting.functional(None)
    for share in (0.02, 0.1, 0.2):
        region = relaxation.ball(share * instance.norm_h)
        frame = region.frame()
        assert frame is not None
        bound = relaxation.bound(region, frame, functional, instance.defended + 0.3)
        found = weigh(relaxation, region, frame, bound)
        assert found is None or found[1].top < bound.top


def test_only_a_region_that_is_done_or_cut_has_multipliers() -> None:
    split = {"axis": None, "normal": [1.0, 0.0], "at": [], "parts": ["done"]}
    for then in (split, {"half_spaces": {"x": {"features": [], "values": []}}, "then": "done"}):
        with pytest.raises(Rejected, match="done or cut"):
            read_node({"half_spaces": {"x": {"features": [], "values": []}}, "then": then}, "regions", 2, [99])
    with pytest.raises(Rejected, match="by point"):
        read_node({"half_spaces": {}, "then": "done"}, "regions", 2, [99])
