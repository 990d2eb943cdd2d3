"""`sae-verify describe`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from sae_verify.cli import main

SAE = Path(__file__).parents[2] / "examples" / "cases" / "refusal" / "sae_early"


def test_what_it_prints() -> None:
    result = CliRunner().invoke(main, ["describe", str(SAE), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    config = json.loads((SAE / "cfg.json").read_text())
    assert (facts["d_in"], facts["d_sae"]) == (config["d_in"], config["d_sae"])
    assert facts["hook_name"] == config["metadata"]["hook_name"]
    shown = CliRunner().invoke(main, ["describe", str(SAE)])
    assert shown.exit_code == 0
    assert facts["architecture"] in shown.stdout
    assert f"{facts['decoder_row_norms'][0]:.6g} to" in shown.stdout


def test_what_is_no_sae(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["describe", str(tmp_path)])
    assert result.exit_code not in (0, 1, 70)
    assert str(tmp_path) in result.output
