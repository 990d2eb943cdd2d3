"""One slug names a theorem everywhere: no dangling and no orphan link, and each direction is seen to fail on a copy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import registry
from .registry import CHECKS, REPOSITORY, Links


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_link_holds(check: Callable[[Links], object]) -> None:
    assert list(check(Links(REPOSITORY))) == []  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what takes part in the links."""
    tmp_path = tmp_path_factory.mktemp("links")
    ignore = shutil.ignore_patterns("__pycache__", "*.v", "checker", "*.safetensors")
    for name in ("theory", "proofs", "tests/theorems"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignore)
    shutil.copytree(REPOSITORY / "sae_verify", tmp_path / "sae_verify", ignore=shutil.ignore_patterns("__pycache__"))
    for name in registry.STATEMENTS:
        if (REPOSITORY / "proofs" / name).is_file():
            (tmp_path / "proofs" / name).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / "proofs" / name, tmp_path / "proofs" / name)
    return tmp_path


@pytest.fixture
def copy(pristine: Path) -> Iterator[Path]:
    """The copy, to be damaged; put right afterwards."""
    files = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in pristine.rglob("*") if f.is_file()}
    yield pristine
    for file in [f for f in pristine.rglob("*") if f.is_file() and f not in files]:
        file.unlink()
    for file, (time, content) in files.items():
        if not file.exists() or file.stat().st_mtime_ns != time:
            file.write_bytes(content)


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r} to damage"
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def append(file: str, text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with (root / file).open("a", encoding="utf-8") as out:
            out.write(text)

    return damage


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


TOML, README, STATEMENTS = "theory/theorems.toml", "theory/README.md", "proofs/Statements.v"
BOUND = "sae_verify/bounds/cap.py"
DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("entries", replace(TOML, 'status = "proved"', 'status = "believed"'), "is not known"),
    ("entries", replace(TOML, 'status = "proved"', 'status = "paper"'), "does not fit"),
    ("entries", replace(TOML, "summary =", "sumary ="), "are missing or not known"),
    (
        "entries",
        append(TOML, '\n[new]\nstatement = "99-new.md"\nsummary = ""\nstatus = "paper"\ncode = []\ntest = "x"\n'),
        "no note",
    ),
    ("registry_to_prose", remove("theory/05-pinned.md"), "05-pinned.md is not there"),
    ("registry_to_prose", replace("theory/05-pinned.md", "# pinned", "# nailed"), "begins with '# nailed'"),
    ("registry_to_prose", replace("theory/05-pinned.md", "**Proof.**", ""), "has no **Proof.**"),
    ("registry_to_prose", replace(TOML, "05-pinned.md", "5-pin.md"), "is called"),
    ("prose_to_registry", append("theory/99-orphan.md", "# orphan\n"), "99-orphan.md is not in the registry"),
    ("prose_to_registry", append("theory/05-pinned.md", "See theorem no-such-thing."), "cites no-such-thing"),
    ("prose_to_registry", append("theory/trust_model.md", "[x](77-gone.md)"), "links to 77-gone.md"),
    ("prose_to_registry", append("theory/05-pinned.md", "`geometry/gone.py`"), "names geometry/gone.py"),
    ("registry_to_coq", replace(TOML, '"pinned",', '"pinned_gone",'), "statements has pinned_gone"),
    (
        "registry_to_coq",
        replace(STATEMENTS, "Theorem pinned ", "Lemma pinned "),
        "pinned: no file of statements has pinned",
    ),
    ("registry_to_coq", replace("theory/05-pinned.md", "**Coq.** `pinned`", "**Coq.** `nailed`"), "the line **Coq.**"),
    ("coq_to_registry", append(STATEMENTS, "\nTheorem orphan_theorem : True.\n"), "orphan_theorem of proofs"),
    ("concordance", append(STATEMENTS, "\nTheorem orphan_theorem : True.\n"), "orphan_theorem is not shown"),
    ("concordance", replace("proofs/README.md", "`pinned` |", "`nailed` |"), "statements has nailed"),
    ("concordance", replace("proofs/README.md", "`pinned` |", "`pinned`, `closing_iff` |"), "pinned names what"),
    (
        "concordance",
        replace("proofs/README.md", "[pinned]", "[nailed]"),
        "nailed with 05-pinned.md is not",
    ),
    (
        "concordance",
        replace("proofs/README.md", "../theory/05-pinned.md", "../theory/55-pinned.md"),
        "55-pinned.md is not",
    ),
    ("registry_to_code", replace(BOUND, "Theorem: all-radius-cap", "As usual"), "cap.py cites it"),
    ("registry_to_code", replace(TOML, f'"{BOUND}"', '"sae_verify/bounds/gone.py"'), "gone.py cites it"),
    ("code_to_registry", replace(BOUND, "Theorem: all-radius-cap", "Theorem: no-such-thing"), "cites no-such-thing"),
    ("code_to_registry", replace(BOUND, "Theorem: all-radius-cap", "Theorem: pinned. Theorem: oneword"), "oneword"),
    ("code_to_registry", replace(TOML, f'"{BOUND}", ', ""), f"does not name {BOUND}"),
    (
        "code_to_registry",
        append("sae_verify/version.py", '\n\ndef f():\n    """See theorem held-cell."""\n'),
        "no file of version",
    ),
    ("registry_to_tests", remove("tests/theorems/test_pinned.py"), "test_pinned.py is not there"),
    (
        "registry_to_tests",
        replace("tests/theorems/test_pinned.py", "Theorem pinned", "This"),
        "test_pinned.py cites it",
    ),
    ("registry_to_tests", remove("tests/theorems/derivations/test_norm.py"), "test_norm.py is not there"),
    (
        "registry_to_tests",
        replace(TOML, "tests/theorems/test_drift.py", "tests/theorems/exact.py"),
        "exact.py cites it",
    ),
    ("tests_to_registry", append("tests/theorems/test_orphan.py", ""), "test_orphan.py belongs to no theorem"),
    ("tests_to_registry", append("tests/theorems/derivations/test_orphan.py", ""), "test_orphan.py belongs to no"),
    ("certificates", replace("sae_verify/bounds/final_norm.py", 'theorem="final-norm"', 'theorem="x-y"'), "carry x-y"),
    ("certificates", replace("sae_verify/checker/bounds.py", '("all-radius-cap", _cap)', '("x-y", _cap)'), "carry x-y"),
    (
        "certificates",
        replace("sae_verify/checker/statements/cell_size.py", 'theorem="cell-size"', 'theorem="x-y"'),
        "x-y",
    ),
    ("index", replace(TOML, 'summary = "', 'summary = "not '), "is not what the registry says"),
    ("index", replace(README, "| 5 | [pinned]", "| 5 | [nailed]"), "is not what the registry says"),
    ("index", replace(TOML, "[pinned]", "[held-fast]"), "is not what the registry says"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE, ids=[f"{n}-{m[:24]}" for n, _, m in DAMAGE])
def test_each_direction_fails_on_a_damaged_copy(
    copy: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    check = getattr(registry, name)
    before = set(check(Links(copy)))
    damage(copy)
    new = set(check(Links(copy))) - before
    assert any(message in text for text in new), new


def test_every_check_is_damaged() -> None:
    assert {name for name, _, _ in DAMAGE} == {check.__name__ for check in CHECKS}


def test_one_command_writes_the_table_and_lists_what_is_broken(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    orphan = copy / "tests" / "theorems" / "test_orphan.py"
    orphan.touch()
    replace(README, "| 5 | [pinned]", "| 5 | [nailed]")(copy)
    monkeypatch.setattr(registry, "REPOSITORY", copy)
    assert registry.main() == 1
    assert "test_orphan.py belongs to no theorem" in capsys.readouterr().out
    assert (copy / README).read_text() == (REPOSITORY / README).read_text()
    orphan.unlink()
    registry.main()
    assert "test_orphan.py" not in capsys.readouterr().out


def test_the_table_lists_every_theorem_in_order() -> None:
    links = Links(REPOSITORY)
    linked = re.findall(r"\]\((\d\d-[a-z-]+\.md)\)", links.text("theory", "README.md"))
    assert linked == [entry["statement"] for entry in links.theorems.values()]
    assert [int(name[:2]) for name in linked] == list(range(1, len(linked) + 1))
    assert all(entry["summary"] for entry in links.theorems.values())


@pytest.mark.parametrize(
    ("text", "slugs"),
    [
        ("Theorem: held-cell. For every", {"held-cell"}),
        ("(theorem held-cell (c))", {"held-cell"}),
        ("Theorem: no-such-thing", {"no-such-thing"}),
        ("Theorem: pinned.", {"pinned"}),
        ("Theorem drift:", {"drift"}),
        ("the theorem that says so", set()),
    ],
)
def test_the_pattern_sees_citations(text: str, slugs: set[str]) -> None:
    assert registry.cited(text) == slugs
