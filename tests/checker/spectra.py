"""Rows with known trouble, their SAE and subject, and the truth of statements about them in exact rationals."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_verify.checker import Rejected
from sae_verify.checker.sae import Sae
from sae_verify.checker.statements import Statement, Subject
from sae_verify.checker.statements.check import prove
from sae_verify.sae import SAE, ReLUSAE

D = 4
KINDS = ("random", "deficient", "repeated", "zero", "scales", "tiny", "nearly", "float64")


def rows_of(kind: str, seed: int, m: int = 7, d: int = D) -> np.ndarray:
    """Decoder rows, (m, d)."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(m, d))
    if kind == "deficient":
        rows[:, -1] = rows[:, 0] - 2 * rows[:, 1]
        rows = np.round(8 * rows) / 8
        rows[:, -1] = rows[:, 0] - 2 * rows[:, 1]
    elif kind == "repeated":
        rows[2:] = rows[rng.integers(0, 2, m - 2)]
    elif kind == "zero":
        rows[:] = 0.0
    elif kind == "scales":
        rows *= 10.0 ** rng.uniform(-12, 4, (m, 1))
    elif kind == "tiny":
        rows = np.ldexp(np.round(rows), -149)
    elif kind == "nearly":
        rows[:, -1] = rows[:, 0] + 1e-6 * rows[:, -1]
    return rows if kind == "float64" else rows.astype(np.float32).astype(np.float64)


def sae_of(rows: np.ndarray) -> SAE:
    exact = torch.from_numpy(rows)
    stored = exact if (exact.float().double() != exact).any() else exact.float()
    encoder = (stored * 2.0 + 0.0).T.contiguous()
    m, d = rows.shape
    b_dec, b_enc = torch.zeros(d, dtype=stored.dtype), torch.zeros(m, dtype=stored.dtype)
    return ReLUSAE(W_enc=encoder, W_dec=stored, b_dec=b_dec, b_enc=b_enc, subtract_b_dec=False)


def subject_of(rows: np.ndarray) -> Subject:
    m, d = rows.shape
    sae = Sae("relu", 2.0 * rows.T, rows, np.zeros(d), {"b_enc": np.zeros(m)}, False, "none", 1.0, "")
    return Subject(sae, np.zeros((0, d)), Path())


def judged(subject: Subject, step: Any) -> Statement | None:
    """What the checker says of a step that went through JSON, as every step does; None for a rejection."""
    try:
        return prove(subject, json.loads(json.dumps(step)), "step")
    except Rejected:
        return None


# --- the oracle: the claims in rationals ----------------------------------------------------------------------------


def named_rows(rows: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    chosen = rows if step["rows"]["matrix"] == "decoder" else 2.0 * rows
    return chosen if step["rows"]["features"] is None else chosen[step["rows"]["features"]]


def eigenvalues_below(m: list[list[Fraction]], level: Fraction) -> tuple[int, int]:
    """How many eigenvalues of a symmetric rational matrix are < level and == level, by Sylvester's law."""
    m = [[x - level * (i == j) for j, x in enumerate(row)] for i, row in enumerate(m)]
    negative = 0
    while m:
        n = len(m)
        pivot = next((i for i in range(n) if m[i][i] != 0), None)
        if pivot is None:
            where = next(((i, j) for i in range(n) for j in range(i) if m[i][j] != 0), None)
            if where is None:
                break
            pivot, j = where
            m[pivot] = [a + b for a, b in zip(m[pivot], m[j], strict=True)]
            for row in m:
                row[pivot] += row[j]
        value = m[pivot][pivot]
        negative += value < 0
        rest = [i for i in range(n) if i != pivot]
        m = [[m[i][j] - m[i][pivot] * m[pivot][j] / value for j in rest] for i in rest]
    return negative, len(m)


def exact_gram(rows: np.ndarray) -> list[list[Fraction]]:
    columns = [[Fraction(x) for x in column] for column in rows.T.tolist()]
    return [[sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0)) for b in columns] for a in columns]


def claim_holds(rows: np.ndarray, step: dict[str, Any]) -> bool:
    """Whether what a step states is true, in exact arithmetic."""
    chosen = named_rows(rows, step)
    if step["kind"] == "rank":
        below, equal = eigenvalues_below(exact_gram(chosen), Fraction(0))
        return chosen.shape[1] - below - equal >= step["rank"]
    sided = chosen if step["side"] == "directions" else chosen.T
    m, size, few = exact_gram(sided), sided.shape[1], len(step["vectors"])
    if step["at_most"] is not None:
        below, equal = eigenvalues_below(m, Fraction(step["at_most"]) ** 2)
        if below + equal < few:
            return False
    if step["at_least"] is not None:
        below, _ = eigenvalues_below(m, Fraction(step["at_least"]) ** 2)
        if size - below < size - few:
            return False
    return True
