"""A pytest plugin: the theorems on your own SAE, one test a theorem.

In the conftest.py at the root of your tests:

    pytest_plugins = ["sae_verify.testing.plugin"]

and in a test:

    def test_theorems(sae_theorems):
        sae_theorems(attempts=5)

The SAE comes from `pytest --sae=PATH`, or from a fixture `sae` of your own; residuals are synthetic unless there is a
fixture `sae_residuals`, (n, d). A theorem that says nothing about your SAE is skipped with the reason. Write the option
with an equals sign: pytest looks for tests in what follows an option that it has not met yet.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.testing.falsify import Finding, falsify
from sae_verify.testing.properties import PROPERTIES, Property

ATTEMPTS = 3
"""Searches a theorem, unless the test asks for another number."""


@dataclass(frozen=True, eq=False)
class TheoremCheck:
    """One theorem on the SAE under test; call it.

    Attributes:
        sae, residuals: under test.
        theorem: that is attacked.
        seed: of the search.
    """

    sae: SAE
    residuals: Array | None
    theorem: Property
    seed: int = 0

    def __call__(self, attempts: int = ATTEMPTS) -> Finding:
        """Attack; raises AssertionError with the witness if the theorem falls, and skips if it does not apply."""
        (found,) = falsify(self.sae, self.residuals, attempts=attempts, seed=self.seed, properties=(self.theorem,))
        if found.outcome == "not applicable":
            pytest.skip(found.reason)
        if found.outcome != "held":
            shown = json.dumps(found.witness, default=str)
            pytest.fail(f"{found.name} is {found.outcome}: {found.statement}. {found.reason} Witness: {shown}")
        return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plugin."""
    group = parser.getgroup("sae_verify")
    group.addoption("--sae", dest="sae_path", metavar="PATH", help="The SAE that fixture `sae` loads.")
    group.addoption("--sae-seed", dest="sae_seed", type=int, default=0, help="Seed of the search.")


@pytest.fixture(scope="session")
def sae(request: pytest.FixtureRequest) -> Any:
    """The SAE under test; override it, or give --sae."""
    path = request.config.getoption("sae_path")
    if path is None:
        pytest.skip("give --sae=PATH, or define a fixture `sae`")
    from sae_verify.sae import load_sae

    return load_sae(path)


@pytest.fixture(scope="session")
def sae_residuals() -> Array | None:
    """Residuals to test at, (n, d); None for synthetic ones."""
    return None


@pytest.fixture(params=PROPERTIES, ids=lambda p: p.name)
def sae_theorems(request: pytest.FixtureRequest, sae: SAE, sae_residuals: Array | None) -> TheoremCheck:
    """Each theorem in turn, ready to be called."""
    return TheoremCheck(sae, sae_residuals, request.param, int(request.config.option.sae_seed))
