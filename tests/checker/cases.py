"""Certificates of every kind, made by the package from tiny random models, and ways to change and to judge them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support.tiny import tiny_model, tiny_sae

from sae_verify.checker import Rejected, Report, check
from sae_verify.model import load_model
from sae_verify.pipeline import certify
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem, TokenAgainstAll
from sae_verify.sae import InputScale, load_sae

from .oracle import Claim, attack, evidence_holds, exactly_admissible, length

MANY = tuple(range(16))
PROMPT = [3, 5, 7, 2]
SET = Clamp.set({1: 1.0, 2: 0.0, 5: 0.5})


@dataclass(frozen=True)
class Recipe:
    """How to make one certificate."""

    family: str
    architecture: str
    threat: ErrorBall
    tau: float
    readout: Any = LogitDifference(1, 2)  # noqa: RUF009 - frozen
    clamp: Clamp = SET
    scale: float | None = None
    layers: int = 1
    m: int = 24
    bias: float = -0.6


RECIPES = {
    # one of each kind of SAE, of held set, of place, of norm, of branch and of readout
    "jumprelu-code-x-rms": Recipe("llama", "jumprelu", ErrorBall(0.4), 1.0),
    "topk-code-h-layer": Recipe("gpt2", "topk", ErrorBall(0.3, held="code", at="h"), -1.0),
    "gated-defended-both-offset": Recipe(
        "gemma2", "gated", ErrorBall(0.3, held="defended", at="both", features=MANY), -1.0
    ),
    "relu-free-negative": Recipe("llama", "relu", ErrorBall(0.1, "absolute", "free"), -0.2, LogitDifference(2, 1)),
    "topk-defended-refuted": Recipe("llama", "topk", ErrorBall(0.5, held="defended", features=MANY), 0.5),
    "jumprelu-against-all": Recipe(
        "gpt2", "jumprelu", ErrorBall(0.3, held="defended", at="both", features=MANY), -1.6, TokenAgainstAll(4)
    ),
    "relu-pinned": Recipe("llama", "relu", ErrorBall(0.5), 4.0, m=40, bias=1.5),
    "gated-refuted": Recipe("llama", "gated", ErrorBall(0.4, "e", "code"), 0.0),
    "rescaled-code-scaled": Recipe("gemma2", "topk-rescaled", ErrorBall(0.4), -0.5, scale=0.7),
    "relu-preactivations-scale": Recipe(
        "gpt2",
        "relu",
        ErrorBall(0.3, held="preactivations"),
        0.0,
        clamp=Clamp.scale({1: 0.0, 4: 2.0, 7: -1.0}),
    ),
    "jumprelu-unreachable-add": Recipe(
        "llama", "jumprelu", ErrorBall(0.5, held="unreachable"), 0.0, clamp=Clamp.add({1: 1.0})
    ),
    "jumprelu-unreachable-chosen": Recipe(
        "gemma2", "jumprelu", ErrorBall(0.5, "e", "unreachable", "h", (0, 3, 9)), 0.1, clamp=Clamp.add({1: 1.0})
    ),
    "gated-drop-error": Recipe(
        "llama",
        "gated",
        ErrorBall(0.3, held="defended", at="h", features=MANY),
        0.3,
        clamp=Clamp.drop_error({1: 1.0, 2: 0.0}),
    ),
    "relu-set-if-active-layer-negative": Recipe(
        "gpt2",
        "relu",
        ErrorBall(0.05, held="defended", at="both"),
        -0.3,
        LogitDifference(3, 1),
        clamp=Clamp.set_if_active({0: 3.0, 6: 0.0, 9: 1.0}, positions=[3]),
    ),
    "rescaled-defended-refuted": Recipe("llama", "topk-rescaled", ErrorBall(0.5, held="defended"), 0.0),
    "jumprelu-blocks-after": Recipe("llama", "jumprelu", ErrorBall(0.5), -1.0, layers=2),
    "topk-against-all-refuted": Recipe("llama", "topk", ErrorBall(2.0, held="defended"), -4.0, TokenAgainstAll(4)),
    "jumprelu-scaled-both": Recipe("gpt2", "jumprelu", ErrorBall(0.3, held="code", at="both"), -1.5, scale=1.9),
    "relu-elsewhere": Recipe("gpt2", "relu", ErrorBall(0.2), -2.0, clamp=Clamp.set({1: 1.0}, positions=[0]), m=12),
    "topk-undecided": Recipe("llama", "topk", ErrorBall(0.5, held="defended"), 3.68),
    "gpt2-through-a-block": Recipe("gpt2", "jumprelu", ErrorBall(0.05, held="defended"), -1.51, layers=2),
    "gemma2-through-a-block": Recipe("gemma2", "topk", ErrorBall(0.03, held="defended"), -0.93, layers=2),
}
DEEP = ("jumprelu-blocks-after", "gpt2-through-a-block", "gemma2-through-a-block")
"""Blocks follow the hook: there is a context, and a tree of regions."""
FAST = tuple(RECIPES)[:7]


@dataclass(frozen=True)
class Case:
    """A certificate as JSON data, and where its weights are."""

    name: str
    content: dict[str, Any]
    sae: Path
    model: Path

    def check(self, content: Any, directory: Path) -> Report:
        """What the checker says of this content."""
        path = directory / "mutant.cert"
        path.write_text(json.dumps(content))
        return check(path, sae=self.sae, model=self.model)

    def claim(self, content: dict[str, Any]) -> Claim:
        return Claim.of(content, self.sae, self.model)


def make_case(name: str, directory: Path) -> Case:
    """Write model, SAE and certificate."""
    recipe = RECIPES[name]
    model = tiny_model(directory / "model", recipe.family, layers=recipe.layers)
    norm = None if recipe.scale is None else InputScale(recipe.scale)
    sae = tiny_sae(directory / "sae", recipe.architecture, m=recipe.m, normalization=norm, bias=recipe.bias)
    problem = Problem(
        load_model(model),
        load_sae(sae),
        [PROMPT],
        recipe.clamp,
        recipe.threat,
        recipe.readout,
        AtMost(recipe.tau),
        title=name,
    )
    with np.errstate(all="ignore"):  # the search is not what is tested here
        (result,) = certify(problem, out=directory)
    assert result.certificate is not None
    return Case(name, json.loads(result.certificate.read_text()), sae, model)


# --- changing -------------------------------------------------------------------------------------------------------


def stamped(content: dict[str, Any]) -> dict[str, Any]:
    """The same content with `digest` and `sha256` made to fit, as a forger would; no code of the checker is used."""

    def sha(value: Any) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    content = {key: value for key, value in content.items() if key != "sha256"}
    try:
        weights = content["weights"]
        identity = {
            "problem": content["problem"],
            "x": content["x"],
            "context": content["context"],
            "sae": weights["sae"]["sha256"],
            "input_scale": weights["sae"]["input_scale"],
            "model": weights["model"]["sha256"],
        }
        if "digest" in content:
            content["digest"] = sha(identity)
    except (KeyError, TypeError):
        pass
    return {**content, "sha256": sha(content)}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into the content, but of a long list only the ends and the middle."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        chosen = range(len(value)) if len(value) <= 4 else (0, len(value) // 2, len(value) - 1)
        for i in chosen:
            yield from places(value[i], (*path, i))


WORDS = (
    *("set", "scale", "set-if-active", "add", "drop-error", "all", "last", "absolute", "h", "e"),
    *("free", "preactivations", "defended", "code", "unreachable", "x", "both", "logit-difference"),
    *("token-against-all", "final-norm", "cap", "pinned", "all-radius-cap", "blocks.0.hook_resid_pre", ""),
)


def alternatives(value: Any, name: Any) -> Iterator[Any]:
    """Other values in place of one: a unit, an ulp, a sign, another word, another length."""
    if isinstance(value, bool) or value is None:
        yield from (0, 1.0, [], "h", not value)
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 0, -value, 2**40, float(value), True, None)
    elif isinstance(value, float):
        yield from (math.nextafter(value, math.inf), math.nextafter(value, -math.inf), -value, value * (1 + 1e-9))
        yield from (value * (1 - 1e-9), value + 1.0, value - 1.0, value * 2, value / 2, 0.0, 1e300, -1e300, None)
    elif isinstance(value, str):
        yield from (word for word in WORDS if word != value)
        yield value[:-1]
    elif isinstance(value, list):
        yield from (value[1:], value[:-1], [*value, *value[-1:]], [], [*value, 0], list(reversed(value)), None)
        if name == "features":
            yield [*value, (max(value) if value else 0) + 1]
    elif isinstance(value, dict):
        yield from ({**value, "extra": 0}, [], None)
        yield from ({k: v for k, v in value.items() if k != dropped} for dropped in value)


def mutants(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every single change of the content, and some that go together; not stamped."""
    for path in places({k: v for k, v in content.items() if k not in ("digest", "sha256")}):
        for i, other in enumerate(alternatives(_get(content, path), path[-1])):
            yield f"{'.'.join(map(str, path))}#{i}", _with(content, path, other)
    yield from _together(content)


