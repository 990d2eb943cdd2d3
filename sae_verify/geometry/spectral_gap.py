"""Evidence that some singular values are small and all others are not, for the checker.

Theorem: spectral-gap. The search gives the directions of the small ones and two numbers with room to spare; the checker
needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any, Literal

import numpy as np

from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import Features, Matrix, named, select
from sae_verify.geometry.spectrum import RELATIVE, spectrum
from sae_verify.sae.base import SAE

Side = Literal["directions", "rows"]

GRAM_BLOCK, FACTOR_BLOCK = 256, 64
"""Products that the checker sums at a time, in a Gram matrix and in the square of a factor; its bounds depend on it."""
ROUNDING = 1.25 * 2.0**-53
"""A quarter more than the unit roundoff: the checker's bounds are the plain formula and some per cent."""
SLACK = 1e-6
"""Relative room on each side, above the accuracy of the search's own singular values. Costs tightness."""
FLOOR = 1e-100
"""Smallest claim of an upper side: below it squares approach the end of the range of floats. Costs tightness."""
DIGITS = 4
"""Of the claims, rounded outward, so that they read well."""


@dataclass(frozen=True)
class Gap:
    """The two claims: `count` of the singular values are <= at_most, the others >= at_least; null where none are."""

    count: int
    at_most: float | None
    at_least: float | None


def resolution(values: Array, count: int, few: int) -> float:
    """The smallest lower claim that the checker can be expected to prove, in the units of the singular values.

    About sqrt(500 * 2^-53) of the rows' Frobenius norm: rounding of the Gram matrix and of its factor.

    Args:
        values: (size,) all singular values, falling.
        count: rows of the matrix on whose columns' side they are.
        few: how many are claimed to be small.

    """
    size = len(values)
    summed = _chain(count, GRAM_BLOCK) + _chain(few, GRAM_BLOCK) + 2 * _chain(size, FACTOR_BLOCK)
    weight = float((values**2).sum()) + few * _shift(values, few) ** 2
    return float(np.sqrt(summed * ROUNDING * weight))


def _chain(n: int, block: int) -> int:
    """Length of the longest chain of additions when n products are summed in blocks, and a few more."""
    return min(n, block) + -(-n // block) + 4


def _shift(values: Array, few: int) -> float:
    """At least what the checker multiplies the small directions by before it adds them to the rows."""
    kept = values[: len(values) - few]
    return 2.1 * max(float(kept[-1]) if kept.size else 0.0, float(np.sqrt((values**2).mean())))


def singular_values_step(
    sae: SAE,
    features: Features = None,
    *,
    matrix: Matrix = "decoder",
    relative: float = RELATIVE,
    side: Side | None = None,
) -> dict[str, Any]:
    """Evidence for "exactly k of the singular values are <= tau1, the others are >= tau2" of the stored rows.

    k counts those up to `relative` of the largest; the claims are as sharp as the check allows, to `DIGITS` digits.

    Args:
        sae: loaded from disk.
        features: which rows; None for all.
        matrix: decoder rows or encoder columns.
        relative: share of the largest singular value; 0 asks for a lower bound on all of them.
        side: `directions` for the d singular values over all of R^d, missing ones being zero; `rows` for the n
            singular values of n <= d rows, which are positive when the rows are independent. None takes `rows` for
            fewer rows than dimensions.

    Raises:
        InputError: `side` is `rows` and there are no rows, or more of them than dimensions.
        UnsupportedError: the smallest of the others is below what the check resolves.
        Otherwise errors as `spectrum`.

    """
    rows = select(sae, features, matrix)
    if side is None:
        side = "rows" if 0 < len(rows) < rows.shape[1] else "directions"
    if side == "rows" and not 0 < len(rows) <= rows.shape[1]:
        raise InputError(
            f"{len(rows)} rows in {rows.shape[1]} dimensions",
            rule="side='rows' is for 1 to d rows",
            remedy="use side='directions'",
        )
    sided = rows if side == "directions" else rows.T
    found = spectrum(sided, small=relative)
    gap = _claims(found.values, sided.shape[0], found.vectors.shape[1])
    return {
        "kind": "singular-values",
        "theorem": "spectral-gap",
        "rows": named(features, matrix),
        "side": side,
        "vectors": found.vectors.T.tolist(),
        "at_most": gap.at_most,
        "at_least": gap.at_least,
    }


def _claims(values: Array, count: int, few: int) -> Gap:
    """The sharpest claims that the check should accept."""
    size = len(values)
    at_most = at_least = None
    if few:
        product = size * ROUNDING * float(np.sqrt(few * (values**2).sum()))  # of the rows with the directions
        at_most = _rounded(float(values[size - few]) * (1.0 + SLACK) + 2.0 * product + FLOOR, up=True)
    if few < size:
        kept, limit = float(values[size - few - 1]) * (1.0 - SLACK), resolution(values, count, few)
        if not kept > limit or not np.isfinite(limit):
            raise UnsupportedError(
                f"the smallest of the {size - few} larger singular values is {kept:.3g}",
                rule=f"with this rounding a lower bound can be proven above {limit:.3g} only",
                remedy="count it among the small ones (a larger `relative`), or state the rank alone",
            )
        at_least = _rounded(float(np.sqrt((kept - limit) * (kept + limit))), up=False)
        if at_most is not None and not at_most < at_least:
            raise UnsupportedError(
                f"{few} singular values are <= {at_most:g} and the others >= {at_least:g}",
                rule="the two sides must not meet",
                remedy="choose `relative` at a gap of the spectrum",
            )
    return Gap(few, at_most, at_least)


def _rounded(value: float, *, up: bool) -> float:
    """The nearest number of few digits that is not on the wrong side; decimal rounding itself is covered by SLACK."""
    return float(Context(prec=DIGITS, rounding=ROUND_CEILING if up else ROUND_FLOOR).create_decimal_from_float(value))
