"""Statements about the size of held cells: accepted where true, and true wherever accepted, with ties and mutants."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from geometry.cells import cell_of
from support.tiny import ARCHITECTURES, tiny_sae

from sae_verify.certificates.cell_size import bounded_step, inner_radius_step, unbounded_step
from sae_verify.certificates.statements import write_statements
from sae_verify.checker import Rejected
from sae_verify.checker.admissible import Constraints
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.cell import Cell
from sae_verify.checker.multipliers import Multipliers, Sparse, read_multipliers
from sae_verify.checker.sae import Sae
from sae_verify.checker.statements import Subject, cell_bounded, cell_unbounded, check_statements
from sae_verify.checker.statements.cell_bounded import proven_size
from sae_verify.checker.statements.cell_size import outside, proven_radius
from sae_verify.checker.statements.cell_unbounded import proven_ray
from sae_verify.checker.statements.check import prove
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.cell_size import inner_radius, inscribed_ball
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.problem import ErrorBall
from sae_verify.sae import SAE, LayerNorm, load_sae

from .test_held_sets import GRID, KINDS, D, M, encode, random_sae

HELD: dict[str, tuple[int, ...] | None] = {
    "free": None,
    "preactivations": (0, 3, 5),
    "defended": (0, 3, 5, 7, 9),
    "code": None,
    "unreachable": None,
}


@pytest.fixture(params=ARCHITECTURES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_sae(tmp_path / "sae", request.param)


def setting(where: Path, held: str, seed: int = 0) -> tuple[Subject, ErrorBall, HeldCell, HeldCell]:
    """The subject, the threat, the outer and the inner cell at one point."""
    x = np.random.default_rng(seed).normal(size=8)
    threat = ErrorBall(0.5, "absolute", held, "x", HELD[held])  # type: ignore[arg-type]
    sae: SAE = load_sae(where).to(torch.float64)
    outer, inner = (held_cell(sae, threat, HELD[held] or (), x, x, side) for side in ("outer", "inner"))
    return Subject(load_weights(where, None), x[None], where.parent), threat, outer, inner


def steps_of(where: Path, held: str, seed: int = 0) -> tuple[Subject, list[dict[str, Any]], HeldCell, HeldCell]:
    """Every statement that can be made of a cell."""
    subject, threat, outer, inner = setting(where, held, seed)
    steps = [inner_radius_step(subject, 0, threat, outer)]
    ball = inscribed_ball(inner, 10.0)
    if np.isfinite(ball.radius):
        steps.append(inner_radius_step(subject, 0, threat, centre=ball.centre))
    far, near = recession(outer), recession(inner)
    if far.verdict == "bounded":
        steps.append(bounded_step(subject, 0, threat, outer, far))
    if near.verdict == "unbounded":
        steps.append(unbounded_step(subject, 0, threat, near))
    return subject, steps, outer, inner


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("seed", range(3))
def test_what_the_search_finds_is_accepted_and_tight(where: Path, held: str, seed: int) -> None:
    subject, steps, outer, inner = steps_of(where, held, seed)
    selects_apart = held == "defended" and subject.sae.architecture == "topk"  # no convex set is the cell
    kinds = [step["kind"] for step in steps]
    assert kinds.count("cell-bounded") + kinds.count("cell-unbounded") == (0 if selects_apart else 1)
    for step in steps:
        statement = prove(subject, copy.deepcopy(step), "step")
        assert "point 0" in statement.text
        values = statement.values
        if step["kind"] == "cell-inner-radius" and step["centre"] is None:
            expected = inner_radius(inner)
            assert values["radius"] == pytest.approx(min(expected, 1e12), rel=1e-8)
            assert (values["upper"] is None) == (not np.isfinite(expected) or selects_apart)
            if values["upper"] is not None:
                assert values["radius"] <= values["upper"] <= inner_radius(outer) * (1 + 1e-6)
        elif step["kind"] == "cell-inner-radius":
            assert values["radius"] == pytest.approx(inscribed_ball(inner, 10.0).radius, rel=1e-7)
        elif step["kind"] == "cell-bounded":
            assert values["radius"] == pytest.approx(recession(outer).radius, rel=1e-6, abs=1e-12)


def test_a_file_of_them(where: Path) -> None:
    subject, steps, *_ = steps_of(where, "code")
    path = write_statements(load_sae(where), steps, where.parent / "cell.cert", subject.points)
    accepted = check_statements(path)
    assert [s.kind for s in accepted.statements] == [step["kind"] for step in steps]


def test_a_scaled_input(tmp_path: Path) -> None:
    from sae_verify.sae import InputScale

    where = tiny_sae(tmp_path / "sae", "jumprelu", normalization=InputScale(0.37))
    x = np.random.default_rng(0).normal(size=8)
    threat = ErrorBall(0.5, "absolute", "code", "x")
    cell = held_cell(load_sae(where, input_scale=0.37).to(torch.float64), threat, (), x, x, "outer")
    subject = Subject(load_weights(where, 0.37), x[None], where.parent)
    step = inner_radius_step(subject, 0, threat, cell)
    assert prove(subject, step, "step").values["radius"] == pytest.approx(inner_radius(cell), rel=1e-8)
    assert prove(subject, bounded_step(subject, 0, threat, cell, recession(cell)), "step").values["radius"] > 0


@pytest.mark.parametrize("held", ["preactivations", "code"])
def test_a_normalisation_that_is_not_linear_is_rejected(tmp_path: Path, held: str) -> None:
    where = tiny_sae(tmp_path / "sae", "relu", normalization=LayerNorm())
    threat = ErrorBall(0.5, "absolute", held, "x", HELD[held])  # type: ignore[arg-type]
    subject = Subject(load_weights(where, None), np.ones((1, 8)), where.parent)
    with pytest.raises(InputError, match="no polyhedron"):
        inner_radius_step(subject, 0, threat)


# --- true wherever accepted: small integer SAEs against every perturbation of a grid ------------------------------


def kept(sae: Any, x: Array, moves: Array, held: str, features: tuple[int, ...]) -> np.ndarray:
    """Which perturbations keep what is held, from the format's definition, exactly."""
    if held == "unreachable":
        return ~(moves @ sae.W_dec[list(features)].T).any(axis=1)
    if held == "preactivations":
        return ~(moves @ sae.W_enc[:, list(features)]).any(axis=1)
    before, after = encode(sae, x[None])[0], encode(sae, x + moves)
    chosen = list(range(M)) if held == "code" else list(features)
    return (after[:, chosen] == before[chosen]).all(axis=1)


