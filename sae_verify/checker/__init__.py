"""The independent checker: re-verifies certificates with numpy and the standard library alone.

It imports nothing of the rest of the package, decodes the weights with its own readers and rounds outward everywhere.
"""

from .check import ASSUMPTIONS, AcceptedBound, Report, check, check_certificate, forget_weights
from .errors import Rejected
from .statements import Accepted, Statement, check_statements, is_statement_file
from .witness import AcceptedWitness

__all__ = [
    "ASSUMPTIONS",
    "Accepted",
    "AcceptedBound",
    "AcceptedWitness",
    "Rejected",
    "Report",
    "Statement",
    "check",
    "check_certificate",
    "check_statements",
    "forget_weights",
    "is_statement_file",
]
