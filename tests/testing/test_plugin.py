"""The pytest plugin, as a user's own test suite sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.tiny import tiny_sae

from sae_verify.sae.normalization import LayerNorm
from sae_verify.testing import PROPERTIES

pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["sae_verify.testing.plugin"]\n'
TEST = "def test_theorems(sae_theorems):\n    assert sae_theorems(attempts=8).tried > 0\n"


def test_an_sae_from_the_command_line(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-v", f"--sae={tiny_sae(tmp_path / 'sae')}", "--sae-seed=1")
    result.assert_outcomes(passed=len(PROPERTIES))
    result.stdout.fnmatch_lines(["*test_theorems?held-cell? PASSED*", "*test_theorems?final-norm? PASSED*"])


def test_an_sae_from_a_fixture_that_is_wrong(pytester: pytest.Pytester) -> None:
    """The user's own architecture forgets the threshold in its slack: the theorems about cells fall, and say why."""
    pytester.makeconftest(
        CONFTEST
        + """
import pytest
from sae_verify.sae import JumpReLUSAE
from sae_verify.testing import hard_case

class Mine(JumpReLUSAE):
    def _raw_slack(self, a, x):
        return (-a).clamp(min=0)

@pytest.fixture
def sae():
    right = hard_case("jumprelu", 4, 12, (), 1).sae
    return Mine(**right.tensors(), subtract_b_dec=right.subtract_b_dec)
"""
    )
    pytester.makepyfile("def test_theorems(sae_theorems):\n    sae_theorems(attempts=8)\n")
    result = pytester.runpytest_inprocess("-v")
    result.stdout.fnmatch_lines(["*test_theorems?held-cell? FAILED*", "*test_theorems?error-kept? PASSED*"])
    result.stdout.fnmatch_lines(["*held-cell is FALSIFIED*Witness*delta*"])
    assert result.parseoutcomes()["passed"] >= 5


def test_residuals_of_the_users_own_and_skips(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest(
        CONFTEST
        + """
import numpy as np
import pytest

@pytest.fixture
def sae_residuals():
    return np.ones((1, 8))
"""
    )
    pytester.makepyfile(
        "def test_theorems(sae_theorems):\n    assert sae_theorems.residuals.shape == (1, 8)\n    sae_theorems()\n"
    )
    path = tiny_sae(tmp_path / "sae", normalization=LayerNorm())
    result = pytester.runpytest_inprocess("-rs", f"--sae={path}")
    outcomes = result.parseoutcomes()
    assert outcomes["skipped"] == 6
    assert outcomes["passed"] == len(PROPERTIES) - 6
    result.stdout.fnmatch_lines(["*SKIPPED*layer_norm*"])


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_example_in_the_readme(pytester: pytest.Pytester, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n# conftest\.py\n(.*?)```", README, flags=re.DOTALL)
    conftest, test = block.split("# test_my_sae.py", 1)
    pytester.makeconftest(conftest)
    pytester.makepyfile(test_my_sae="# test_my_sae.py" + test)
    result = pytester.runpytest_inprocess(f"--sae={tiny_sae(tmp_path / 'sae')}")
    result.assert_outcomes(passed=len(PROPERTIES))


def test_without_an_sae_tests_are_skipped(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=len(PROPERTIES))
    result.stdout.fnmatch_lines(["*give --sae=PATH*"])
