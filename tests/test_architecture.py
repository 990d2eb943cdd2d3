"""The tree is the architecture: imports go one way, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sae_verify"

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "checker": set(),
    "problem": {"errors"},
    "sae": {"errors", "problem"},
    "model": {"errors"},
    "hosts": {"errors", "problem", "sae", "model", "checker"},
    "geometry": {"errors", "problem", "sae", "model"},
    "bounds": {"errors", "problem", "geometry", "checker"},
    "attacks": {"errors", "problem", "sae", "model", "geometry"},
    "discover": {"errors", "problem", "sae", "model", "geometry", "attacks"},
    "certificates": {
        *("errors", "problem", "problem_file", "sae", "model", "geometry"),
        *("bounds", "attacks", "checker", "version"),
    },
    "verdict": {"errors", "attacks", "checker"},
    "problem_file": {"errors", "problem", "sae", "model"},
    "pipeline": {"errors", "problem", "geometry", "bounds", "attacks", "certificates", "checker", "verdict"},
    "side_by_side": {"errors"},
    "study": {
        *("errors", "problem", "sae", "model", "hosts", "geometry", "attacks", "discover"),
        *("certificates", "checker", "pipeline", "side_by_side", "version"),
    },
    "report": {"errors", "verdict", "geometry"},
    "testing": {"errors", "problem", "sae", "model", "geometry", "bounds", "checker"},
}
"""What each part may import of the others; the command line and the package's own __init__ may import everything."""

THIRD_PARTY: dict[str, set[str]] = {
    "torch": {"sae", "model", "hosts", "attacks", "discover", "geometry", "study", "testing"},
    "transformers": {"model"},
    "cvxpy": {"geometry"},
    "scipy": {"geometry", "bounds", "discover"},
    "rich": {"report", "cli"},
    "click": {"cli"},
    "matplotlib": {"report"},
    "joblib": {"side_by_side"},
}


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, relative ones resolved; type-checking blocks do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = file.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level]
                base = ".".join((*parents, base)) if base else ".".join(parents)
            names |= {f"{base}.{alias.name}" if base == "sae_verify" else base for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    part = part_of(file)
    if part not in ALLOWED:
        assert part in ("__init__", "cli"), f"{part} is not in the architecture; add it to ALLOWED"
        return
    for name in imports(file):
        if name.startswith("sae_verify."):
            other = name.split(".")[1]
            assert other in ALLOWED[part] | {part}, f"{file.name} imports {name}"


@pytest.mark.parametrize("package", THIRD_PARTY)
def test_heavy_packages_stay_where_they_belong(package: str) -> None:
    users = {part_of(f) for f in FILES if any(name.split(".")[0] == package for name in imports(f))}
    assert users <= THIRD_PARTY[package]


def test_the_checker_needs_numpy_and_the_standard_library_alone() -> None:
    import sys

    for file in (PACKAGE / "checker").rglob("*.py"):
        for name in imports(file):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names | {"numpy"} or name.startswith("sae_verify.checker"), name


def test_bounds_and_attacks_do_not_know_each_other() -> None:
    assert "attacks" not in ALLOWED["bounds"]
    assert "bounds" not in ALLOWED["attacks"]


def test_no_file_outgrows_its_concept() -> None:
    long = {str(f.relative_to(PACKAGE)): n for f in FILES if (n := len(f.read_text().splitlines())) > 400}
    assert not long


def test_one_version() -> None:
    import tomllib

    from sae_verify.version import __version__

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