def _together(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, step in enumerate(content["bounds"]):
        for j, other in enumerate(content["bounds"]):
            for key in ("radius", "value", "multipliers", "tangent", "secant", "mean"):
                if i != j and step[key] != other[key]:
                    yield f"bounds.{i}.{key} of {j}", _with(content, ("bounds", i, key), other[key])
        if step["tangent"] is not None:
            shrunk = {**step, "tangent": [0.0] * len(step["tangent"])}
            yield f"bounds.{i} without tangent", _with(content, ("bounds", i), shrunk)
            yield (
                f"bounds.{i} secant for tangent",
                _with(content, ("bounds", i), {**step, "tangent": None, "secant": 1.0}),
            )
        for point, roles in step["multipliers"].items():
            elsewhere = {"x": "h", "h": "x"}[point]
            yield f"bounds.{i} at {elsewhere}", _with(content, ("bounds", i, "multipliers"), {elsewhere: roles})
            names = list(roles)
            turned = dict(zip(names, [roles[n] for n in (*names[1:], names[0])], strict=True))
            yield f"bounds.{i} roles turned", _with(content, ("bounds", i, "multipliers", point), turned)
            for role, entry in roles.items():
                path = ("bounds", i, "multipliers", point, role)
                flipped = {**entry, "values": [-v for v in entry["values"]]}
                yield f"{role} of bounds.{i} negated", _with(content, path, flipped)
                moved = {**entry, "features": [f + 1 for f in entry["features"]]}
                yield f"{role} of bounds.{i} shifted", _with(content, path, moved)
                joined = {
                    "features": [*entry["features"], *(f for f in range(12) if f not in entry["features"])],
                    "values": [*entry["values"], *(-0.1 for f in range(12) if f not in entry["features"])],
                }
                yield f"{role} of bounds.{i} extended", _with(content, path, joined)
    for i, witness in enumerate(content["witnesses"]):
        for factor in (-1.0, 0.5, 0.999, 1.001, 2.0, 1e6):
            grown = {**witness, "delta": [factor * v for v in witness["delta"]]}
            yield f"witnesses.{i} times {factor}", _with(content, ("witnesses", i), grown)
    for i, step in enumerate(content["bounds"]):
        if step["regions"] is not None:
            yield from ((f"bounds.{i}: {n}", _with(content, ("bounds", i), s)) for n, s in _through_blocks(step))
    yield from ((f"context {n}", {**content, "context": rows}) for n, rows in _contexts(content["context"]))
    problem = content["problem"]
    for held in ("free", "preactivations", "defended", "code", "unreachable"):
        for at in ("x", "h", "both"):
            threat = {**problem["threat"], "held": held, "at": at, "features": None}
            yield f"held {held}@{at}", _with(content, ("problem", "threat"), threat)
    if problem["readout"]["kind"] == "logit-difference":
        positive, negative = problem["readout"]["positive"], problem["readout"]["negative"]
        swapped = {**problem["readout"], "positive": negative, "negative": positive}
        yield "readout swapped", _with(content, ("problem", "readout"), swapped)
    if content["witnesses"]:
        yield "two identical witnesses", {**content, "witnesses": content["witnesses"] * 2}
    yield "no evidence", {**content, "bounds": [], "witnesses": []}


def _through_blocks(step: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A step with another tree, radius or value."""
    for factor in (0.5, 1.001, 1.1, 1.5, 3.0, 10.0):
        yield f"radius times {factor}", {**step, "radius": step["radius"] * factor}
    for change in (-1e-3, -0.1, -1.0, 0.1):
        yield f"value {change:+}", {**step, "value": step["value"] + change}
    for name, tree in _trees(step["regions"], step["radius"]):
        yield name, {**step, "regions": tree}
        yield f"{name}, longer", {**step, "regions": tree, "radius": 1.1 * step["radius"]}


def _trees(root: Any, radius: float) -> Iterator[tuple[str, Any]]:
    """The same tree with branches cut off, directions turned, and regions split."""
    cuts: list[list[float]] = []
    node = root
    while isinstance(node, dict) and "cut" in node:
        cuts, node = [*cuts, node["cut"]], node["then"]

    def chain(normals: list[list[float]], end: Any = "done") -> Any:
        for normal in reversed(normals):
            end = {"cut": normal, "then": end}
        return end

    for i, normal in enumerate(cuts):
        before, after = cuts[:i], cuts[i + 1 :]
        yield f"cut off at {i}", chain(before)
        yield f"cut {i} left out", chain([*before, *after], node)
        for name, other in (
            ("negated", [-v for v in normal]),
            ("turned", [*normal[1:], normal[0]]),
            ("one entry negated", [-normal[0], *normal[1:]]),
            ("repeated", normal),
        ):
            yield f"cut {i} {name}", chain([*before, *([normal] if name == "repeated" else []), other, *after], node)
    yield "cuts reversed", chain(cuts[::-1], node)
    width = len(cuts[0]) if cuts else 3
    unit = [1.0] + [0.0] * (width - 1)
    for normal in (unit, *cuts[:1]):
        for at in ([0.0], [-0.3 * radius, 0.3 * radius], [2.0 * radius]):
            for last in (root, "done"):
                parts = [root] * len(at) + [last]
                yield f"split at {at}", {"axis": None, "normal": normal, "at": at, "parts": parts}
    halves = {"axis": 0, "normal": None, "at": [0.0], "parts": [root, root]}
    yield "split along no axis", halves
    yield "split twice", {"axis": None, "normal": unit, "at": [0.5 * radius], "parts": [halves, halves]}
    yield "a part is missing", {"axis": None, "normal": unit, "at": [0.0], "parts": [root]}
    yield "points out of order", {"axis": None, "normal": unit, "at": [0.1, -0.1], "parts": [root] * 3}


def _contexts(rows: list[list[float]]) -> Iterator[tuple[str, list[list[float]]]]:
    """Other residuals of the earlier positions."""
    for i, row in enumerate(rows):
        for name, other in (
            ("zero", [0.0] * len(row)),
            ("negated", [-v for v in row]),
            ("moved a little", [row[0] + 1e-6, *row[1:]]),
            ("moved", [row[0] + 1.0, *row[1:]]),
            ("longer", [3.0 * v for v in row]),
        ):
            yield f"{i} {name}", [*rows[:i], other, *rows[i + 1 :]]
    if len(rows) > 1:
        yield "reversed", rows[::-1]
        yield "without the first", rows[1:]
        yield "with one more", [*rows, rows[0]]


def _get(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    _get(changed, path[:-1])[path[-1]] = value
    return changed


# --- judging --------------------------------------------------------------------------------------------------------

TOLERANCE = 1e-9
"""Of the attack, which runs in float64; the evidence itself is judged without any."""


def judge(case: Case, content: dict[str, Any], report: Report) -> None:
    """Fail unless everything that an accepted certificate claims is true."""
    claim = case.claim(content)
    radius, tau = claim.radius, content["problem"]["at_most"]
    assert report.radius >= radius
    assert report.radius <= float(radius) * (1 + 1e-12) + 1e-300
    for step in content["bounds"]:
        assert evidence_holds(claim, step), f"a bound rests on rounding: {step}"
        reach = 50.0 * float(length(claim.h)) if step["radius"] is None else step["radius"]
        found = attack(claim, min(reach, 1e6), step["against"])
        assert found <= step["value"] + TOLERANCE * (1 + abs(step["value"])), "an attack exceeds the bound"
    for step, accepted in zip(content["witnesses"], report.witnesses, strict=True):
        delta = exactly_admissible(claim, step["delta"])
        assert claim.kept(delta), "the witness moves something that is held"
        assert length(delta) <= accepted.norm
        assert not accepted.within or length(delta) <= radius
        if accepted.readout is not None:
            assert claim.readout(delta) >= accepted.readout
    if report.verdict == "certified":
        best = min(attack(claim, float(radius), member) for member in claim.members[:6])
        assert best <= tau + TOLERANCE * (1 + abs(tau)), "certified, and an attack breaks the claim"
    if report.verdict == "refuted":
        deltas = [exactly_admissible(claim, step["delta"]) for step in content["witnesses"]]
        assert any(claim.kept(d) and length(d) <= radius and claim.readout(d) > tau for d in deltas)


def semantic(content: Any) -> str:
    """What an accepted content claims, without what is for readers only."""
    problem = {k: v for k, v in content["problem"].items() if k != "text"}
    witnesses, scale = [step["delta"] for step in content["witnesses"]], content["weights"]["sae"]["input_scale"]
    return json.dumps([problem, content["x"], content["context"], content["bounds"], witnesses, scale])


def accepted(case: Case, content: dict[str, Any], directory: Path) -> Report | None:
    """The report, or None for a rejection."""
    try:
        return case.check(content, directory)
    except Rejected:
        return None
