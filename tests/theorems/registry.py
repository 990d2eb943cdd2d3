"""The links of a theorem: registry, prose, Coq, docstrings, tests and certificates; and the table of theory/README.md.

`python tests/theorems/registry.py` rewrites the table from theorems.toml, and lists every link that is broken.
One slug names a theorem everywhere. Each check below is one direction, and yields what is wrong in words.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
STATUS = {"proved": "Coq", "in parts": "Coq in parts", "paper": "paper", "conjecture": "conjecture"}
STATEMENTS = ("Statements.v", "analysis/StatementsAnalysis.v")
PARTS = ("**Statement.**", "**Proof.**", "**What it does not say.**")
KEYS = {"statement", "summary", "status", "code", "test"}
OPTIONAL = {"coq", "note", "derivation"}
BEGIN = "<!-- Written by tests/theorems/registry.py from theorems.toml. -->"
END = "<!-- End of what is written. -->"

CITATION = re.compile(r"\btheorem:?\s+([a-z]+(?:-[a-z]+)+|pinned|composition|drift)\b", re.IGNORECASE)
"""Any mention: `theorem held-cell`, `(theorem: held-cell)`."""
RELIES = re.compile(r"\bTheorem: ([a-z]+(?:-[a-z]+)*)")
"""A docstring that states what its code relies on."""
NUMBERED = re.compile(r"\]\((?:[./a-z]*/)?(\d\d-[a-z-]+\.md)")


def cited(text: str) -> set[str]:
    return {slug.lower() for slug in CITATION.findall(text)}


@cache
def docstrings(source: str) -> str:
    """All docstrings of a file's text."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(source))
    return "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))


