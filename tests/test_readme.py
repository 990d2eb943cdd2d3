"""The README's Python runs as printed, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sae_verify.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block.replace("out/readme", str(tmp_path)), "README.md", "exec"), {})
    assert "certified" in capsys.readouterr().out


def test_commands_exist() -> None:
    shown = set(re.findall(r"sae-verify ([a-z]+)", README))
    assert shown >= {"demo", "inspect", "certify", "attack", "check"}
    for command in shown:
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.own_clamp import main as example

    example()
    assert "worst case in [" in capsys.readouterr().out


def test_the_geometry_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.geometry import main as example

    example()
    shown = capsys.readouterr().out
    assert "<= p* <=" in shown
    assert "rank >= 64 over the rationals" in shown
