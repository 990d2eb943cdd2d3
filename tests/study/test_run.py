"""Whole studies, small: what is written, that a kill loses nothing, and the command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from sae_verify.checker import check_statements
from sae_verify.cli import main
from sae_verify.errors import InputError
from sae_verify.study import Sweep, run_study
from sae_verify.study.run import NO_CERTIFICATE
from sae_verify.study.store import NAME
from tests.study.conftest import small_plan


def test_a_killed_study_goes_on_where_it_ended(tmp_path):
    plan = small_plan("indirect-object", threats=("preactivations",), budgets=(0.8,), sweep=Sweep(strength=(-1.0,)))
    whole = run_study(plan, tmp_path / "whole")
    part = tmp_path / "part"
    run_study(plan, part)
    lines = (part / NAME).read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 + 1  # header, two prompts, one swept configuration
    (part / NAME).write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    told = []
    again = run_study(plan, part, lambda stage, _: told.append(stage))
    assert lines[1] == (part / NAME).read_text().splitlines(keepends=True)[1]
    assert f"prompt {json.loads(lines[1])['key'].split('/')[1]}" not in told
    assert again["rates"] == whole["rates"]
    assert again["radii"] == whole["radii"]
    assert not [path for path in part.iterdir() if path.name.startswith(".")]


def test_another_plan_in_the_same_place_is_refused(tmp_path):
    plan = small_plan("indirect-object", threats=("preactivations",), limit=1)
    run_study(plan, tmp_path)
    with pytest.raises(InputError, match="seed was 0 and is 1"):
        run_study(dataclasses.replace(plan, seed=1), tmp_path)


def test_no_text_is_stored_unless_asked(tmp_path):
    plan = small_plan("indirect-object", threats=("preactivations",), limit=1, budgets=(0.8,), generate=2)
    run_study(plan, tmp_path / "without")
    run_study(dataclasses.replace(plan, keep_text=True), tmp_path / "with")
    names = ("table.json", "table.csv", "summary.json", NAME)
    said = {place: "".join((tmp_path / place / name).read_text() for name in names) for place in ("without", "with")}
    prompt = json.loads((tmp_path / "with" / "table.json").read_text())[0]["text"]
    assert prompt not in said["without"]
    assert '"base_text"' not in said["without"]
    assert '"base_text"' in said["with"]


def test_a_study_without_flips_says_what_to_do(tmp_path):
    plan = small_plan("indirect-object", kind="add", value=0.0)
    with pytest.raises(InputError, match="none of the 60 rows is a valid flip"):
        run_study(plan, tmp_path)


def test_probe_attacks_meet_their_certificates(tmp_path):
    """The probe is linear: where the inner and the outer cell agree, what is attacked is what is not certified."""
    plan = small_plan("probe", certify=None, controls=True, attribution=True, features=None)
    summary = run_study(plan, tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())
    shortest = [row for row in rows if row.get("budget") == "shortest"]
    assert {row["threat"] for row in shortest} == {"free", "preactivations", "defended", "code", "drift"}
    for row in shortest:
        assert row["recovered"]
        assert row["certified_radius"] <= row["attacked_radius"]
        if row["threat"] in ("free", "preactivations", "code"):
            assert row["certified_radius"] == pytest.approx(row["attacked_radius"], rel=2e-3)
        if row["threat"] == "preactivations":
            assert row["relative_drift"] is None or row["relative_drift"] < 1e-6 or not row["zero_reactivation"]
    for path in (tmp_path / "certificates").glob("*.cert"):
        assert check_statements(path).statements
    controls = {row["control"]: row for row in summary["controls"]}
    assert controls["random 1x"]["mean_share"] < 0.5
    assert summary["ratio_code_to_preactivations"] > 0


def test_sweeps_are_attacked_and_say_why_they_are_not_certified(tmp_path):
    plan = small_plan("probe", features=None, sweep=Sweep(features=(2, 300)), suffix=1)
    run_study(plan, tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())
    swept = [row for row in rows if row["config"] == "features 2" and row.get("budget") == "shortest"]
    assert swept
    assert all(row["why_not_certified"] == NO_CERTIFICATE for row in swept)
    (head,) = [row for row in rows if row["config"] == "features 300"]
    assert "features qualify and 300 are asked for" in head["why_not"]
    (one,) = [row for row in rows if row["kind"] == "input"][:1]
    assert one["decided"]


def test_the_command_writes_tables_and_plots(tmp_path):
    options = "--limit 1 --budgets 0.8 --threats preactivations,code --certify none --suffix 0 --no-sweep"
    options += " --features 76,183,15,12,74,66,174,164"
    found = CliRunner().invoke(main, ["study", "indirect-object", "-o", str(tmp_path), *options.split()])
    assert found.exit_code == 0, found.output
    assert "1 of " in found.output
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["study"] for row in rows} == {"indirect-object"}
    for name in ("recovery.png", "replay.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    reasons = {row["why_not_certified"] for row in rows if row["budget"] == "shortest"}
    assert reasons == {"no certificate was asked for this threat or a weaker one"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "x"], "go together"),
        (["--clamp", "wish=1"], "the kind is one of"),
        (["--budgets", "a"], "is no number"),
        (["--certify", "luck"], "they are among"),
        (["--prompts", "x"], "go together"),
    ],
)
def test_bad_options_are_usage_errors(tmp_path, options, said):
    found = CliRunner().invoke(main, ["study", "refusal", "-o", str(tmp_path / "out"), *options])
    assert found.exit_code == 2
    assert said in found.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_small_refusal_study_certifies_and_generates(tmp_path):
    found = CliRunner().invoke(main, ["study", "refusal", "-o", str(tmp_path), "--small", "--limit", "1", "--json"])
    assert found.exit_code == 0, found.output
    summary = json.loads(found.stdout)
    radii = {row["threat"]: row for row in summary["radii"]}
    assert all(row["certified"] == 1 and row["certified_by"] == ["free"] for row in radii.values())
    assert all(row["median_certified_over_attacked"] < 1 for row in radii.values())
    best = [row for row in summary["rates"] if row["budget"] == 0.8]
    assert all(math.isclose(row["non_refusal"]["share"], row["recovered"]["share"]) for row in best)
    assert np.isfinite(summary["ratio_code_to_defended"])
