"""A bounded cell through a block: one certificate for every radius, and what the checker asks of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sae_verify.attacks import Pgd, attack
from sae_verify.checker import Rejected, check
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.instance import prepare
from sae_verify.pipeline import certify
from sae_verify.problem import Problem
from sae_verify.problem_file import load_problem
from sae_verify.verdict import Result

from .test_drift_bound import restamped

EXAMPLE = Path(__file__).parents[2] / "examples" / "every_radius" / "problem.toml"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, Result]:
    whole = load_problem(EXAMPLE)
    problem = dataclasses.replace(whole, prompts=whole.prompts[1:2], readout=whole.readouts[1:2])
    (result,) = certify(problem, out=tmp_path_factory.mktemp("every"))
    return problem, result


def test_a_bounded_cell_is_certified_for_every_radius(certified: tuple[Problem, Result]) -> None:
    problem, result = certified
    assert result.verdict.name == "certified"
    assert result.radius.certified == np.inf
    assert not result.trivial
    batch = prepare(problem)
    instance = batch.instances[0]
    assert instance.blocks_after == 1
    size = recession(instance.outer).radius
    assert size is not None
    found = attack(batch, np.array([100.0 * result.radius.norm_h]), Pgd())
    length = float(np.linalg.norm(found.delta))
    assert 0.01 * result.radius.norm_h < length <= size * (1 + 1e-9)  # there is something to perturb
    assert instance.defended + 1e-3 < found.value[0] <= problem.claim.tau


def test_the_checker_wants_the_size_and_the_tree(certified: tuple[Problem, Result], tmp_path: Path) -> None:
    _, result = certified
    assert result.certificate is not None
    content = json.loads(result.certificate.read_text())
    (step,) = [step for step in content["bounds"] if step["radius"] is None and step["regions"] is not None]
    content["bounds"], content["witnesses"] = [step], []
    assert check(restamped(content, tmp_path / "same.cert")).verdict == "certified"
    for change, reason in (
        ({"multipliers": {}}, "span|bounded"),
        ({"value": step["value"] - 100.0}, "below the claim"),
        ({"regions": None}, "expected"),
    ):
        wrong = json.loads(json.dumps(content))
        wrong["bounds"][0] |= change
        with pytest.raises(Rejected, match=reason):
            check(restamped(wrong, tmp_path / "wrong.cert"))
