"""Quadratic bounds over a ball and half-spaces as steps of a statement file: the search for their evidence.

Nothing here is trusted. The bound is that of the exact dual value which the checker itself computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sae_verify.certificates.linear import write_factor
from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Array
from sae_verify.checker.statements.quadratic import KIND, Evidence, Quadratic, dual_value
from sae_verify.errors import InputError

FACTOR_BITS = 30
"""Of the factor's largest entry. Entries of L L^T are then near 2^60 at most and fit a machine word, on which the
verified checker is fastest; what is rounded away costs a shift of about order * 2^-30 of the matrix's size."""
VECTOR_BITS = 50
STEPS = 400
"""Of the search for multipliers, at most."""
HALVINGS = 200
ATTEMPTS = 40
"""Doublings of the room that is left for the factor's rounding."""


def quadratic_evidence(question: Quadratic, multipliers: Array | None = None, bits: int = FACTOR_BITS) -> Evidence:
    """Shift, factor, vector and multipliers that prove a bound near the least one that trust region duality gives.

    Args:
        question: a symmetric matrix and finite numbers.
        multipliers: (k,), not negative for half-spaces; None has them searched by projected gradient steps.
        bits: of the factor.

    Raises:
        InputError: the checker rejects whatever is tried: a shape, a sign or a number is out of place.
    """
    if not np.isfinite(question.matrix).all():
        raise InputError(
            "a quadratic bound takes finite numbers; found an infinite or undefined entry; check the matrix"
        )
    spectrum, basis = np.linalg.eigh(question.matrix)
    normals = question.normals @ basis
    with np.errstate(all="ignore"):  # steps of the search may be far too long; what they lead to is not kept
        prices = _search(question, spectrum, normals, question.linear @ basis) if multipliers is None else multipliers
    turned = question.linear @ basis - prices @ normals
    least = _shift(spectrum, turned, question.radius)
    size = max(float(np.abs(least - spectrum).max()), float(np.abs(spectrum).max()), 2.0**-500)
    room = size * len(spectrum) * 2.0**-bits
    reason = "nothing was tried"
    for _ in range(ATTEMPTS):
        shift = max(least, float(spectrum[-1]) + room, 0.0)
        gap = np.maximum(shift - spectrum, np.finfo(float).tiny)
        centre = turned / gap if question.radius > 0 else np.zeros_like(turned)
        vector = _rounded(basis @ centre, VECTOR_BITS)
        lowered = (shift - 0.9 * room) * np.eye(len(spectrum)) - question.matrix
        try:
            lower: Array = np.asarray(np.tril(np.linalg.cholesky(lowered)), dtype=np.float64)
            factor = _rounded(lower, bits)
            evidence = Evidence(shift, factor, vector, np.asarray(prices, dtype=np.float64))
            dual_value(question, evidence)
            return evidence
        except np.linalg.LinAlgError as error:
            reason = str(error)
        except Rejected as error:
            reason = str(error)
            if "dominant" not in reason:  # more room would not help
                break
        room *= 2.0
    raise InputError(f"no evidence for the quadratic bound is accepted ({reason}); check symmetry, signs and shapes")


def quadratic_step(
    question: Quadratic, evidence: Evidence, directory: Path, name: str, upper: float | None = None
) -> dict[str, Any]:
    """The `quadratic` step; its matrices are written to `directory`, beside the statement file.

    Args:
        question: what is bounded.
        evidence: what proves it.
        directory: where the matrices are written.
        name: what their files' names begin with.
        upper: the bound to claim; None takes the least float that the evidence proves.

    Raises:
        InputError: the evidence does not prove the bound.
    """
    try:
        proven = dual_value(question, evidence)
        claimed = proven.rounded_up() if upper is None else upper
    except Rejected as reason:
        raise InputError(f"the checker rejects the evidence: {reason}") from None
    if not proven.at_most(claimed):
        raise InputError(
            f"the evidence proves {proven.rounded_up()!r}, not {claimed!r}; claim no less, or search better"
        )

    def rows(key: str, chosen: np.ndarray) -> dict[str, Any] | None:
        if not chosen.any():
            return None
        stored = write_factor(question.normals[chosen], directory / f"{name}.{key}.npy")
        return {"rows": stored, "levels": question.levels[chosen].tolist()}

    return {
        "kind": "quadratic",
        "theorem": KIND.theorem,
        "matrix": write_factor(question.matrix, directory / f"{name}.matrix.npy"),
        "linear": question.linear.tolist(),
        "constant": question.constant,
        "radius": question.radius,
        "halfspaces": rows("halfspaces", ~question.equal),
        "equalities": rows("equalities", question.equal),
        "upper": claimed,
        "shift": evidence.shift,
        "factor": write_factor(evidence.factor, directory / f"{name}.factor.npy"),
        "vector": evidence.vector.tolist(),
        "multipliers": {
            "halfspaces": evidence.multipliers[~question.equal].tolist(),
            "equalities": evidence.multipliers[question.equal].tolist(),
        },
    }


def _shift(spectrum: Array, turned: Array, radius: float) -> float:
    """The m >= 0, at least the largest eigenvalue, of least m radius^2 / 2 + sum turned^2 / (m - spectrum) / 2.

    The value is convex in m, and its slope says whether ||(m - Q)^-1 a|| exceeds the radius.
    """
    top = float(spectrum[-1])
    low = max(top, 0.0)
    reach = float(np.linalg.norm(turned)) / radius if radius > 0 else 0.0
    high = max(low, top + reach)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if np.linalg.norm(turned / (middle - spectrum)) > radius else (low, middle)
    return high


def _value(question: Quadratic, spectrum: Array, turned: Array, prices: Array) -> tuple[float, Array]:
    """The dual value of some multipliers, and in the eigenbasis the y at which their slope is taken."""
    m = _shift(spectrum, turned, question.radius)
    gap = np.maximum(m - spectrum, 1e-14 * max(abs(m), float(np.abs(spectrum).max()), 1e-300))
    y = turned / gap
    value = question.constant + prices @ question.levels + 0.5 * m * question.radius**2 + 0.5 * float(turned @ y)
    return float(value), y


def _search(question: Quadratic, spectrum: Array, normals: Array, linear: Array) -> Array:
    """Multipliers of a small dual value: projected gradient steps of Barzilai and Borwein's lengths."""
    prices = np.zeros(len(question.levels))
    if not prices.size:
        return prices
    value, y = _value(question, spectrum, linear, prices)
    slope = question.levels - normals @ y
    best, kept = value, prices
    length = 1.0 / max(float(np.linalg.norm(slope)), 1e-300)
    for _ in range(STEPS):
        trial = prices - length * slope
        trial = np.where(question.equal, trial, np.maximum(trial, 0.0))
        moved = trial - prices
        if not np.isfinite(moved).all() or not moved.any():
            break
        value, y = _value(question, spectrum, linear - trial @ normals, trial)
        if not np.isfinite(value) or value > best + abs(best) + 1.0:  # far too long a step
            length *= 0.25
            continue
        if value < best:
            best, kept = value, trial
        turn = question.levels - normals @ y - slope
        curved = float(moved @ turn)
        length = float(moved @ moved) / curved if curved > 0 else 2.0 * length
        prices, slope = trial, slope + turn
    return kept


def _rounded(values: Array, bits: int) -> Array:
    """Values as multiples of a power of two, the largest with this many bits."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return values
    unit = 2.0 ** (int(np.frexp(largest)[1]) - bits)
    return np.asarray(np.rint(values / unit) * unit, dtype=np.float64)
