"""The rank of decoder rows or encoder columns over the rationals is at least r.

Theorem: modular-rank. The evidence is an r x r minor, named by its rows and columns in the order in which elimination
modulo a prime meets no zero pivot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..modular import checked_prime, invertible, residues
from ..reader import Reader
from .subject import Kind, Subject, need


def describe(step: Reader, count: int, key: str = "rows") -> str:
    """The rows that a step names, for readers: "decoder rows (all 24,576)"."""
    named = step.raw(key)
    what = "decoder rows" if named["matrix"] == "decoder" else "encoder columns"
    return f"{what} ({'all ' if named['features'] is None else ''}{count:,})"


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    rows = subject.rows(step)
    rank, p = step.integer("rank"), checked_prime(step.integer("prime"))
    chosen = _indices(step, "chosen", rank, rows.shape[0])
    columns = _indices(step, "columns", rank, rows.shape[1])
    minor = rows[np.ix_(chosen, columns)]
    need(np.isfinite(minor).all(), "a row is not finite")
    need(invertible(residues(minor, p), p), f"the minor is not invertible, in the order given, modulo {p}")
    full = ", no more being possible" if rank == min(rows.shape) else ""
    text = f"{describe(step, len(rows))}: rank >= {rank:,} over the rationals{full}"
    return text, {"rank": rank, "rows": len(rows), "width": rows.shape[1]}


def _indices(step: Reader, key: str, rank: int, count: int) -> np.ndarray:
    """`rank` different indices below count."""
    indices = np.array(step.features(key), dtype=np.intp)
    if len(indices) != rank or (rank and indices.max() >= count):
        raise step.fail(key, f"must be {rank} different indices below {count}")
    return indices


KIND = Kind(theorem="modular-rank", keys=("rows", "rank", "chosen", "columns", "prime"), prove=_prove)
