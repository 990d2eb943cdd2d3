"""`python -m sae_verify.checker CERTIFICATE...`: the checker alone, with nothing but numpy beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .check import check
from .errors import Rejected
from .statements import check_statements, is_statement_file


def main() -> int:
    """Check each file; 0 when all are accepted, 4 when one is not."""
    parser = argparse.ArgumentParser(prog="python -m sae_verify.checker", description="Check certificates.")
    parser.add_argument("certificates", nargs="+", type=Path)
    parser.add_argument("--sae", type=Path, help="the SAE's files (default: as recorded)")
    parser.add_argument("--model", type=Path, help="the model's directory (default: as recorded)")
    arguments = parser.parse_args()
    code = 0
    for path in arguments.certificates:
        try:
            proven = _proven(path, arguments.sae, arguments.model)
        except Rejected as reason:
            print(_plain(f"{path}: rejected: {reason}"))
            code = 4
        else:
            for line in proven:
                print(_plain(f"{path}: accepted: {line}"))
    return code


def _proven(path: Path, sae: Path | None, model: Path | None) -> list[str]:
    """What one file proves, a line a statement."""
    if is_statement_file(path):
        return [statement.text for statement in check_statements(path, sae=sae).statements]
    report = check(path, sae=sae, model=model)
    return [f"{report.verdict}, readout <= {report.upper:.9g} at radius {report.radius:.9g}"]


def _plain(line: str) -> str:
    """Nothing in a certificate reaches the terminal but printable ASCII."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in line)


if __name__ == "__main__":
    sys.exit(main())