@cache
def carried(source: str) -> frozenset[str]:
    """Slugs that steps carry: constants called `theorem`, those of bounds, and the table of methods."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "theorem" and isinstance(node.value, ast.Constant):
            found.add(str(node.value.value))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Bound" and len(node.args) > 1:
            found.add(str(node.args[1].value) if isinstance(node.args[1], ast.Constant) else "not a constant")
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_METHODS":
            table = node.value.values if isinstance(node.value, ast.Dict) else []
            rows = [row.elts[0] for row in table if isinstance(row, ast.Tuple)]
            found |= {str(row.value) for row in rows if isinstance(row, ast.Constant)}
    return frozenset(found)


def names_in(text: str) -> set[str]:
    """Words in backticks."""
    return set(re.findall(r"`(\w+)`", text))


@dataclass(frozen=True)
class Links:
    """A checkout (or a copy of the parts of it that take part)."""

    root: Path

    @cached_property
    def theorems(self) -> dict[str, dict[str, Any]]:
        return tomllib.loads((self.root / "theory" / "theorems.toml").read_text(encoding="utf-8"))

    @cached_property
    def statements(self) -> set[str]:
        """The theorems that proofs/ restates for readers."""
        files = [self.root / "proofs" / name for name in STATEMENTS]
        text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        return set(re.findall(r"^Theorem (\w+)", text, re.MULTILINE))

    @cached_property
    def sources(self) -> dict[str, str]:
        """Docstrings of every file of the package, by path."""
        files = sorted((self.root / "sae_verify").rglob("*.py"))
        return {f.relative_to(self.root).as_posix(): docstrings(f.read_text(encoding="utf-8")) for f in files}

    @cached_property
    def concordance(self) -> list[tuple[str, str, set[str]]]:
        """Rows of the table of proofs/README.md: slug and file of its link, "" without one, and the names.

        A row whose first cell is empty or in brackets, as (b), belongs to the link above.
        """
        found: list[tuple[str, str, set[str]]] = []
        slug, file = "", ""
        table = self.text("proofs", "README.md").split("## Concordance", 1)[1]
        for line in table.splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 5 or cells[1] in ("theory", "---"):
                continue
            if match := re.match(r"\[([a-z-]+)\]\(\.\./theory/([^)]*)\)", cells[1]):
                slug, file = match.groups()
            elif cells[1] and not cells[1].startswith("("):
                slug, file = "", ""
            found.append((slug, file, names_in(cells[2])))
        return found

    def text(self, *parts: str) -> str:
        return self.root.joinpath(*parts).read_text(encoding="utf-8")

    def prose(self, slug: str) -> Path:
        return self.root / "theory" / str(self.theorems[slug]["statement"])


def entries(links: Links) -> Iterator[str]:
    for slug, entry in links.theorems.items():
        if not KEYS <= set(entry) <= KEYS | OPTIONAL:
            yield f"{slug}: keys {sorted(set(entry) ^ KEYS)} are missing or not known"
        if entry.get("status") not in STATUS:
            yield f"{slug}: status {entry.get('status')!r} is not known"
        if (entry.get("status") in ("proved", "in parts")) != bool(entry.get("coq")):
            yield f"{slug}: status {entry.get('status')!r} does not fit coq = {entry.get('coq', [])}"
        if not entry.get("code") and not entry.get("note"):
            yield f"{slug}: no code, and no note that says why"


def registry_to_prose(links: Links) -> Iterator[str]:
    for slug, entry in links.theorems.items():
        file = links.prose(slug)
        if not re.fullmatch(rf"\d\d-{slug}\.md", file.name):
            yield f"{slug}: the statement is called {entry['statement']}"
        if not file.is_file():
            yield f"{slug}: theory/{file.name} is not there"
            continue
        text = file.read_text(encoding="utf-8")
        heading = next((line for line in text.splitlines() if line.startswith("#")), "")
        if heading != f"# {slug}":
            yield f"{slug}: theory/{file.name} begins with {heading!r}"
        yield from (f"{slug}: theory/{file.name} has no {part}" for part in PARTS if part not in text)


def prose_to_registry(links: Links) -> Iterator[str]:
    known = {entry["statement"] for entry in links.theorems.values()}
    for file in sorted((links.root / "theory").glob("*.md")):
        text = file.read_text(encoding="utf-8")
        if file.name[0].isdigit() and file.name not in known:
            yield f"theory/{file.name} is not in the registry"
        yield from (f"theory/{file.name} cites {s}, which is not registered" for s in cited(text) - set(links.theorems))
        yield from (f"theory/{file.name} links to {n}, which is not there" for n in set(NUMBERED.findall(text)) - known)
        for name in set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", text)):
            if not any((links.root / base / name).is_file() for base in ("", "sae_verify")):
                yield f"theory/{file.name} names {name}, which is not there"


def registry_to_coq(links: Links) -> Iterator[str]:
    for slug, entry in links.theorems.items():
        names = entry.get("coq", [])
        yield from (f"{slug}: no file of statements has {name}" for name in names if name not in links.statements)
        if links.prose(slug).is_file():
            line = re.search(r"^\*\*Coq\.\*\*.*$", links.prose(slug).read_text(encoding="utf-8"), re.MULTILINE)
            if names_in(line.group(0).split(";")[0] if line else "") != set(names):
                yield f"{slug}: the line **Coq.** of {entry['statement']} does not name what the registry does"


def coq_to_registry(links: Links) -> Iterator[str]:
    listed = {name for entry in links.theorems.values() for name in entry.get("coq", ())}
    yield from (f"{name} of proofs/ is not in the registry" for name in sorted(links.statements - listed))


def concordance(links: Links) -> Iterator[str]:
    shown: set[str] = set().union(*(names for _, _, names in links.concordance))
    yield from (f"concordance: {name} is not shown" for name in sorted(links.statements - shown))
    yield from (f"concordance: no file of statements has {name}" for name in sorted(shown - links.statements))
    for slug, file, names in links.concordance:
        if not slug:
            continue
        entry = links.theorems.get(slug)
        if entry is None or entry["statement"] != file:
            yield f"concordance: {slug} with {file} is not registered"
        elif not names <= set(entry.get("coq", ())):
            yield f"concordance: {slug} names what its entry does not: {sorted(names - set(entry.get('coq', ())))}"


def registry_to_code(links: Links) -> Iterator[str]:
    for slug, entry in links.theorems.items():
        for name in entry.get("code", ()):
            if slug not in cited(links.sources.get(name, "")):
                yield f"{slug}: no docstring of {name} cites it, or the file is not there"


def code_to_registry(links: Links) -> Iterator[str]:
    for name, text in links.sources.items():
        everything = cited(links.text(name))
        yield from (f"{name} cites {slug}, which is not registered" for slug in everything - set(links.theorems))
        for slug in set(RELIES.findall(text)):
            if slug not in links.theorems:
                yield f"{name} cites {slug}, which is not registered"
            elif name not in links.theorems[slug].get("code", ()):
                yield f"{slug}: the registry does not name {name}, which relies on it"
        package = name.split("/")[1]
        for slug in cited(text) & set(links.theorems):
            if package not in {file.split("/")[1] for file in links.theorems[slug].get("code", ())}:
                yield f"{name} relies on {slug}, and the registry names no file of {package}"


def registry_to_tests(links: Links) -> Iterator[str]:
    for slug, entry in links.theorems.items():
        for name in [entry["test"], *([entry["derivation"]] if "derivation" in entry else [])]:
            file = links.root / name
            if not file.is_file():
                yield f"{slug}: {name} is not there"
            elif slug not in cited(docstrings(file.read_text(encoding="utf-8"))):
                yield f"{slug}: no docstring of {name} cites it"
            elif not re.search(r"^def test_", file.read_text(encoding="utf-8"), re.MULTILINE):
                yield f"{slug}: {name} tests nothing"


def tests_to_registry(links: Links) -> Iterator[str]:
    for key, folder in (("test", "tests/theorems"), ("derivation", "tests/theorems/derivations")):
        known = {entry.get(key) for entry in links.theorems.values()} | {"tests/theorems/test_registry.py"}
        here = {f"{folder}/{f.name}" for f in (links.root / folder).glob("test_*.py")}
        yield from (f"{name} belongs to no theorem" for name in sorted(here - known))


def certificates(links: Links) -> Iterator[str]:
    """Slugs that steps of certificates and of statement files carry."""
    found = [(name, slug) for name in links.sources for slug in sorted(carried(links.text(name)))]
    yield from (f"{name}: steps carry {slug}, not registered" for name, slug in found if slug not in links.theorems)
    if not {"sae_verify/checker/bounds.py", "sae_verify/checker/statements/rank.py"} <= {name for name, _ in found}:
        yield "the slugs that certificates carry are not found any more"


def index(links: Links) -> Iterator[str]:
    if links.text("theory", "README.md") != with_table(links):
        yield "the table of theory/README.md is not what the registry says: run python tests/theorems/registry.py"


def table(links: Links) -> str:
    """The reading order as a Markdown table."""
    rows = [
        f"| {n} | [{slug}]({entry['statement']}) | {entry.get('summary', '')} | {STATUS.get(entry['status'], '')} |"
        for n, (slug, entry) in enumerate(links.theorems.items(), start=1)
    ]
    return "\n".join(["| | slug | in one line | proof |", "| --- | --- | --- | --- |", *rows])


def with_table(links: Links) -> str:
    """theory/README.md as it should be."""
    before, rest = links.text("theory", "README.md").split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{table(links)}\n{END}{after}"


CHECKS: tuple[Callable[[Links], Iterator[str]], ...] = (
    entries,
    registry_to_prose,
    prose_to_registry,
    registry_to_coq,
    coq_to_registry,
    concordance,
    registry_to_code,
    code_to_registry,
    registry_to_tests,
    tests_to_registry,
    certificates,
    index,
)


def main() -> int:
    links = Links(REPOSITORY)
    (links.root / "theory" / "README.md").write_text(with_table(links), encoding="utf-8")
    broken = [text for check in CHECKS for text in check(links)]
    print("\n".join(broken) or f"{len(links.theorems)} theorems, every link holds")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
