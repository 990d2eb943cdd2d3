"""Statements about one SAE: a file of steps, each a theorem with its evidence, checked one by one.

One file a kind. A kind is a `Kind`: how its step is read, and how it is proved from the weights.
"""

from .check import Accepted, check_statements, is_statement_file
from .subject import Statement, Subject

__all__ = ["Accepted", "Statement", "Subject", "check_statements", "is_statement_file"]
