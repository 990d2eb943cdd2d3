"""Audit the proofs: nothing is admitted, and every stated theorem rests on exactly what axioms.allow says.

`audit.py` is about Statements.v and the files beside it, `audit.py analysis` about the folder analysis. It builds
nothing; run it after `make build` or `make analysis`. The exit code is 1 if anything differs. Standard library only.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOGICAL = "SaeProofs"


@dataclass(frozen=True)
class Project:
    """Files that are built and audited together."""

    folder: Path
    logical: str
    statements: str

    def listed(self) -> list[str]:
        """The files of its _CoqProject."""
        text = (self.folder / "_CoqProject").read_text(encoding="utf-8")
        return [line for line in text.split() if line.endswith(".v")]

    def theorems(self) -> list[str]:
        """The names of all theorems it states."""
        text = (self.folder / f"{self.statements}.v").read_text(encoding="utf-8")
        return THEOREM.findall(without_comments(text))


PROJECTS = {
    "": Project(HERE, LOGICAL, "Statements"),
    "analysis": Project(HERE / "analysis", f"{LOGICAL}.analysis", "StatementsAnalysis"),
}

# Sentences that leave something unproved or switch a check off, wherever they stand.
FORBIDDEN = re.compile(
    r"\b(Admitted|admit|give_up|Abort|Axiom|Axioms|Conjecture|Parameter|Parameters|Admit|Declare\s+Module|Primitive)\b"
    r"|\bUnset\s+(Guard|Positivity|Universe)\s+Checking\b|\bbypass_check\b"
    r"|\bSet\s+(Definitional\s+UIP|Type\s+In\s+Type)\b"
    r"|\bLoad\b|\bDeclare\s+ML\s+Module\b"
)
# Sentences that are assumptions unless a section closes them.
LOCAL = re.compile(r"^(?:#\[[^\]]*\]\s*)?(?:Local\s+|Global\s+)?(Hypothesis|Hypotheses|Variable|Variables|Context)\b")
SECTION = re.compile(r"^Section\s+(\w+)")
END = re.compile(r"^End\s+(\w+)")
THEOREM = re.compile(r"^(?:Theorem|Lemma|Corollary|Proposition|Fact|Remark)\s+(\w+)", re.MULTILINE)
CLOSED = "Closed under the global context"
FLAGS = ("-type-in-type", "-bypass-guard", "-impredicative-set", "-vos", "-vok", "-noinit")


def without_comments(text: str) -> str:
    """The text with (nested) comments and strings blanked out, lines kept."""
    out, depth, i, string = [], 0, 0, False
    while i < len(text):
        two = text[i : i + 2]
        if not string and two == "(*":
            depth, i = depth + 1, i + 2
            continue
        if not string and depth and two == "*)":
            depth, i = depth - 1, i + 2
            continue
        if text[i] == '"':
            string = not string
        elif text[i] == "\n" or not (depth or string):
            out.append(text[i])
        i += 1
    return "".join(out)


def grep(path: Path) -> list[str]:
    """What is suspicious in one file."""
    text, sections = without_comments(path.read_text(encoding="utf-8")), []
    found = [
        f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group(0)}"
        for match in FORBIDDEN.finditer(text)
    ]
    for sentence in re.split(r"\.(?=\s|$)", text):
        sentence = sentence.strip()
        if opened := SECTION.match(sentence):
            sections.append(opened.group(1))
        elif (closed := END.match(sentence)) and sections and sections[-1] == closed.group(1):
            sections.pop()
        elif not sections and (local := LOCAL.match(sentence)):
            found.append(f"{path.name}: {local.group(1)} outside of a section: {sentence[:60]}")
    return found


def stale(project: Project) -> list[str]:
    """Files that are not built, not listed, or changed since."""
    folder, listed = project.folder, project.listed()
    found = [f"{path.name} is not in _CoqProject" for path in sorted(folder.glob("*.v")) if path.name not in listed]
    for name in listed:
        source, built = folder / name, folder / (name + "o")
        if not source.is_file():
            found.append(f"{name} of _CoqProject does not exist")
        elif not built.is_file() or built.stat().st_size == 0 or built.stat().st_mtime < source.stat().st_mtime:
            found.append(f"{name} is not built; run make")
    text = (folder / "_CoqProject").read_text(encoding="utf-8")
    return found + [f"_CoqProject has the flag {flag}" for flag in FLAGS if flag in text.split()]


def printed(project: Project, terms: dict[str, str]) -> dict[str, set[str]]:
    """What Print Assumptions says of each term: the names of its axioms."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"Require {project.logical}.{project.statements}."]
        for name, term in terms.items():
            lines += [f"Definition the_{name} := {term}."]
            lines += [f'Redirect "{folder}/{name}" Print Assumptions the_{name}.']
        source = Path(folder) / "audit_generated.v"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = ["coqc", "-q", "-w", "none", "-Q", str(HERE), LOGICAL, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise SystemExit(f"audit: coqc failed\n{done.stdout}{done.stderr}")
        result = {}
        for name in terms:
            said = (Path(folder) / f"{name}.out").read_text(encoding="utf-8")
            if said.strip() == CLOSED:
                result[name] = set()
            else:
                result[name] = set(re.findall(r"^([\w.']+)\s*(?::|$)", said, re.MULTILINE)) - {"Axioms"}
                result[name] = result[name] or {"(not understood) " + said.strip()[:80]}
        return result


def assumptions(project: Project, allow: dict[str, set[str]]) -> dict[str, set[str]]:
    """The axioms of each theorem. Those that may have none are asked about together, one by one if that finds any."""
    terms = {name: f"@{project.logical}.{project.statements}.{name}" for name in project.theorems()}
    unlisted = [name for name in terms if not allow.get(name)]
    if unlisted:
        together = "I"
        for name in unlisted:
            together = f"(conj ({terms[name]}) {together})"
        if not printed(project, {"all": together})["all"]:
            listed = {name: term for name, term in terms.items() if name not in unlisted}
            return {name: set() for name in unlisted} | (printed(project, listed) if listed else {})
    return printed(project, terms)


def allowed() -> dict[str, set[str]]:
    """The committed allow-list."""
    result = {}
    for line in (HERE / "axioms.allow").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, axioms = line.split(":", 1)
            result[name.strip()] = set(axioms.split())
    return result


def main(which: str) -> int:
    """Print every problem; 1 if there is one."""
    if which not in PROJECTS:
        raise SystemExit(f"audit: there is no {which}; give one of {', '.join(filter(None, PROJECTS))} or nothing")
    project = PROJECTS[which]
    listed, names = project.listed(), project.theorems()
    problems = [line for name in listed if (project.folder / name).is_file() for line in grep(project.folder / name)]
    problems += stale(project)
    everywhere = [name for other in PROJECTS.values() for name in other.theorems()]
    if len(everywhere) != len(set(everywhere)) or not names:
        problems.append("there are no theorems, or two of one name")
    if not problems:
        allow = allowed()
        problems += [f"axioms.allow names {name}, which is no theorem" for name in allow if name not in everywhere]
        for name, axioms in assumptions(project, allow).items():
            if axioms != allow.get(name, set()):
                problems.append(f"{name} assumes {sorted(axioms)}, axioms.allow says {sorted(allow.get(name, set()))}")
    for line in problems:
        print(f"audit: {line}", file=sys.stderr)
    if not problems:
        print(f"audit: {len(names)} theorems, {len(listed)} files, nothing admitted, assumptions as listed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
