"""One slug names a theorem everywhere: no dangling and no orphan link between theory, code, tests and certificates."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
THEOREMS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "theory" / "theorems.toml").read_text(encoding="utf-8"))
CITATION = re.compile(r"\btheorem:?\s+([a-z]+(?:-[a-z]+)+|pinned)\b", re.IGNORECASE)
COQ = set(re.findall(r"^Theorem (\w+)", (ROOT / "proofs" / "Statements.v").read_text(encoding="utf-8"), re.MULTILINE))
SOURCES = sorted((ROOT / "sae_verify").rglob("*.py"))


def cited(text: str) -> set[str]:
    return {slug.lower() for slug in CITATION.findall(text)}


def docstrings(file: Path) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("slug", THEOREMS)
def test_every_theorem_has_its_statement_code_and_test(slug: str) -> None:
    entry = THEOREMS[slug]
    assert set(entry) >= {"statement", "status", "code", "test"}
    assert entry["status"] in ("proved", "in parts", "paper", "conjecture")
    statement = ROOT / "theory" / entry["statement"]
    assert re.fullmatch(rf"\d\d-{slug}\.md", statement.name)
    text = statement.read_text(encoding="utf-8")
    heading = next(line for line in text.splitlines() if line.startswith("#"))
    assert heading.lstrip("# ").strip() == slug
    for part in ("**Statement.**", "**Proof.**", "**What it does not say.**"):
        assert part in text, f"{statement.name} has no {part}"
    assert entry["code"], f"no code relies on {slug}"
    for name in entry["code"]:
        assert slug in cited(docstrings(ROOT / name)), f"no docstring of {name} cites {slug}"
    assert (ROOT / entry["test"]).is_file()
    assert (entry["status"] in ("proved", "in parts")) == bool(entry.get("coq"))
    assert set(entry.get("coq", ())) <= COQ, f"proofs/Statements.v does not state all of {entry['coq']}"


def test_every_machine_checked_statement_is_in_the_concordance() -> None:
    table = (ROOT / "proofs" / "README.md").read_text(encoding="utf-8")
    assert COQ
    assert {name for name in re.findall(r"`(\w+)`", table) if name in COQ} == COQ
    listed = {name for entry in THEOREMS.values() for name in entry.get("coq", ())}
    for line in table.splitlines():
        if line.startswith("| [") and "../theory/" in line:
            names = COQ & set(re.findall(r"`(\w+)`", line.split("|")[2]))
            assert names <= listed, f"theorems.toml misses {names - listed}"


def test_no_statement_is_an_orphan() -> None:
    assert {f.name for f in (ROOT / "theory").glob("[0-9][0-9]-*.md")} == {t["statement"] for t in THEOREMS.values()}


def test_no_theorem_test_is_an_orphan() -> None:
    here = {f"tests/theorems/{f.name}" for f in Path(__file__).parent.glob("test_*.py")}
    assert here - {"tests/theorems/test_registry.py"} == {t["test"] for t in THEOREMS.values()}


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT / "sae_verify")))
def test_every_citation_is_registered(file: Path) -> None:
    assert cited(file.read_text(encoding="utf-8")) <= set(THEOREMS)


def test_code_that_cites_a_theorem_of_a_package_is_listed() -> None:
    """Each package that cites a theorem appears with it in the registry."""
    for file in SOURCES:
        package = file.relative_to(ROOT).parts[1]
        for slug in cited(docstrings(file)):
            listed = {Path(name).parts[1] for name in THEOREMS[slug]["code"]}
            assert package in listed, f"{file.name} relies on {slug}, and the registry names no file of {package}"


def test_methods_of_certificates_name_registered_theorems() -> None:
    from sae_verify.checker import bounds

    assert {theorem for theorem, _ in bounds._METHODS.values()} <= set(THEOREMS)
    assigned = set()
    for file in (ROOT / "sae_verify" / "bounds").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "theorem" and isinstance(node.value, ast.Constant):
                assigned.add(node.value.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Bound" and len(node.args) > 1:
                argument = node.args[1]
                assigned.add(argument.value if isinstance(argument, ast.Constant) else "not a constant")
    assert assigned
    assert assigned <= set(THEOREMS)


def test_the_index_lists_every_theorem_in_order() -> None:
    index = (ROOT / "theory" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((\d\d-[a-z-]+\.md)\)", index)
    assert linked == [t["statement"] for t in THEOREMS.values()]


@pytest.mark.parametrize(
    ("text", "slugs"),
    [
        ("Theorem: held-cell. For every", {"held-cell"}),
        ("(theorem held-cell (c))", {"held-cell"}),
        ("Theorem: no-such-thing", {"no-such-thing"}),
        ("Theorem: pinned.", {"pinned"}),
        ("the theorem that says so", set()),
    ],
)
def test_the_pattern_sees_citations(text: str, slugs: set[str]) -> None:
    assert cited(text) == slugs
