"""`falsify` and `sae-verify falsify`: reproducible, on time, with exit codes and a readable counter-example."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from support.tiny import tiny_model, tiny_sae

from sae_verify.cli import main
from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.sae import SAE, JumpReLUSAE, load_sae
from sae_verify.sae.normalization import LayerNorm
from sae_verify.testing import PROPERTIES, Attempt, falsify, hard_case, reproduce, residuals

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = [p.name for p in PROPERTIES]


@dataclass
class Fake:
    """A property with a prepared answer an attempt."""

    answers: list[Any]
    name: str = "fake"
    statement: str = "nothing is wrong"
    reads: str = "nothing"

    def attempt(self, sae: SAE, x: np.ndarray, rng: np.random.Generator) -> Attempt:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


SMALL = hard_case("jumprelu", 3, 5).sae


def of(*answers: Any, attempts: int = 5) -> Any:
    return falsify(SMALL, attempts=attempts, properties=[Fake(list(answers))])[0]


def test_the_smallest_margin_counts() -> None:
    found = of(Attempt(0.5, 2, {"a": 1}), Attempt(0.1, 3, {"a": 2}), Attempt(0.3, 4, {"a": 3}))
    assert (found.outcome, found.margin, found.attempt, found.witness) == ("held", 0.1, 1, {"a": 2})
    assert (found.attempts, found.tried) == (5, 2 + 3 + 3 * 4)


def test_a_counter_example_ends_the_search() -> None:
    found = of(Attempt(0.5, 2), Attempt(-0.1, 3, {"a": 2}), Attempt(0.3, 4))
    assert (found.outcome, found.attempts, found.witness) == ("FALSIFIED", 2, {"a": 2})
    assert of(Attempt(float("nan"), 1)).outcome == "FALSIFIED"


def test_nothing_to_say() -> None:
    found = of(Attempt(1.0, 0, reason="no feature is on"), attempts=1000)
    assert (found.outcome, found.reason) == ("not applicable", "no feature is on")
    assert found.attempts < 100  # then it is given up
    found = of(UnsupportedError("layer_norm"))
    assert (found.outcome, found.attempts, found.reason) == ("not applicable", 1, "layer_norm.")
    assert of(Attempt(1.0, 0, reason="not here"), Attempt(0.5, 1)).outcome == "held"


def test_a_crash_is_no_verdict_and_ends_nothing_else() -> None:
    crashing, fine = Fake([ValueError("infs or NaNs")], name="one"), Fake([Attempt(0.5, 1)], name="two")
    first, second = falsify(SMALL, attempts=4, properties=[crashing, fine])
    assert (first.outcome, first.attempts) == ("crashed", 1)
    assert "ValueError: infs or NaNs" in first.reason
    assert len(first.witness["x"]) == 3
    assert (second.outcome, second.attempts) == ("held", 4)


def test_the_time_is_shared_and_everything_is_tried_once() -> None:
    findings = falsify(SMALL, seconds=0.01)
    assert [f.name for f in findings] == NAMES
    assert all(f.attempts >= 1 for f in findings)
    assert all(f.outcome == "held" for f in findings), [(f.name, f.outcome, f.reason) for f in findings]


def test_the_same_seed_tells_the_same_story() -> None:
    sae = hard_case("topk", 4, 9, ("duplicate",), 1).sae
    one, two, other = (falsify(sae, attempts=2, seed=seed) for seed in (5, 5, 6))
    assert [(f.margin, f.tried, f.witness) for f in one] == [(f.margin, f.tried, f.witness) for f in two]
    assert [f.witness for f in one] != [f.witness for f in other]
    again = reproduce(sae, one[4], seed=5)
    assert (again.margin, again.witness) == (one[4].margin, one[4].witness)


def test_residuals_are_used_and_checked() -> None:
    given = residuals(SMALL, 2, np.random.default_rng(3))
    (held_cell,) = falsify(SMALL, given, attempts=8, properties=PROPERTIES[:1])
    assert tuple(held_cell.witness["x"]) in {tuple(x) for x in given}
    with pytest.raises(ShapeError, match="residuals"):
        falsify(SMALL, np.zeros((2, 4)))
    for bad in (np.zeros((0, 3)), np.full((1, 3), np.nan)):
        with pytest.raises(InputError, match="residuals"):
            falsify(SMALL, bad)
    with pytest.raises(InputError, match="seconds"):
        falsify(SMALL, seconds=0.0)


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    seen = []

    class Looking(Fake):
        def attempt(self, sae: SAE, x: np.ndarray, rng: np.random.Generator) -> Attempt:
            seen.append(torch.get_num_threads())
            return super().attempt(sae, x, rng)

    try:
        torch.set_num_threads(2)
        falsify(SMALL, attempts=1, properties=[Looking([Attempt(0.5, 1)])])
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_float32_weights_are_taken_exactly() -> None:
    made = hard_case("jumprelu", 4, 8, (), 2, dtype=torch.float32)
    for one, two in zip(falsify(made.sae, attempts=2), falsify(made.sae.to(torch.float64), attempts=2), strict=True):
        assert (one.margin, one.tried) == (two.margin, two.tried)


# --- the command ----------------------------------------------------------------------------------------------------


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["falsify", *map(str, arguments)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("falsify")
    tiny_model(folder / "model")
    for name in ("jumprelu", "topk"):
        tiny_sae(folder / name, name)
    tiny_sae(folder / "layer_norm", normalization=LayerNorm())
    return folder


def test_all_held(files: Path) -> None:
    result = call(files / "topk", "--seconds", 0.5)
    assert result.exit_code == 0, result.output
    for name in NAMES:
        assert name in result.stdout
    assert result.stdout.count(" held ") == len(NAMES)
    assert "FALSIFIED" not in result.stdout
    assert all(len(line) <= 150 for line in result.stdout.splitlines())


def test_json(files: Path) -> None:
    result = call(files / "jumprelu", "--seconds", 0.2, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert row["seed"] == 3
    assert [t["theorem"] for t in row["theorems"]] == NAMES
    for theorem in row["theorems"]:
        assert theorem["verdict"] == "held"
        assert 0 < theorem["margin"] <= 1
        assert theorem["candidates"] >= theorem["attempts"] >= 1


def test_statements_that_are_not_about_this_sae(files: Path) -> None:
    result = call(files / "layer_norm", "--seconds", 0.2, "--json")
    assert result.exit_code == 0, result.output
    verdicts = {t["theorem"]: (t["verdict"], t["reason"]) for t in json.loads(result.stdout)["theorems"]}
    assert verdicts["held-cell"][0] == "not applicable"
    assert "layer_norm" in verdicts["held-cell"][1]
    assert verdicts["error-kept"][0] == "held"
    assert "layer_norm" in call(files / "layer_norm", "--seconds", 0.2).stdout


def test_a_counter_example_is_printed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JumpReLUSAE, "_raw_slack", lambda self, a, x: (-a).clamp(min=0))  # without the threshold
    result = call(files / "jumprelu", "--seconds", 1)
    assert result.exit_code == 1, result.output
    assert "held-cell is FALSIFIED" in result.stdout
    for word in ("feature:", "delta:", "allowed:", "attempt", "report"):
        assert word in result.stdout
    row = json.loads(call(files / "jumprelu", "--seconds", 1, "--json").stdout)
    broken = {t["theorem"]: t for t in row["theorems"]}["held-cell"]
    assert broken["verdict"] == "FALSIFIED"
    assert broken["margin"] <= 0
    # The witness speaks for itself: with it, the encoder and the cell disagree.
    sae = JumpReLUSAE(**_parts(files / "jumprelu"))
    witness = broken["witness"]
    x, delta = (torch.tensor(witness[key], dtype=torch.float64) for key in ("x", "delta"))
    j = witness["feature"]
    inside = float(delta @ sae.W_enc[:, j]) <= float(sae.slack(x)[j])
    assert (sae.encode(x)[j] == 0) == (witness["code_before"] == 0)
    assert inside != bool(sae.encode(x + delta)[j] == 0)


def _parts(path: Path) -> dict[str, Any]:
    sae = load_sae(path).to(torch.float64)
    return sae.tensors() | {"subtract_b_dec": sae.subtract_b_dec, "normalization": sae.normalization}


def test_a_crash_looks_like_one(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("oops")

    monkeypatch.setattr(JumpReLUSAE, "active_and_slack", broken)
    result = call(files / "jumprelu", "--seconds", 0.1)
    assert result.exit_code == 70
    assert "RuntimeError: oops" in result.stdout


def test_residuals_of_a_model(files: Path, tmp_path: Path) -> None:
    case = ROOT / "examples" / "cases" / "indirect_object"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("while myra and kate were working at the hotel myra offered the coat to\n", encoding="utf-8")
    result = call(case / "sae_last", "--model", case, "--prompts", prompts, "--seconds", 0.2, "--json")
    assert result.exit_code == 0, result.output
    from sae_verify.model import encode_prompts, load_model, run
    from sae_verify.testing import prompt_residuals

    sae, model = load_sae(case / "sae_last"), load_model(case)
    lines = prompts.read_text().splitlines()
    points = prompt_residuals(sae, model, lines, np.random.default_rng(0))
    tokens = encode_prompts(model, lines)
    seen = run(model, tokens, model.hook_point(str(sae.source.hook_name))).resid[0].double().numpy()
    assert len(points) == len(seen)
    assert np.array_equal(points[0], seen[-1])  # the last position first
    assert {tuple(p) for p in points} == {tuple(p) for p in seen}
    with pytest.raises(ShapeError, match="width"):
        prompt_residuals(SMALL, model, lines, np.random.default_rng(0), hook=str(sae.source.hook_name))
    with pytest.raises(InputError, match="hook"):
        prompt_residuals(SMALL, model, lines, np.random.default_rng(0))


def test_the_commands_in_the_readme(tmp_path: Path) -> None:
    case, prompts = ROOT / "examples" / "cases" / "indirect_object", tmp_path / "prompts.txt"
    prompts.write_text("when leon and vera went to the theatre leon gave a lamp to\n", encoding="utf-8")
    shown = re.findall(r"^    sae-verify falsify (SAE.*?--seconds) 60\b", README, flags=re.MULTILINE)
    assert len(shown) == 2
    for line in shown:
        values = {"SAE": case / "sae_last", "M": case, "FILE": prompts}
        result = call(*(values.get(word, word) for word in line.split()), "0.1")
        assert result.exit_code == 0, result.output
        assert result.stdout.count(" held ") == len(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "there"), "go together"),
        (("--prompts", "there"), "go together"),
        (("--hook", "blocks.0.hook_resid_post"), "needs --model"),
        (("--seconds", "0"), "seconds"),
        (("--seed", "-1"), "seed"),
        (("--model", "there", "--prompts", "nowhere.txt"), "cannot be read"),
    ],
)
def test_usage(files: Path, arguments: tuple[str, ...], message: str) -> None:
    result = call(files / "topk", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "topk", "topk-rescaled", "gated"])
@pytest.mark.parametrize(("d", "m"), [(1, 1), (1, 6), (8, 1)])
def test_the_smallest_saes(tmp_path: Path, architecture: str, d: int, m: int) -> None:
    findings = falsify(load_sae(tiny_sae(tmp_path, architecture, d=d, m=m, k=1)), attempts=2)
    assert {f.outcome for f in findings} <= {"held", "not applicable"}, [(f.name, f.reason) for f in findings]
    assert sum(f.outcome == "held" for f in findings) >= len(PROPERTIES) - 2


@pytest.mark.parametrize("damage", ["nan", "shape", "missing", "truncated"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    weights = tiny_sae(tmp_path / "sae") / "sae_weights.safetensors"
    tensors = load_file(weights)
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-50])
    else:
        if damage == "nan":
            tensors["W_enc"][0, 0] = float("nan")
        elif damage == "shape":
            tensors["b_enc"] = tensors["b_enc"][:-1].clone()
        else:
            del tensors["W_dec"]
        save_file(tensors, weights)
    result = call(tmp_path / "sae", "--seconds", 0.1)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert "held" not in result.output


def test_missing_sae(tmp_path: Path) -> None:
    assert call(tmp_path / "none").exit_code == 2
