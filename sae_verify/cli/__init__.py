"""The command line. Results on stdout (`--json` for machines), progress and errors on stderr.

Exit codes: 0 certified or accepted, 1 refuted or falsified, 2 usage, 3 undecided, 4 certificate rejected,
5 unsupported, 70 a defect of this program, 130 interrupted.
"""

from sae_verify.cli import certify, check, describe, discover, falsify, inspect, study
from sae_verify.cli.group import main

__all__ = ["certify", "check", "describe", "discover", "falsify", "inspect", "main", "study"]
