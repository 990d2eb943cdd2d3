"""The independent checker: re-verifies certificates with numpy and the standard library alone.

It imports nothing of the rest of the package, decodes the weights with its own readers and rounds outward everywhere.
"""

from .check import ASSUMPTIONS, AcceptedBound, Report, check, check_certificate, forget_weights
from .errors import Rejected
from .witness import AcceptedWitness

__all__ = [
    "ASSUMPTIONS",
    "AcceptedBound",
    "AcceptedWitness",
    "Rejected",
    "Report",
    "check",
    "check_certificate",
    "forget_weights",
]
