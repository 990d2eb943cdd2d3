"""The command line: exit codes, JSON, and messages a person can act on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sae_verify.cli import main
from sae_verify.pipeline import EFFORT

CASES = Path(__file__).parent.parent / "examples" / "cases"
CASE = CASES / "indirect_object"
KEYS = {
    "case",
    "prompt",
    "held",
    "verdict",
    "reason",
    "readout_base",
    "readout_defended",
    "lower",
    "upper",
    "radius",
    "trivial",
    "certificate",
    "seconds",
}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def short(tmp_path: Path, name: str, **edits: str) -> Path:
    """A bundled problem with its first two prompts, and some text replaced."""
    text = (CASE / name).read_text()
    head, *prompts = text.split("[[prompt]]")
    text = "[[prompt]]".join([head, *prompts[:2]])
    text = text.replace('path = "."', f'path = "{CASE}"').replace('path = "sae', f'path = "{CASE}/sae')
    for old, new in edits.items():
        text = text.replace(old, new)
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict], int]:
    folder = tmp_path_factory.mktemp("cli")
    result = call("certify", short(folder, "problem_last.toml"), "-o", folder / "out", "--json")
    return folder / "out", [json.loads(line) for line in result.stdout.splitlines()], result.exit_code


def test_certify_prints_one_object_a_prompt(certified: tuple[Path, list[dict], int]) -> None:
    _, rows, code = certified
    assert len(rows) == 2
    for row in rows:
        assert set(row) >= KEYS
        assert set(row["radius"]) >= {"certified", "attacked", "norm_h", "norm_e"}
    expected = 1 if "refuted" in {row["verdict"] for row in rows} else 0
    assert code == expected


def test_check_accepts_and_rejects(certified: tuple[Path, list[dict], int], tmp_path: Path) -> None:
    _, rows, _ = certified
    paths = [row["certificate"] for row in rows]
    result = call("check", *paths, "--json")
    assert result.exit_code == 0
    assert all(json.loads(line)["accepted"] for line in result.stdout.splitlines())
    content = json.loads(Path(paths[0]).read_text())
    content["problem"]["at_most"] = 1.0
    edited = tmp_path / "edited.cert"
    edited.write_text(json.dumps(content))
    result = call("check", edited)
    assert result.exit_code == 4
    assert "edited" in result.stdout
    assert call("check", tmp_path / "missing.cert").exit_code == 2
    assert call("check", edited, "--sae", tmp_path / "missing").exit_code == 2


def test_check_wants_the_very_weights(certified: tuple[Path, list[dict], int]) -> None:
    _, rows, _ = certified
    result = call("check", rows[0]["certificate"], "--sae", CASE / "sae_early")
    assert result.exit_code == 4
    assert "SAE's weights" in result.stdout


def test_check_replays(certified: tuple[Path, list[dict], int]) -> None:
    _, rows, _ = certified
    result = call("check", "--replay", rows[0]["certificate"])
    assert result.exit_code == 0, result.output
    assert "residual recomputed" in result.stdout


def test_attack(tmp_path: Path) -> None:
    result = call("attack", short(tmp_path, "problem_last.toml"), "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == (1 if any(row["recovered"] for row in rows) else 3)
    assert all(row["held"] for row in rows)


def test_prompts_are_shared_out_among_processes(certified: tuple[Path, list[dict], int], tmp_path: Path) -> None:
    """As many as there are prompts, and more: the same results in the same order, with the same files."""
    out, alone, code = certified
    for jobs in (2, 3):
        problem = short(tmp_path, "problem_last.toml")
        result = call("certify", problem, "-o", tmp_path / str(jobs), "--json", "--jobs", jobs)
        assert result.exit_code == code, result.output
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        for row, same in zip(rows, alone, strict=True):
            assert (row["prompt"], row["verdict"]) == (same["prompt"], same["verdict"])
            assert row["upper"] == pytest.approx(same["upper"], rel=1e-6)
            assert row["lower"] == pytest.approx(same["lower"], rel=1e-6)
        assert sorted(p.name for p in out.glob("*.cert")) == sorted(p.name for p in (tmp_path / str(jobs)).iterdir())
    assert call("certify", problem, "--jobs", 0).exit_code == 2


def test_an_error_in_another_process_is_the_same_error(tmp_path: Path) -> None:
    problem = short(tmp_path, "problem_last.toml", **{'kind = "set"': 'kind = "rotate"'})
    result = call("certify", problem, "--jobs", 2)
    assert result.exit_code == 2
    assert "clamp kind is 'rotate'" in result.stderr
    assert "Traceback" not in result.output


def test_table(tmp_path: Path) -> None:
    result = call("certify", short(tmp_path, "problem_last.toml"))
    assert "verdict" in result.stdout
    assert "held: code@x" in result.stdout


BAD = {
    'kind = "set"': ('kind = "rotate"', "clamp kind is 'rotate'"),
    "radius = ": ("radius = -", "radius is -"),
    'held = "code"': ('held = "all"', "held is 'all'"),
    'hook = "blocks.3.hook_resid_post"': ('hook = "blocks.9.hook_resid_post"', "blocks.9"),
    'hook = "blocks.3.': ('hook = "blocks.2.', "metadata says"),
    'positive = "': ('positive = "un', "un"),
    "at_most = 0.0": ("at_most = 0.0\nextra = 1", "extra"),
    'positions = "all"': ("positions = [99]", "99"),
    'path = "': ('path = "nowhere/', "nowhere"),
    "[claim]": ("[claims]", "claims"),
    "features = [": ("features = [99999, ", "99999"),
    'text = "': ('text = "zzz ', "zzz"),
}


@pytest.mark.parametrize("old", BAD, ids=lambda old: old.strip('["= ').replace('"', ""))
def test_bad_problem_files_are_refused_with_exit_code_2(old: str, tmp_path: Path) -> None:
    new, shown = BAD[old]
    result = call("certify", short(tmp_path, "problem_last.toml", **{old: new}), "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert shown in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = call("certify", short(tmp_path, "problem_last.toml"), "-o", out)
        assert result.exit_code == 2
        assert "certificates cannot be written" in result.stderr


def test_a_defect_does_not_look_like_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("sae_verify.pipeline.certify", broken)
    result = call("certify", short(tmp_path, "problem_last.toml"))
    assert result.exit_code == 70
    assert "defect" in result.stderr


def test_truncated_toml_and_missing_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[model")
    assert call("certify", bad).exit_code == 2
    assert call("certify", tmp_path / "none.toml").exit_code == 2


def test_truncated_weights(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(CASE, folder)
    weights = folder / "sae_last" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = call("certify", folder / "problem_last.toml")
    assert result.exit_code == 2
    assert "FileFormatError" in result.stderr


def test_demo_runs_every_problem_below_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "cases" / "one"
    folder.mkdir(parents=True)
    short(folder, "problem_last.toml")
    result = call("demo", "--cases", tmp_path / "cases", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "accepted 2 of 2 certificates" in result.stdout
    assert call("demo", "--cases", tmp_path / "empty").exit_code == 2


def test_effort_is_an_option(tmp_path: Path) -> None:
    problem = short(tmp_path, "problem_early.toml", **{"radius = 0.15": "radius = 0.001"})
    text = problem.read_text()
    problem.write_text("[[prompt]]".join(text.split("[[prompt]]")[:2]))
    result = call("certify", problem, "--effort", 1, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "certified"
    assert call("certify", problem, "--effort", 0).exit_code == 2


def test_help_says_what_the_default_effort_is() -> None:
    assert f"default: {EFFORT}" in call("certify", "--help").stdout.replace("\n", " ")


def test_help_names_every_command() -> None:
    result = call("--help")
    for command in ("attack", "certify", "check", "demo", "inspect"):
        assert command in result.stdout
