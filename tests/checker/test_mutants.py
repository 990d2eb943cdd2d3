"""Each change of a real certificate is rejected, or what it then claims is true, decided without the checker."""

from __future__ import annotations

import copy
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_verify.checker import Rejected

from .cases import DEEP, FAST, RECIPES, Case, accepted, judge, mutants, semantic, stamped
from .oracle import evidence_holds, in_floats

Cases = Callable[[str], Case]
JUDGED = 100
"""Accepted mutants of a certificate that are judged at most: each is an attack on the model."""


@pytest.mark.parametrize("name", RECIPES)
def test_unchanged_certificates_are_accepted_and_true(name: str, case_of: Cases, tmp_path: Path) -> None:
    case = case_of(name)
    assert stamped(case.content) == case.content
    judge(case, case.content, case.check(case.content, tmp_path))


def test_every_kind_is_there(case_of: Cases, tmp_path: Path) -> None:
    kinds, steps = Counter(), Counter()
    for name in RECIPES:
        case = case_of(name)
        kinds[case.check(case.content, tmp_path).verdict] += 1
        for step in case.content["bounds"]:
            steps[step["method"], step["tangent"] is not None, step["secant"] is not None] += 1
    assert kinds.keys() >= {"certified", "refuted", "undecided", "refuted by replay"}, kinds
    assert {("final-norm", True, False), ("final-norm", False, True), ("pinned", False, False)} <= steps.keys()


def attempt(case: Case, directory: Path, sample: int | None, only: str = "") -> Counter[str]:
    """Check the stamped mutants (or a sample, of those whose name has `only`), and judge those that are accepted."""
    every = [(name, content) for name, content in mutants(case.content) if re.search(only, name)]
    chosen = every if sample is None else random.Random(0).sample(every, min(sample, len(every)))
    seen, count = {semantic(case.content)}, Counter[str]()
    random.Random(1).shuffle(chosen)  # so that those which are judged are of all kinds
    for name, content in chosen:
        report = accepted(case, stamped(content), directory)
        count["accepted" if report else "rejected"] += 1
        if report is None or semantic(content) in seen or len(seen) > JUDGED:
            continue
        seen.add(semantic(content))
        try:
            judge(case, content, report)
        except AssertionError as wrong:
            pytest.fail(f"{case.name}, {name}: accepted as {report.verdict}, but {wrong}")
    return count


@pytest.mark.parametrize("name", FAST)
def test_a_sample_of_mutants(name: str, case_of: Cases, tmp_path: Path) -> None:
    count = attempt(case_of(name), tmp_path, 50)
    assert count["rejected"] > count["accepted"]


@pytest.mark.parametrize("name", DEEP)
def test_mutants_of_context_and_regions(name: str, case_of: Cases, tmp_path: Path) -> None:
    """Trees cut off, directions turned, larger radii, lower values, other residuals of the earlier positions."""
    count = attempt(case_of(name), tmp_path, 12, r"^context \d|^bounds\.\d: ")
    assert count["rejected"] > 0


@pytest.mark.parametrize("name", DEEP)
def test_a_tree_that_is_cut_off_or_stretched_is_rejected(name: str, case_of: Cases, tmp_path: Path) -> None:
    """What the certificate has beyond the first pass is needed, and it proves no much larger radius."""
    case = case_of(name)
    step = max(case.content["bounds"], key=lambda step: json.dumps(step["regions"]).count("cut"))
    assert "cut" in step["regions"]
    for changes in ({"regions": "done"}, {"radius": 2 * step["radius"]}, {"value": step["value"] - 1.0}):
        content = {**case.content, "bounds": [{**step, **changes}], "witnesses": []}
        assert accepted(case, stamped(content), tmp_path) is None, changes
    content = {**case.content, "bounds": [step], "witnesses": []}
    assert accepted(case, stamped(content), tmp_path) is not None
    assert accepted(case, stamped({**content, "context": content["context"][1:]}), tmp_path) is None


