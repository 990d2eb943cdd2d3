"""Studies side by side: the same numbers as one after the other, and one that cannot be run does not end the others."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from sae_verify.cli import main
from sae_verify.cli.study import OF_ONE, STUDIES
from sae_verify.errors import InputError
from sae_verify.study import run_studies, run_study
from sae_verify.study.plan import BUNDLED
from tests.study.conftest import small_plan


def test_the_same_numbers_as_alone(tmp_path):
    plans = {
        name: small_plan(name, threats=("preactivations",), limit=1, budgets=(0.8,), features=None)
        for name in ("indirect-object", "probe")
    }
    told: dict[str, list[float]] = {name: [] for name in plans}
    found = run_studies(plans, tmp_path, 2, lambda name, _, fraction: told[name].append(fraction))
    for name, plan in plans.items():
        alone = run_study(plan, tmp_path / "alone" / name)
        assert found[name]["rates"] == alone["rates"]
        assert found[name]["radii"] == alone["radii"]
        assert found[name] == json.loads((tmp_path / name / "summary.json").read_text())
        assert told[name][0] == 0.0
        assert told[name][-1] == 1.0


def test_one_that_cannot_be_run_does_not_end_the_others(tmp_path):
    good = small_plan("indirect-object", threats=("preactivations",), limit=1, budgets=(0.8,))
    bad = small_plan("indirect-object", kind="add", value=0.0)
    with pytest.raises(InputError, match="none of the 60 rows is a valid flip") as raised:
        run_studies({"bad": bad, "good": good}, tmp_path, 1)
    assert raised.value.remedy == "clamp more features (--count) or more strongly (--clamp)"
    assert (tmp_path / "good" / "summary.json").exists()
    with pytest.raises(InputError, match="jobs is 0"):
        run_studies({"good": good}, tmp_path, 0)


def test_the_command_takes_all(tmp_path):
    assert set(STUDIES) == set(BUNDLED)
    options = {
        name: {"features": "1", "count": "1", "generate": "0", "clamp": "set=0"}.get(name, "x") for name in OF_ONE
    }
    options["find"] = "promotes"
    for name, value in options.items():
        refused = CliRunner().invoke(main, ["study", "all", "-o", str(tmp_path / "no"), f"--{name}", value])
        assert refused.exit_code == 2
        assert f"--{name}: `all` runs the bundled studies" in refused.output
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_all_four(tmp_path):
    options = "--small --certify none --no-plots --json --jobs 2"
    found = CliRunner().invoke(main, ["study", "all", "-o", str(tmp_path), *options.split()])
    assert found.exit_code == 0, found.output
    summaries = json.loads(found.stdout)
    assert list(summaries) == list(STUDIES)
    assert all(summary["studied"] == 1 for summary in summaries.values())
