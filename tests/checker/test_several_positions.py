"""Certificates about several perturbed positions: true, by a judge that runs every position anew, and changed ones."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny_model, tiny_sae

from sae_verify.certificates.replay import replay_certificate
from sae_verify.checker import Rejected, Report, check
from sae_verify.geometry.instance import prepare
from sae_verify.model import load_model
from sae_verify.pipeline import certify
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.sae import load_sae

from .cases import stamped
from .oracle import Claim, exactly_admissible

PROMPT = [3, 5, 7, 2, 11]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make one certificate."""

    family: str
    positions: int
    layers: int = 2
    held: str = "preactivations"
    clamp: Clamp = Clamp.set({1: 1.0, 2: 0.0, 5: 0.5})  # noqa: RUF009 - frozen
    radius: float = 0.02


RECIPES = {
    "two of gpt2": Recipe("gpt2", 2),
    "three of gemma2, at its window": Recipe("gemma2", 3, clamp=Clamp.scale({1: 0.0, 4: 2.0}, positions="last")),
    "the whole prompt of llama": Recipe("llama", 5, clamp=Clamp.set({1: 1.0, 2: 0.0}, positions=[1, 4])),
    "no block": Recipe("llama", 2, layers=1, held="code", radius=0.3),
}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name.startswith("t") and name != "two of gpt2" else ())
    for name in RECIPES
]


@dataclasses.dataclass(frozen=True)
class Made:
    """A certificate as JSON data, its file, and where its weights are."""

    content: dict[str, Any]
    path: Path
    sae: Path
    model: Path


Make = Callable[[str], Made]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @cache
    def make(name: str) -> Made:
        recipe, directory = RECIPES[name], tmp_path_factory.mktemp("several")
        model = tiny_model(directory / "model", recipe.family, layers=recipe.layers)
        sae = tiny_sae(directory / "sae", "jumprelu", m=24, bias=-0.6)
        threat = ErrorBall(recipe.radius, held=recipe.held, positions=recipe.positions)  # type: ignore[arg-type]
        problem = Problem(
            load_model(model), load_sae(sae), [PROMPT], recipe.clamp, threat, LogitDifference(1, 2), AtMost(0.0)
        )
        with np.errstate(all="ignore"):
            # A little above what is reached without a perturbation, so that something is proved.
            problem = dataclasses.replace(problem, claim=AtMost(prepare(problem).instances[0].defended + 0.05))
            (result,) = certify(problem, out=directory, effort=2)
        assert result.certificate is not None
        return Made(json.loads(result.certificate.read_text()), result.certificate, sae, model)

    return make


def checked(case: Made, content: Any, directory: Path) -> Report | None:
    path = directory / "mutant.cert"
    path.write_text(json.dumps(stamped(content)))
    try:
        return check(path, sae=case.sae, model=case.model)
    except Rejected:
        return None


def claims(case: Made, content: dict[str, Any]) -> list[Claim]:
    """The claim as each perturbed position sees it: its residual is the last of a shorter prompt."""
    problem, found = content["problem"], []
    tokens, rows = problem["tokens"], [*content["context"], content["x"]]
    where = problem["clamp"]["positions"]
    threat = {key: value for key, value in problem["threat"].items() if key != "positions"}
    for position in range(len(tokens) - problem["threat"].get("positions", 1), len(tokens)):
        last = position == len(tokens) - 1
        acts = where == "all" or (last if where == "last" else position in where)
        clamp = {**problem["clamp"], "positions": [position] if acts else [len(tokens)]}
        asked = {**problem, "tokens": tokens[: position + 1], "clamp": clamp, "threat": threat}
        inner = {**content, "problem": asked, "x": rows[position], "context": []}
        found.append(Claim.of(inner, case.sae, case.model))
    return found