@pytest.mark.parametrize("name", DEEP)
def test_the_judge_runs_the_model(name: str, case_of: Cases) -> None:
    """The oracle's own tail gives what the real model gave when each witness was made."""
    case = case_of(name)
    claim = case.claim(case.content)
    readout = in_floats(claim, None)
    assert case.content["witnesses"]
    for witness in case.content["witnesses"]:
        assert readout(np.array(witness["delta"]))[0] == pytest.approx(witness["replay"], abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_all_mutants(name: str, case_of: Cases, tmp_path: Path) -> None:
    # Through blocks each mutant costs passes through them, and its judge an attack: a sample.
    count = attempt(case_of(name), tmp_path, 40 if name in DEEP else None)
    assert count["rejected"] > (10 if name in DEEP else 100)


@pytest.mark.parametrize("name", FAST)
def test_without_new_stamps_every_change_is_rejected(name: str, case_of: Cases, tmp_path: Path) -> None:
    case = case_of(name)
    same = json.dumps(case.content)
    every = [content for _, content in mutants(case.content) if json.dumps(content) != same]
    for content in random.Random(1).sample(every, 60):
        with pytest.raises(Rejected, match=r"edited|expected the keys|must be|semantics|the format"):
            case.check(content, tmp_path)
    for key in ("digest", "sha256"):
        flipped = {**case.content, key: "0" + case.content[key][1:] if case.content[key][0] != "0" else "1" * 64}
        with pytest.raises(Rejected):
            case.check(flipped, tmp_path)


@pytest.mark.parametrize("name", ["jumprelu-code-x-rms", "topk-code-h-layer", "gated-refuted", "jumprelu-scaled-both"])
def test_any_evidence_proves_what_it_proves_and_no_more(name: str, case_of: Cases, tmp_path: Path) -> None:
    """Random evidence, good for nothing: the least value it proves, found in 60 digits, is where acceptance begins."""
    case = case_of(name)
    rng = random.Random(0)
    claim = case.claim(case.content)
    proven = 0
    for step in (step for step in case.content["bounds"] if step["method"] == "final-norm"):
        for _ in range(6):
            shaken = copy.deepcopy(step)
            shaken["radius"] *= rng.uniform(0.3, 1.5)
            if step["tangent"] is not None:
                shaken["tangent"] = [v * rng.uniform(0.7, 1.0) for v in step["tangent"]]
            else:
                shaken["secant"] *= rng.uniform(0.7, 1.4)
                shaken["mean"] = None if step["mean"] is None else rng.gauss(0, 1)
            for roles in shaken["multipliers"].values():
                for entry in roles.values():
                    entry["values"] = [v * rng.uniform(0.8, 1.2) for v in entry["values"]]

            def holds(value: float, shaken: dict[str, Any] = shaken) -> bool:
                return evidence_holds(claim, {**shaken, "value": value})

            low, high = step["value"] - 3.0, step["value"]
            while not holds(high) and high < step["value"] + 50:
                high += 0.5 * (step["value"] - low)
            if holds(low) or not holds(high):
                continue  # the other branch begins before anything is proven
            for _ in range(60):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if holds(middle) else (middle, high)
            for value, good in ((high + 1e-9, True), (low, False), (low - 1e-12, False)):
                content = stamped({**case.content, "bounds": [{**shaken, "value": value}], "witnesses": []})
                assert (accepted(case, content, tmp_path) is not None) == good, (shaken, value)
            proven += 1
    assert proven >= 3


def test_a_pinned_step_names_enough_equalities(case_of: Cases, tmp_path: Path) -> None:
    case = case_of("relu-pinned")
    (step,) = (step for step in case.content["bounds"] if step["method"] == "pinned")
    features = step["multipliers"]["x"]["equal"]["features"]
    d = len(case.content["x"])
    for count in (d, d - 1, 1, 0):
        chosen = {"features": features[:count], "values": [1.0] * count}
        nothing: dict[str, Any] = {"features": [], "values": []}
        roles = {"equal": chosen, "upper": nothing, "decoder": nothing}
        content = {**case.content, "bounds": [{**step, "multipliers": {"x": roles}}], "witnesses": []}
        assert (accepted(case, stamped(content), tmp_path) is not None) == (count == d)
