"""Each change of a real certificate is rejected, or what it then claims is true, decided without the checker."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_verify.checker import Rejected

from .cases import FAST, RECIPES, Case, accepted, judge, mutants, semantic, stamped

Cases = Callable[[str], Case]


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


def attempt(case: Case, directory: Path, sample: int | None) -> Counter[str]:
    """Check the stamped mutants (a random sample of them) and judge those that are accepted."""
    every = list(mutants(case.content))
    chosen = every if sample is None else random.Random(0).sample(every, min(sample, len(every)))
    seen, count = {semantic(case.content)}, Counter[str]()
    for name, content in chosen:
        report = accepted(case, stamped(content), directory)
        count["accepted" if report else "rejected"] += 1
        if report is None or semantic(content) in seen:
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


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_all_mutants(name: str, case_of: Cases, tmp_path: Path) -> None:
    assert attempt(case_of(name), tmp_path, None)["rejected"] > 100


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