def readout(case: Made, content: dict[str, Any]) -> Any:
    """The readout at perturbations (p, d) of the last positions, in torch, every position run anew."""
    whole = Claim.of(content, case.sae, case.model)
    w, constant = whole.functional(None)
    states = np.concatenate([whole.earlier, whole.h[None]]).astype(np.float64)
    weight, eps = torch.from_numpy(w.astype(np.float64)), float(whole.d_epsilon)

    def value(delta: torch.Tensor) -> torch.Tensor:
        push = torch.cat([torch.zeros(len(states) - len(delta), delta.shape[1], dtype=torch.float64), delta])
        z = whole.tail.final(torch.from_numpy(states) + push, whole.first_after)
        z = z - z.mean() if whole.model["centred"] else z
        return weight @ z / (z @ z + eps).sqrt() + float(constant)

    return value


def highest(case: Made, content: dict[str, Any], radius: float, seed: int = 0) -> float:
    """What ascent finds in the ball, each position within its own equalities."""
    parts, value = claims(case, content), readout(case, content)
    projections = []
    for part in parts:
        equal = part.cell[0].astype(np.float64)
        projections.append(torch.from_numpy(np.eye(equal.shape[1]) - np.linalg.pinv(equal) @ equal))
    rng, best = np.random.default_rng(seed), -np.inf

    def inside(delta: torch.Tensor) -> torch.Tensor:
        free = torch.stack([p @ row for p, row in zip(projections, delta, strict=True)])
        return free * min(1.0, radius / max(float(free.norm()), 1e-300))

    for start in range(3):
        delta = inside(torch.from_numpy(radius * (start > 0) * rng.normal(size=(len(parts), len(parts[0].x)))))
        for step in np.geomspace(1.0, 0.03, 25):
            leaf = delta.clone().requires_grad_()
            found = value(leaf)
            best = max(best, float(found.detach()))
            (gradient,) = torch.autograd.grad(found, leaf)
            delta = inside(delta + radius * step * gradient / max(float(gradient.norm()), 1e-300))
    return best


