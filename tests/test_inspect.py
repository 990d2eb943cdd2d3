"""`sae-verify inspect`: one screen, JSON, and statements that `check` accepts again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from sae_verify.cli import main
from sae_verify.geometry.inspect_tokens import inspect_tokens
from sae_verify.model import load_model
from sae_verify.problem import Clamp, LogitDifference
from sae_verify.sae import load_sae

CASE = Path(__file__).parent.parent / "examples" / "cases" / "indirect_object"
PROMPTS = [
    "while myra and kate were working at the hotel myra offered the coat to",
    "after paul and myra arrived at the bakery paul handed the watch to",
]


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")
    return path


def test_an_sae_alone() -> None:
    result = call(CASE / "sae_last")
    assert result.exit_code == 0, result.output
    assert "rank 64 of 64" in result.stdout
    assert "nothing is unreachable" in result.stdout
    facts = json.loads(call(CASE / "sae_last", "--json").stdout)
    assert facts["features"] >= 256
    assert facts["decoder"]["unreachable_dimensions"] == 0
    assert facts["non_negative_codes_reach_everything"] is True
    assert facts["prompts"] == []


def test_with_a_model_and_proofs(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "facts.cert"
    where = (CASE / "sae_last", "--model", CASE, "--prompts", prompts)
    result = call(*where, "--clamp", "121=3", "--readout", "kate", "myra", "-o", out, "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    first = row["prompts"][0]
    worst = first["worst_first_order_change"]
    assert worst["code"] <= worst["preactivations"] <= worst["free"]
    assert first["free_dimensions"] == 64 - first["active_features"]
    assert first["clamp"]["first_order_readout_change"] != 0
    assert first["clamp"]["readout_clamped"] != first["readout_base"]
    assert row["not_proven"] == []
    assert len(row["proven"]) == 5 + 3 * len(PROMPTS)
    again = CliRunner().invoke(main, ["check", str(out), "--json"])
    assert again.exit_code == 0, again.output
    statements = json.loads(again.stdout)["statements"]
    assert [s["text"] for s in statements] == row["proven"]
    linear = [s for s in statements if s["kind"] == "linear-worst-case"]
    assert linear[0]["lower"] <= worst["code"] * (1 + 1e-9)
    assert worst["code"] <= linear[0]["upper"] * (1 + 1e-9)
    screen = call(*where)
    assert "code held at the last position" in screen.stdout
    assert all(len(line) <= 150 for line in screen.stdout.splitlines())
    out.write_text(out.read_text().replace('"held": "code"', '"held": "free"'))
    assert CliRunner().invoke(main, ["check", str(out)]).exit_code == 4


@pytest.mark.parametrize("ball", ["linf", "ellipsoid"])
def test_other_balls(prompts: Path, tmp_path: Path, ball: str) -> None:
    out = tmp_path / "facts.cert"
    where = (CASE / "sae_last", "--model", CASE, "--prompts", prompts)
    row = json.loads(call(*where, "--ball", ball, "--radius", "0.3", "-o", out, "--json").stdout)
    worst = row["prompts"][0]["worst_first_order_change"]
    assert worst["code"] <= worst["preactivations"] * (1 + 1e-9)
    assert worst["preactivations"] <= worst["free"] * (1 + 1e-9)
    accepted = CliRunner().invoke(main, ["check", str(out), "--json"])
    linear = [s for s in json.loads(accepted.stdout)["statements"] if s["kind"] == "linear-worst-case"]
    assert linear[0]["norm"] == ball
    assert linear[0]["lower"] == pytest.approx(linear[0]["upper"], rel=1e-6)
    assert worst["code"] == pytest.approx(linear[0]["upper"], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", CASE), "go together"),
        (("--clamp", "1=2"), "need --model"),
        (("--model", CASE, "--prompts", "nowhere.txt"), "cannot be read"),
    ],
)
def test_usage(arguments: tuple[Any, ...], message: str) -> None:
    result = call(CASE / "sae_last", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--clamp", "x=2"), 2, "FEATURE=VALUE"),
        (("--clamp", "999999=2"), 2, "999999"),
        (("--readout", "kate", "zzz"), 2, "zzz"),
        (("--radius", "-1"), 2, "must be positive"),
        (("--hook", "blocks.99.hook_resid_post"), 2, "blocks.99"),
        (("--hook", "blocks.1.hook_resid_post"), 2, "an SAE is used where it was trained"),
        (("--clamp", "3=1", "--clamp", "3=2"), 2, "twice"),
        (("--readout", "kate", "kate"), 2, "with itself"),
        (("--radius", "1e200"), 2, "from 1e-30 to 1e+30"),
    ],
)
def test_bad_questions(prompts: Path, arguments: tuple[Any, ...], code: int, message: str) -> None:
    result = call(CASE / "sae_last", "--model", CASE, "--prompts", prompts, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_nothing_but_a_statement_file_is_overwritten(tmp_path: Path, prompts: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"precious")
    for out in (weights, tmp_path, prompts, weights / "x.cert", ""):
        result = call(CASE / "sae_last", "-o", out)
        assert result.exit_code == 2, result.output
    assert weights.read_bytes() == b"precious"
    out = tmp_path / "new" / "facts.cert"
    for _ in range(2):  # an older statement file may be replaced
        assert call(CASE / "sae_last", "-o", out).exit_code == 0
    again = CliRunner().invoke(main, ["check", str(out), "--replay"])
    assert again.exit_code == 0
    assert "nothing to replay" in again.output


def test_the_gradient_and_the_clamp_are_those_of_the_model() -> None:
    """First order: a small step along the worst perturbation changes the real readout by what the report says."""
    model, sae = load_model(CASE), load_sae(CASE / "sae_last")
    (report,) = inspect_tokens(sae, model, PROMPTS[:1], readout=LogitDifference("kate", "myra"), share=1e-3)
    from sae_verify.model import encode_prompts, make_tail, token_id

    tail, _ = make_tail(model, encode_prompts(model, PROMPTS[:1]), model.hook_point(str(sae.source.hook_name)))
    row = tail.unembed[token_id(model, "kate")] - tail.unembed[token_id(model, "myra")]
    moved = torch.stack([tail.base[0], tail.base[0] + torch.from_numpy(report.optimum.delta)])
    before, after = (tail.hidden(moved[None]) @ row)[0].tolist()
    assert after - before == pytest.approx(report.optimum.value, rel=1e-2)
    (clamped,) = inspect_tokens(sae, model, PROMPTS[:1], clamp=Clamp.set({121: 3.0}))
    assert clamped.clamp is not None
    np.testing.assert_allclose(clamped.clamp.effect.x, report.x)
    assert clamped.clamp.effect.norm == pytest.approx(3.0 * float(sae.W_dec[121].norm()), rel=1e-5)
