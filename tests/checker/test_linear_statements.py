"""Linear worst cases as statements: what the solvers find is accepted, and no mutation makes the checker say more."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_verify.certificates.linear import Ball, linear_step, write_factor
from sae_verify.certificates.statements import write_statements
from sae_verify.checker import Rejected
from sae_verify.checker.files import digest_json
from sae_verify.checker.statements import Subject, check_statements
from sae_verify.checker.statements.check import prove
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError
from sae_verify.geometry.box import box_worst_case
from sae_verify.geometry.ellipsoid import ellipsoid_worst_case
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.worst_case import worst_case
from sae_verify.problem import ErrorBall
from sae_verify.sae import load_sae
from tests.support.tiny import ARCHITECTURES, tiny_sae

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


def setting(where: Path, held: str, seed: int = 0) -> tuple[Subject, ErrorBall, HeldCell, Array]:
    """The subject, the threat, the outer cell at one point, and a direction."""
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=8), rng.normal(size=8)
    threat = ErrorBall(0.5, "absolute", held, "x", HELD[held])  # type: ignore[arg-type]
    sae = load_sae(where).to(torch.float64)
    cell = held_cell(sae, threat, HELD[held] or (), x, x, "outer")
    return Subject(load_weights(where, None), x[None], where.parent), threat, cell, g


def step_of(where: Path, held: str, norm: str, seed: int = 0) -> tuple[Subject, dict[str, Any]]:
    subject, threat, cell, g = setting(where, held, seed)
    if norm == "l2":
        return subject, linear_step(subject, 0, threat, g, Ball("l2", 0.5), cell, worst_case(cell, g, 0.5))
    if norm == "linf":
        return subject, linear_step(subject, 0, threat, g, Ball("linf", 0.3), cell, box_worst_case(cell, g, 0.3))
    factor = np.tril(np.random.default_rng(1).normal(size=(8, 8))) + 2 * np.eye(8)
    stored = write_factor(factor, where.parent / "factor.npy")
    found = ellipsoid_worst_case(cell, g, 0.2, factor)
    return subject, linear_step(subject, 0, threat, g, Ball("ellipsoid", 0.2, stored), cell, found)


@pytest.mark.parametrize("norm", ["l2", "linf", "ellipsoid"])
@pytest.mark.parametrize("held", HELD)
def test_what_the_solvers_find_is_accepted(where: Path, held: str, norm: str) -> None:
    subject, step = step_of(where, held, norm)
    statement = prove(subject, step, "step")
    upper, lower = statement.values["upper"], statement.values["lower"]
    outer_only = held == "defended" and subject.sae.architecture == "topk"  # the cell itself is not convex
    if not outer_only:
        assert lower is not None
        tight = 1e-6 if norm == "linf" else 1e-9
        assert 0 <= upper - lower <= tight * max(1.0, abs(upper))
    for name in ("linear-worst-case", "linear-dual"):
        assert name in (statement.kind, statement.theorem)
    assert "point 0" in statement.text


def test_a_file_of_them(where: Path, tmp_path: Path) -> None:
    subject, first = step_of(where, "code", "l2")
    _, second = step_of(where, "code", "ellipsoid")
    sae = load_sae(where)
    path = write_statements(sae, [first, second], where.parent / "facts.cert", subject.points)
    accepted = check_statements(path)
    assert [s.values["norm"] for s in accepted.statements] == ["l2", "ellipsoid"]
    assert accepted.sae == subject.sae.digest
    assert not list(tmp_path.glob(".facts*"))
    (where.parent / "factor.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(Rejected, match="not the one"):
        check_statements(path)


MUTATIONS = 60


@pytest.mark.parametrize("norm", ["l2", "linf", "ellipsoid"])
@pytest.mark.parametrize("held", ["preactivations", "code", "unreachable"])
def test_mutants_prove_nothing_false(where: Path, held: str, norm: str) -> None:
    """Whatever is changed, an accepted step still speaks the truth, as the unchanged evidence knows it."""
    subject, step = step_of(where, held, norm)
    truth = prove(subject, step, "step").values
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(MUTATIONS):
        mutant = mutate(copy.deepcopy(step), rng)
        try:
            found = prove(subject, mutant, "step").values
        except Rejected:
            rejected += 1
            continue
        same_question = all(mutant[k] == step[k] for k in ("held", "features", "ball", "direction", "point"))
        if same_question and found["upper"] is not None:
            assert found["upper"] >= truth["lower"]
        if same_question and found["lower"] is not None:
            assert found["lower"] <= truth["upper"]
    assert rejected >= MUTATIONS // 4


def mutate(step: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    kind = rng.integers(0, 8)
    if kind == 0:
        step["upper"] -= abs(step["upper"]) * 10.0 ** rng.uniform(-7, 0) + 1e-9
    elif kind == 1:
        step["lower"] += abs(step["lower"]) * 10.0 ** rng.uniform(-7, 0) + 1e-9
    elif kind == 2:
        at = int(rng.integers(0, 8))
        step["delta"][at] += float(rng.choice([1e-3, -1e-3, 1.0, 1e200]))
    elif kind == 3:
        role = step["multipliers"]["x"][str(rng.choice(["equal", "upper", "decoder"]))]
        if role["values"]:
            at = int(rng.integers(0, len(role["values"])))
            role["values"][at] = float(rng.choice([-role["values"][at], 0.0, 1e6, role["values"][at] * (1 + 1e-6)]))
        step["upper"] -= 1e-6
    elif kind == 4:
        role = step["multipliers"]["x"][str(rng.choice(["equal", "upper", "decoder"]))]
        if role["features"]:
            at = int(rng.integers(0, len(role["features"])))
            role["features"][at] = int(rng.integers(0, 30))
    elif kind == 5:
        source, target = rng.permutation(["equal", "upper", "decoder"])[:2]
        roles = step["multipliers"]["x"]
        roles[target], roles[source] = roles[source], roles[target]
        step["upper"] -= 1e-6
    elif kind == 6:
        step["held"] = str(rng.choice(["free", "preactivations", "defended", "code", "unreachable", "all"]))
    else:
        step["ball"]["radius"] *= float(rng.choice([1.5, 10.0, -1.0]))
    return step


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"point": 1}, "index into the file's 1 points"),
        ({"direction": [1.0] * 7}, "must be 8 numbers"),
        ({"upper": None}, "only then"),
        ({"delta": None, "lower": 0.0}, "only then"),
        ({"theorem": "pinned"}, "must be linear-dual"),
        ({"kind": "linear"}, "is not known"),
        ({"ball": {"norm": "l1", "radius": 1.0, "factor": None}}, "must be one of"),
        ({"ball": {"norm": "l2", "radius": 1.0, "factor": {"path": "x", "sha256": "y"}}}, "must be null"),
        ({"features": [1, 1]}, "repeats a feature"),
        ({"features": [24], "held": "defended"}, "features below 24"),
        ({"features": [2]}, "must be null for held='code'"),
        ({"extra": 1}, "expected the keys"),
    ],
)
def test_malformed_steps(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    subject, step = step_of(tiny_sae(tmp_path / "sae", "jumprelu"), "code", "l2")
    with pytest.raises(Rejected, match=reason):
        prove(subject, step | change, "step")


def test_edited_and_hostile_files(tmp_path: Path) -> None:
    where = tiny_sae(tmp_path / "sae", "relu")
    subject, step = step_of(where, "code", "l2")
    path = write_statements(load_sae(where), [step], tmp_path / "facts.cert", subject.points)
    content = json.loads(path.read_text())

    def stamped(**change: Any) -> str:
        unsigned = {k: v for k, v in (content | change).items() if k != "sha256"}
        return json.dumps(unsigned | {"sha256": digest_json(unsigned)})

    for text, reason in (
        (path.read_text().replace("relu", "rely").replace('"tool"', '"tool"').replace("held", "hold"), "edited|keys"),
        (stamped(version=2), "format and version"),
        (stamped(steps=[]), "list of 1 to"),
        (stamped(steps="x"), "list of 1 to"),
        (stamped(points=[[1.0]]), "rows of 8"),
        (stamped(semantics="floats"), "semantics"),
        (stamped(sae=content["sae"] | {"sha256": "0" * 64}), "speaks of 0000"),
        (stamped(sae=content["sae"] | {"path": "nowhere"}), "is not at"),
        (path.read_text()[:-40], "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(Rejected, match=reason):
            check_statements(path)


def test_evidence_of_another_question_is_refused_when_written(tmp_path: Path) -> None:
    subject, threat, cell, g = setting(tiny_sae(tmp_path / "sae", "jumprelu"), "code")
    found = worst_case(cell, g, 0.5)
    other = ErrorBall(0.5, "absolute", "preactivations", "x", (1,))
    with pytest.raises(InputError, match="rejects the multipliers"):
        linear_step(subject, 0, other, g, Ball("l2", 0.5), cell, found)
    del threat