def judge(case: Made, content: dict[str, Any], report: Report) -> None:
    """Bounds are above what ascent finds, witnesses are admissible at every position, and within what is said."""
    parts = claims(case, content)
    if content["problem"]["threat"]["held"] == "preactivations":  # equalities alone, which the ascent keeps
        for bound in report.bounds:
            radius = 1e3 if bound.radius is None else bound.radius
            assert highest(case, content, radius) <= bound.value + 1e-9, bound
    for step, witness in zip(content["witnesses"], report.witnesses, strict=True):
        rows = np.array(step["delta"]).reshape(len(parts), -1)
        near = [exactly_admissible(part, row.tolist()) for part, row in zip(parts, rows, strict=True)]
        assert all(part.kept(point) for part, point in zip(parts, near, strict=True))
        length = float(np.linalg.norm(np.array(near).astype(np.float64)))
        assert length <= witness.norm * (1 + 1e-12)
        assert not witness.within or length <= float(parts[-1].radius) * (1 + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_certificates_are_accepted_true_and_replayed(name: str, made: Make, tmp_path: Path) -> None:
    case = made(name)
    assert case.content["problem"]["threat"]["positions"] == RECIPES[name].positions
    report = checked(case, case.content, tmp_path)
    assert report is not None
    assert report.certified_radius is not None
    judge(case, case.content, report)
    value = readout(case, case.content)
    for step in case.content["witnesses"]:
        delta = torch.tensor(step["delta"], dtype=torch.float64).reshape(RECIPES[name].positions, -1)
        assert float(value(delta)) == pytest.approx(step["replay"], abs=2e-5)
    assert replay_certificate(case.path).positions == len(PROMPT)


def changed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    new = copy.deepcopy(content)
    at = new
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return new


def mutants(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    threat, result = content["problem"]["threat"], {}
    for count in (*range(-1, 7), True, 2.0, "2", None, 2**40):
        result[f"positions {count!r}"] = changed(content, ("problem", "threat", "positions"), count)
    fewer = {key: value for key, value in threat.items() if key != "positions"}
    result["one position"] = changed(content, ("problem", "threat"), fewer)
    result["one position, no witness"] = {**result["one position"], "witnesses": []}
    for count in (2, 3, 4, 5):
        more = changed(content, ("problem", "threat", "positions"), count)
        result[f"positions {count}, no witness"] = {**more, "witnesses": []}
    for where in ("all", "last", [0], [3]):
        result[f"clamp at {where}"] = changed(content, ("problem", "clamp", "positions"), where)
    for i in range(len(content["context"])):
        rows = content["context"]
        result[f"context {i} moved"] = changed(content, ("context", i), [v + 0.3 for v in rows[i]])
        result[f"context {i} left out"] = {**content, "context": rows[:i] + rows[i + 1 :]}
    result["no context"] = {**content, "context": []}
    result["context turned"] = {**content, "context": content["context"][::-1]}
    for i, witness in enumerate(content["witnesses"]):
        delta = witness["delta"]
        d = len(content["x"])
        for name, other in (
            ("turned", delta[d:] + delta[:d]),
            ("shorter", delta[d:]),
            ("longer", delta + [0.0] * d),
            ("nested", [delta[:d], delta[d:]]),
            ("last alone", [0.0] * (len(delta) - d) + delta[-d:]),
            ("first off", [delta[0] + 1e-3, *delta[1:]]),
            ("doubled", [2 * v for v in delta]),
        ):
            result[f"witness {i} {name}"] = changed(content, ("witnesses", i, "delta"), other)
    for i, step in enumerate(content["bounds"]):
        for factor in (1.02, 1.5, 10.0):
            if step["radius"] is not None:
                result[f"bound {i}, radius times {factor}"] = changed(
                    content, ("bounds", i, "radius"), factor * step["radius"]
                )
        for less in (1e-3, 0.1, 1.0):
            result[f"bound {i} less {less}"] = changed(content, ("bounds", i, "value"), step["value"] - less)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_certificate_is_rejected_or_true(name: str, made: Make, tmp_path: Path) -> None:
    case, counts = made(name), {"accepted": 0, "rejected": 0}
    few = {**case.content, "bounds": case.content["bounds"][:1], "witnesses": case.content["witnesses"][:1]}
    for what, content in mutants(few).items():
        report = checked(case, content, tmp_path)
        counts["rejected" if report is None else "accepted"] += 1
        if report is not None:
            try:
                judge(case, content, report)
            except AssertionError as wrong:
                pytest.fail(f"{what}: accepted, but {wrong}")
    assert counts["rejected"] > 20
    assert counts["accepted"] > 0


def test_what_must_be_rejected(made: Make, tmp_path: Path) -> None:
    """Wrong counts, witnesses of another size, missing residuals, and a code that may drift."""
    case = made("two of gpt2")
    every = mutants(case.content)
    wrong = [
        "positions 0",
        "positions -1",
        "positions 1",
        "positions 6",
        "positions True",
        "positions 2.0",
        "one position",
    ]
    wrong += ["positions '2'", "positions None", "positions 1099511627776", "no context", "context 0 left out"]
    wrong += ["witness 0 shorter", "witness 0 longer", "witness 0 nested"]
    for what in wrong:
        assert checked(case, every[what], tmp_path) is None, what
    threat = {**case.content["problem"]["threat"], "held": "drift", "drift": 0.1, "at": "h"}
    assert checked(case, changed(case.content, ("problem", "threat"), threat), tmp_path) is None


def test_more_positions_prove_no_more(made: Make, tmp_path: Path) -> None:
    """The bound at three positions, found for them, holds at two, where a witness reaches less."""
    case = made("two of gpt2")
    bounds = [
        step for step in case.content["bounds"] if step["regions"] == "done" and step["method"] == "through-blocks"
    ]
    values = []
    for count in (None, 2, 5):
        threat = {k: v for k, v in case.content["problem"]["threat"].items() if k != "positions"}
        threat |= {} if count is None else {"positions": count}
        content = changed(case.content, ("problem", "threat"), threat)
        low, high = bounds[0]["value"] - 3.0, bounds[0]["value"] + 3.0
        for _ in range(5):
            middle = 0.5 * (low + high)
            trial = {**content, "witnesses": [], "bounds": [{**bounds[0], "value": middle}]}
            low, high = (low, middle) if checked(case, trial, tmp_path) else (middle, high)
        values.append(high)
    assert values == sorted(values)
    assert values[0] < values[-1]
