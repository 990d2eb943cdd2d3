"""Compares the loaders with the packages that wrote the files, each in an environment of its own.

    python -m tests.upstream.run                      all of them, in .venv-upstream/
    python -m tests.upstream.run sparsify -e DIR      one, elsewhere

An environment that is there is used as it is. Together they take some 3 GB, so they are not part of `make test`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TOOLS = ("pytest", "numpy", "safetensors", "huggingface-hub")


@dataclass(frozen=True)
class Upstream:
    """A package to compare with.

    Attributes:
        requirements: what is installed with its dependencies.
        bare: what is installed without them: they conflict with the pinned torch or are not needed to encode.
        tests: files that are run.

    """

    requirements: tuple[str, ...]
    bare: tuple[str, ...]
    tests: tuple[str, ...]


UPSTREAM = {
    "saelens": Upstream(("sae-lens",), (), ("tests/sae/test_saelens.py", "tests/upstream/test_saelens_loaders.py")),
    "sparsify": Upstream(("eai-sparsify==1.3.3",), (), ("tests/upstream/test_sparsify.py",)),
    "dictionary_learning": Upstream(
        ("einops", "tqdm"), ("dictionary-learning==0.1.0",), ("tests/upstream/test_dictionary_learning.py",)
    ),
}


def environment(name: str, place: Path) -> Path:
    """Make the environment of a package, if it is not there, and return its Python."""
    python = place / name / "bin" / "python"
    ready = place / name / ".ready"
    if ready.exists():
        return python
    upstream = UPSTREAM[name]
    venv.create(place / name, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = [*install, "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pinned, "torch"], check=True)  # first: the pin keeps the build that is small
    subprocess.run([*pinned, *upstream.requirements, *TOOLS], check=True)
    if upstream.bare:
        subprocess.run([*install, "--no-deps", *upstream.bare], check=True)
    ready.touch()
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(UPSTREAM)}; default: all")
    parser.add_argument("-e", "--environments", type=Path, default=ROOT / ".venv-upstream")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(UPSTREAM)):
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(UPSTREAM)}")
    failed = []
    for name in asked.names or UPSTREAM:
        python = environment(name, asked.environments)
        print(f"{name}:", flush=True)
        done = subprocess.run(
            [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *UPSTREAM[name].tests],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        print(done.stdout[-6000:], done.stderr[-2000:], sep="", flush=True)
        if done.returncode != 0 or "skipped" in done.stdout:
            failed.append(name)
    print("differ or did not run: " + ", ".join(failed) if failed else "all agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