def equalities(sae: Any, x: Array, held: str, features: tuple[int, ...]) -> Array:
    """The rows that everything held obeys with equality: those of features that are on, from the definition."""
    if held == "unreachable":
        return sae.W_dec[list(features)]
    chosen = np.arange(M) if held == "code" else np.array(features)
    on = np.ones(len(chosen), dtype=bool) if held == "preactivations" else encode(sae, x[None])[0][chosen] != 0
    return sae.W_enc[:, chosen[on]].T


def exact_cell(sae: Any, x: Array, held: str, features: tuple[int, ...]) -> Cell:
    return Cell(sae, {"x": Ball.exact(x)}, held, None if held == "code" else features, ())


@pytest.mark.parametrize("held", ["code", "defended", "preactivations", "unreachable"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ball_that_is_accepted_holds_everything(kind: str, held: str) -> None:
    """All of the grid that obeys the equalities within the proven radius is held, and the radius is not idle."""
    rng = np.random.default_rng(1)
    tested = 0
    for _ in range(100):
        sae, x = random_sae(rng, kind), rng.integers(-2, 3, D).astype(float)
        features = tuple(sorted(rng.choice(M, 3, replace=False).tolist()))
        cell = exact_cell(sae, x, held, features)
        rows = equalities(sae, x, held, features)
        obedient = GRID[~(GRID @ rows.T).any(axis=1)]  # zero among them
        centre = obedient[rng.integers(len(obedient))] * 0.5 if rng.random() < 0.5 else np.zeros(D)
        try:
            radius = proven_radius(cell, centre)
        except Rejected:
            continue
        moves = np.concatenate([GRID, GRID * 0.25, GRID * 2.0**-6]) + centre
        near = (np.linalg.norm(moves - centre, axis=1) <= radius) & ~(moves @ rows.T).any(axis=1)
        assert kept(sae, x, moves[near], held, features).all()
        tested += int(near.sum() > 1)
    assert tested >= 5


@pytest.mark.parametrize("held", ["code", "defended", "preactivations", "unreachable"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_is_accepted_is_never_exceeded(kind: str, held: str) -> None:
    """Random multipliers of features, most of which prove nothing: what is proven holds for everything that is held."""
    rng = np.random.default_rng(2)
    accepted, moves = 0, np.concatenate([GRID, 64.0 * GRID])
    for _ in range(150):
        sae, x = random_sae(rng, kind), rng.integers(-2, 3, D).astype(float)
        features = tuple(sorted(rng.choice(M, 4, replace=False).tolist()))
        evidence = guess(sae, x, held, features, rng)
        try:
            size = proven_size(exact_cell(sae, x, held, features), evidence)
        except Rejected:
            continue
        if not np.isfinite(size):
            continue
        accepted += 1
        held_ones = moves[kept(sae, x, moves, held, features)]
        assert np.linalg.norm(held_ones, axis=1).max(initial=0.0) <= size * (1 + 1e-12)
    assert accepted >= (0 if held == "defended" and kind.startswith("topk") else 3)


def guess(sae: Any, x: Array, held: str, features: tuple[int, ...], rng: np.random.Generator) -> Multipliers:
    """Multipliers with a chance: found by the search on the cell as defined, sometimes spoilt."""
    rows = equalities(sae, x, held, features)
    chosen = np.arange(M) if held == "code" else np.array(features)
    on = np.ones(len(chosen), dtype=bool) if held == "preactivations" else encode(sae, x[None])[0][chosen] != 0
    nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
    if held in ("preactivations", "unreachable"):
        names = Sparse(chosen, np.zeros(len(chosen)))
        return Multipliers({"x": (nothing, nothing, names) if held == "unreachable" else (names, nothing, nothing)})

    if rng.random() < 0.3:  # positive, and cancelling by luck alone
        lucky = rng.integers(1, 4, size=int((~on).sum())).astype(float)
        return Multipliers({"x": (Sparse(chosen[on], np.zeros(int(on.sum()))), Sparse(chosen[~on], lucky), nothing)})
    found = recession(cell_of(D, rows, (1.0, sae.W_enc[:, chosen[~on]].T, np.ones(int((~on).sum())))))
    upper = found.upper[0] if found.upper else (np.zeros(0, dtype=np.intp), np.zeros(0))
    values = upper[1] * (1 + 0.01 * rng.normal(size=len(upper[1])) * (rng.random() < 0.3))
    return Multipliers({"x": (Sparse(chosen[on], found.equal), Sparse(chosen[~on][upper[0]], values), nothing)})


@pytest.mark.parametrize("held", ["code", "defended", "preactivations", "unreachable"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ray_that_is_accepted_stays(kind: str, held: str) -> None:
    rng = np.random.default_rng(3)
    accepted = 0
    for _ in range(100):
        sae, x = random_sae(rng, kind), rng.integers(-2, 3, D).astype(float)
        features = tuple(sorted(rng.choice(M, 3, replace=False).tolist()))
        rows = equalities(sae, x, held, features)
        obedient = GRID[~(GRID @ rows.T).any(axis=1)]
        rises = obedient @ sae.W_enc
        likely = obedient[
            (rises[:, list(features)] <= 0).all(axis=1) if held == "defended" else (rises <= 0).all(axis=1)
        ]
        pool = np.concatenate([GRID[:1], obedient[-1:], likely[:6], likely[-6:]])
        for direction in pool:
            still = np.flatnonzero(direction @ sae.W_enc == 0)[: int(rng.integers(0, 3))]
            try:
                away = proven_ray(exact_cell(sae, x, held, features), direction, still)
            except Rejected:
                continue
            assert away <= 1e-12 * np.linalg.norm(direction)  # on this grid, what is nearly orthogonal is orthogonal
            accepted += 1
            times = np.array([0.0, 2.0**-20, 0.5, 1.0, 1024.0])[:, None] * direction
            assert kept(sae, x, times, held, features).all()
    assert accepted >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_outside_is_outside(kind: str) -> None:
    rng = np.random.default_rng(4)
    accepted = 0
    for _ in range(40):
        sae, x = random_sae(rng, kind), rng.integers(-2, 3, D).astype(float)
        rows = equalities(sae, x, "code", ())
        obedient = GRID[~(GRID @ rows.T).any(axis=1)]
        for delta in obedient[rng.choice(len(obedient), 12)]:
            try:
                length = outside(exact_cell(sae, x, "code", ()), int(rng.integers(M)), delta)
            except Rejected:
                continue
            accepted += 1
            assert length >= np.linalg.norm(delta)
            assert not kept(sae, x, delta[None], "code", ())[0]
    assert accepted >= 5


# --- mutants ------------------------------------------------------------------------------------------------------

MUTATIONS = 60


@pytest.mark.parametrize("held", ["preactivations", "defended", "code", "unreachable"])
def test_mutants_prove_nothing_false(where: Path, held: str) -> None:
    """Whatever is changed, an accepted step with the same question says nothing that the search knows to be false."""
    subject, steps, outer, inner = steps_of(where, held)
    inside, rng = inner_radius(inner), np.random.default_rng(0)
    around = {str(s["centre"]): s["radius"] for s in steps if s["kind"] == "cell-inner-radius"}
    rejected = 0
    for _ in range(MUTATIONS):
        step = steps[int(rng.integers(len(steps)))]
        mutant = mutate(copy.deepcopy(step), rng)
        try:
            found = prove(subject, mutant, "step").values
        except Rejected:
            rejected += 1
            continue
        if any(mutant[key] != step[key] for key in ("held", "features", "point")):
            continue
        if step["kind"] == "cell-inner-radius" and str(mutant["centre"]) in around:
            if np.isfinite(inside):  # otherwise every radius is true
                assert found["radius"] <= around[str(mutant["centre"])] * (1 + 1e-8)
            if found["upper"] is not None:
                assert found["upper"] >= inside * (1 - 1e-9)
        if step["kind"] == "cell-bounded":
            assert found["radius"] >= inscribed_ball(outer, 10.0).radius
        if step["kind"] == "cell-unbounded":
            assert recession(outer).verdict == "unbounded"
    assert rejected >= MUTATIONS // 4


def mutate(step: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    key = str(rng.choice([k for k in step if k not in ("kind", "theorem")]))
    value = step[key]
    if isinstance(value, float):
        step[key] = float(rng.choice([value * 1.001 + 1e-3, value * 0.999 - 1e-9, -value, 1e300, 0.0, np.inf, np.nan]))
    elif isinstance(value, list) and value and isinstance(value[0], float):
        at = int(rng.integers(len(value)))
        value[at] = float(rng.choice([value[at] + 1e-3, -value[at], 1e200, np.nan, value[at] * 1e8]))
    elif isinstance(value, list):
        step[key] = [*value, int(rng.integers(0, 30))] if rng.random() < 0.5 else value[1:]
    elif isinstance(value, dict) and "delta" in value:
        part = str(rng.choice(["feature", "delta", "upper"]))
        if part == "feature":
            value["feature"] = int(rng.integers(0, 26))
        elif part == "upper":
            value["upper"] = float(rng.choice([value["upper"] * 0.99, 0.0, -1.0, np.nan]))
        else:
            value["delta"] = [float(v) for v in np.array(value["delta"]) * rng.choice([0.5, -1.0, 1e250])]
    elif isinstance(value, dict):
        role = (
            value.get("x", {"upper": {"values": []}})[str(rng.choice(["equal", "upper", "decoder"]))] if value else {}
        )
        if role.get("values"):
            at = int(rng.integers(len(role["values"])))
            what = rng.integers(3)
            if what == 0:
                role["values"][at] *= float(rng.choice([-1.0, 0.0, 1.01, 1e300]))
            elif what == 1:
                role["features"][at] = int(rng.integers(0, 26))
            else:
                del role["values"][at], role["features"][at]
        if "radius" in step:
            step["radius"] = step["radius"] * float(rng.choice([0.9, 1.0])) - 1e-9
    else:
        step[key] = [value, None, 5, "code", [0, 1], {}][int(rng.integers(6))]
    return step


def test_claims_beyond_what_is_proven(where: Path) -> None:
    subject, steps, *_ = steps_of(where, "code")
    for step in steps:
        if step["kind"] == "cell-inner-radius":
            with pytest.raises(Rejected, match="exceeds"):
                prove(subject, {**step, "radius": float(np.nextafter(step["radius"], np.inf))}, "step")
            with pytest.raises(Rejected, match="negative"):
                prove(subject, {**step, "radius": -1e-3}, "step")
        if step["kind"] == "cell-bounded":
            with pytest.raises(Rejected, match="may reach"):
                prove(subject, {**step, "radius": float(np.nextafter(step["radius"], 0.0))}, "step")


def test_multipliers_that_do_not_span(where: Path) -> None:
    subject, threat, outer, _ = setting(where, "code")
    step = bounded_step(subject, 0, threat, outer, recession(outer))
    equal, upper = (step["multipliers"]["x"][role] for role in ("equal", "upper"))
    upper["features"], upper["values"] = upper["features"][:1], upper["values"][:1]
    with pytest.raises(Rejected, match="span"):
        prove(subject, step, "step")
    equal["features"], equal["values"] = [], []
    upper["features"], upper["values"] = [], []
    with pytest.raises(Rejected, match="span"):
        prove(subject, step, "step")


@pytest.mark.parametrize("spoil", [0.0, 0.5, 0.9, -1.0, np.nan])
def test_any_left_inverse_is_safe(spoil: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is assumed of the left inverse: a wrong one proves a size that is still true, or nothing."""
    make = cell_bounded.left_inverse

    def wrong(equal: Array, rows: Array, f: Array) -> tuple[Array, Array]:
        at_equal, inverse = make(equal, rows, f)
        return at_equal, inverse * spoil

    monkeypatch.setattr(cell_bounded, "left_inverse", wrong)
    cube = orthant(np.concatenate([np.eye(D), -np.eye(D)], axis=1))
    nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
    evidence = Multipliers({"x": (nothing, Sparse(np.arange(2 * D), np.ones(2 * D)), nothing)})
    try:
        size = proven_size(cube, evidence)
    except Rejected:
        return
    assert size >= D**0.5  # all corners (+-1, +-1, +-1) are held


def orthant(columns: Array) -> Cell:
    """A ReLU SAE at zero whose features are all off, with room 1 along each of these columns, (d, m)."""
    m = columns.shape[1]
    sae = Sae("relu", columns, np.ones((m, D)), np.zeros(D), {"b_enc": -np.ones(m)}, False, "none", 1.0, "")
    return Cell(sae, {"x": Ball.exact(np.zeros(D))}, "code", None, ())


def test_positive_multipliers_that_do_not_cancel() -> None:
    """The orthant's rows span, and their multipliers are positive; it is unbounded all the same."""
    nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
    for values in (np.ones(D), np.array([1.0, 1e-3, 1e-3])):
        evidence = Multipliers({"x": (nothing, Sparse(np.arange(D), values), nothing)})
        with pytest.raises(Rejected, match="cancel"):
            proven_size(orthant(np.eye(D)), evidence)


@pytest.mark.parametrize(
    ("direction", "still", "good"),
    [
        ([-1.0, -1.0, -1.0], [], True),
        ([-1.0, -1.0, 2.0**-20], [], False),
        ([-1.0, -1.0, 2.0**-60], [], False),
        ([-1.0, -1.0, 0.0], [], False),  # it may rise, in a neighbour that rounding cannot tell
        ([-1.0, -1.0, 0.0], [2], True),
        ([-1.0, -1.0, 2.0**-60], [2], True),  # its neighbour without the last entry
        ([-1.0, -1.0, 2.0**-10], [2], False),
        ([0.0, -1.0, 0.0], [0, 2], True),
        ([0.0, 0.0, 0.0], [0, 1, 2], False),
        ([1.0, -1.0, 0.0], [2], False),
    ],
)
def test_rays_of_an_orthant(direction: list[float], still: list[int], good: bool) -> None:
    cell, chosen = orthant(np.eye(D)), np.array(still, dtype=np.intp)
    if good:
        assert proven_ray(cell, np.array(direction), chosen) <= 2.0**-50
        return
    with pytest.raises(Rejected):
        proven_ray(cell, np.array(direction), chosen)


@pytest.mark.parametrize(("room", "strict", "good"), [(0.0, True, False), (0.0, False, True), (-1.0, False, False)])
def test_a_row_that_rests_needs_room(room: float, strict: bool, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Constraints(np.zeros((0, D)), np.eye(D)[:1], np.array([room]), strict)]
    monkeypatch.setattr(cell_unbounded, "parts_of", lambda _: (parts, np.zeros((0, D))))
    arguments = orthant(np.eye(D)), np.array([0.0, -1.0, -1.0]), np.array([0], dtype=np.intp)
    if good:
        proven_ray(*arguments)
        return
    with pytest.raises(Rejected, match="no room"):
        proven_ray(*arguments)


def test_too_many_rows_are_refused_at_once() -> None:
    sae = random_sae(np.random.default_rng(0), "relu")
    many = Sparse(np.arange(9 * D + 300), np.ones(9 * D + 300))
    nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
    with pytest.raises(Rejected, match="fewer are enough"):
        proven_size(exact_cell(sae, np.zeros(D), "code", ()), Multipliers({"x": (nothing, many, nothing)}))


def test_a_ray_of_zero_is_none(where: Path) -> None:
    subject, threat, *_ = setting(where, "free")
    step = unbounded_step(subject, 0, threat, recession(setting(where, "free")[3]))
    with pytest.raises(Rejected, match="zero"):
        prove(subject, {**step, "direction": [0.0] * 8}, "step")


def test_steps_that_cannot_be_made(where: Path) -> None:
    subject, threat, outer, _ = setting(where, "code")
    found = recession(outer)
    assert found.verdict == "bounded"
    with pytest.raises(InputError, match="bounded"):
        unbounded_step(subject, 0, threat, found)
    few = replace(found, upper=tuple((features[:1], values[:1]) for features, values in found.upper))
    with pytest.raises(InputError, match="rejects"):
        bounded_step(subject, 0, threat, outer, few)
    with pytest.raises(InputError, match="names the features"):
        inner_radius_step(subject, 0, ErrorBall(0.5, "absolute", "defended", "x"))
    x = subject.points[0]
    sae = load_sae(where).to(torch.float64)
    both = held_cell(sae, ErrorBall(0.5, "absolute", "code", "both"), (), x, x, "outer")
    with pytest.raises(UnsupportedError, match="one residual"):
        bounded_step(subject, 0, threat, both, recession(both))
    assert read_multipliers({}, "m").points == {}
