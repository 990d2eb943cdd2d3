"""`python -m sae_verify.checker CERTIFICATE...`: the checker alone, with nothing but numpy beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .check import check
from .errors import Rejected


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
            report = check(path, sae=arguments.sae, model=arguments.model)
        except Rejected as reason:
            print(_plain(f"{path}: rejected: {reason}"))
            code = 4
        else:
            bound = f"readout <= {report.upper:.9g} at radius {report.radius:.9g}"
            print(_plain(f"{path}: accepted: {report.verdict}, {bound}"))
    return code


def _plain(line: str) -> str:
    """Nothing in a certificate reaches the terminal but printable ASCII."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in line)


if __name__ == "__main__":
    sys.exit(main())
