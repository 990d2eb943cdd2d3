"""Several layers clamped at once, in a study from beginning to end."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest
from click.testing import CliRunner

from sae_verify.attacks.joint import clamps_at
from sae_verify.cli import main
from sae_verify.errors import InputError
from sae_verify.problem_file import load_layers, load_problem
from sae_verify.study import run_study
from sae_verify.study.layers import NO_RADIUS, further_subjects, layer_rows, set_up_layers
from sae_verify.study.plan import ALSO
from sae_verify.study.subjects import load, readouts, set_up
from tests.study.conftest import EXAMPLES, small_plan


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    out = tmp_path_factory.mktemp("layers")
    also = (str(EXAMPLES / "cases" / "refusal" / "sae_last"),)
    changes = {"kind": "scale", "value": -1.0, "features": None, "count": 2, "limit": 1}
    plan = small_plan("refusal", also=also, threats=("preactivations", "defended"), **changes)
    return plan, out, run_study(plan, out)


def test_recoveries_hold_every_layer(studied):
    _, out, summary = studied
    rows = json.loads((out / "table.json").read_text())
    (head,) = [row for row in rows if row["kind"] == "sweep"]
    assert head["hooks"] == "blocks.1.hook_resid_post blocks.3.hook_resid_post"
    assert head["features"].count(";") == 1
    mine = [row for row in rows if row["config"] == "2 layers" and row["kind"] == "attack"]
    assert {row["threat"] for row in mine} == {"preactivations", "defended"}
    recovered = [row for row in mine if row["recovered"]]
    assert recovered
    for row in recovered:
        assert row["later_violation"] < 1e-6
        assert row["held_in_run"]
        assert row["admissible_within"] is not None
    shortest = [row for row in mine if row["budget"] == "shortest"]
    for row in shortest:
        assert row["why_not_certified"] == NO_RADIUS
        assert row["last_why_not_certified"] == "no certificate was asked for"
    assert {row["threat"] for row in summary["layers"]} == {"preactivations", "defended"}
    for row in summary["layers"]:
        assert row["recovered"] == row["prompts"] == 1
        assert row["median_over_one_layer"] > 0.99  # holding more does not help the adversary


def test_a_recovery_moves_the_last_layer_further_than_is_certified(studied, tmp_path):
    plan = dataclasses.replace(studied[0], certify=None, threats=("defended",), budgets=(0.4,))
    subject, items = load(plan)
    rows = layer_rows(plan, set_up(plan, subject, items), items, further_subjects(plan, subject), tmp_path)
    (row,) = [row for row in rows if row.get("budget") == "shortest"]
    assert 0.5 * row["last_displacement"] < row["last_certified"] <= row["last_displacement"]
    assert row["last_certified_by"] == "defended"  # of the last layer's own held features: no block follows
    (certificate,) = (tmp_path / "certificates").glob("*.cert")
    assert "with-clamps-at-blocks-1-hook-resid-post-active" in certificate.name
    # It is replayed with the earlier clamp, which the study wrote beside it, and not without, nor with another one.
    layers = tmp_path / "certificates" / "layers.toml"
    found = CliRunner().invoke(main, ["check", str(certificate), "--replay", "--beside", str(layers)])
    assert found.exit_code == 0, found.output
    assert "recomputed" in found.stdout
    other = tmp_path / "other.toml"
    text = layers.read_text()
    assert "scale" in text
    other.write_text(text.replace('path = "', f'path = "{layers.parent}/').replace("-1.0", "-0.5"))
    for options in ([], ["--beside", str(other)]):
        found = CliRunner().invoke(main, ["check", str(certificate), "--replay", *options])
        assert found.exit_code == 4, found.output
        assert "go with --beside" in found.stdout
    assert CliRunner().invoke(main, ["check", str(certificate), "--beside", str(layers)]).exit_code == 2


LAYER = 'sae = { path = "SAE", hook = "blocks.1.hook_resid_post" }'
CLAMP = 'clamp = { kind = "scale", features = [1], value = 0.0 }'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layer = 3", "layer is 3"),
        ("", "layer is missing"),
        (f"[[layer]]\n{LAYER}", "layer[0].clamp is missing"),
        (f"[[layer]]\n{CLAMP}", "layer[0].sae is missing"),
        (f"[[layer]]\n{LAYER}\n{CLAMP}\nmore = 1", "layer[0].more"),
        (f"[[layer]]\n{LAYER}\n{CLAMP}".replace("SAE", "nowhere"), "nowhere"),
        (f"[[layer]]\n{LAYER}\n{CLAMP}".replace("[1]", "[99999]"), "99999"),
        (f"[[layer]]\n{LAYER}\n{CLAMP}".replace("blocks.1.", "blocks.9."), "blocks.9"),
        ("[[layer", "cannot be read"),
    ],
)
def test_bad_files_of_layers(text, shown, tmp_path):
    case = EXAMPLES / "cases" / "refusal"
    problem = load_problem(case / "problem_last.toml")
    path = tmp_path / "layers.toml"
    path.write_text(text.replace("SAE", str(case / "sae_early")))
    with pytest.raises(InputError) as raised:
        load_layers(path, problem)
    assert shown in str(raised.value)


def test_the_flips_are_those_of_all_clamps(studied):
    plan, _, _ = studied
    subject, items = load(plan)
    setup = set_up(plan, subject, items)
    layers = set_up_layers(plan, setup, items, further_subjects(plan, subject))
    with clamps_at(layers.problems(layers.flips, "free")[1:]):
        assert (readouts(subject, layers.flips, setup.clamp) < 0).all()
    assert layers.clamps[0].features != setup.clamp.features


def test_a_finished_study_is_not_run_again_and_other_layers_are_another_study(studied):
    plan, out, _ = studied
    told = []
    run_study(plan, out, lambda stage, _: told.append(stage))
    assert not any(stage.startswith("layers") for stage in told)
    with pytest.raises(InputError, match="also was"):
        run_study(dataclasses.replace(plan, also=()), out)


def test_a_probe_reads_one_layer():
    with pytest.raises(InputError, match="reads one layer"):
        small_plan("probe", also=("somewhere",))


def test_the_command_names_layers_and_shows_them(tmp_path):
    last = str(EXAMPLES / "cases" / "indirect_object" / ALSO["indirect-object"][0])
    options = "--limit 1 --budgets 0.8 --threats preactivations --certify none --suffix 0 --no-sweep"
    arguments = ["study", "indirect-object", "-o", str(tmp_path), *options.split(), "--also", last]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    assert "several layers clamped and held at once" in found.output
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "table.csv").open() as file:
        assert "2 layers" in {row["config"] for row in csv.DictReader(file)}
