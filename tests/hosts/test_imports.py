"""Importing the package is cheap and pulls in no library that is optional."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = ("transformers", "transformer_lens", "sae_lens", "nnsight", "matplotlib", "cvxpy")


def imported(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


def test_the_package_itself_is_light() -> None:
    assert not imported("import sae_verify") & {*OPTIONAL, "torch", "numpy", "scipy", "rich", "click"}


def test_names_load_no_optional_library() -> None:
    names = ("wrap_model", "clamped", "load_model", "load_witnesses")
    assert not imported("import sae_verify; " + "; ".join(f"sae_verify.{name}" for name in names)) & set(OPTIONAL)
