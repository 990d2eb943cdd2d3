"""Compares models held by other libraries with the Hugging Face models of their files, each library in its environment.

    python -m tests.hosts.run                      all of them, in .venv-hosts/
    python -m tests.hosts.run nnsight -e DIR       one, elsewhere

They do not fit into one environment. One that is there is used as it is; together they take some 3 GB, so they are not
part of `make test`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HOSTS = {
    "saelens": (["sae-lens>=6"], "tests/hosts/test_lens.py"),  # with TransformerLens 3
    "transformer_lens": (["transformer-lens>=4"], "tests/hosts/test_lens.py"),
    "nnsight": (["nnsight>=0.8", "transformers"], "tests/hosts/test_nnsight.py"),
}
"""By name: what is installed, and the test that runs there."""
TOOLS = ("pytest", "hypothesis", "scipy", "click", "rich", "safetensors")


def environment(name: str, place: Path) -> Path:
    """Make the environment of a library, if it is not there, and return its Python."""
    python = place / name / "bin" / "python"
    if not (place / name / ".ready").exists():
        venv.create(place / name, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pinned = [*install, "--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pinned, "torch"], check=True)  # first: the pin keeps the build that is small
        subprocess.run([*pinned, *HOSTS[name][0], *TOOLS], check=True)
        (place / name / ".ready").touch()
    return python


def main() -> int:
    """Run the tests; the exit code is 1 when one differs or a library is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*HOSTS, []], help="which; default: all")
    parser.add_argument("-e", "--environments", type=Path, default=ROOT / ".venv-hosts")
    asked = parser.parse_args()
    failed = []
    for name in asked.names or HOSTS:
        python = environment(name, asked.environments)
        print(f"{name}:", flush=True)
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", HOSTS[name][1]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        print(done.stdout[-4000:], done.stderr[-2000:], sep="", flush=True)
        if done.returncode or " passed" not in done.stdout:
            failed.append(name)
    print("differ or did not run: " + ", ".join(failed) if failed else "all agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
