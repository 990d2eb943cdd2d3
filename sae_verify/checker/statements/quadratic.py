"""An upper bound of a quadratic function over an l2 ball, half-spaces and equalities; a statement of numbers alone.

constant + g . y + y^T Q y / 2 <= upper for every y with ||y||_2 <= radius, w_i . y <= s_i and e_i . y = t_i, by trust
region duality (theory/16-trust-region.md, (a)): with M = m I - Q positive semidefinite, m >= 0, and
a = g - W^T nu - E^T mu, nu >= 0,

    constant + nu . s + mu . t + m radius^2 / 2 + v^T M v / 2 + radius ||a - M v||

is such a bound for every v. M is positive semidefinite if M - L L^T is diagonally dominant, its diagonal not negative,
whatever L is. All arithmetic is exact; nothing is rounded. The same is decided by a program that is proved in Coq
(`check_quadratic_sound`; theory/verified_checker.md).

Theorem: trust-region.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..arithmetic import Array
from ..errors import Rejected
from ..files import regular
from ..reader import Reader
from ..whole import Factor, Whole
from .ball import HEADER
from .subject import Kind, Subject, need

MAX_ORDER = 4096
MAX_ENTRIES = 2**25
"""Entries of all constraints together; both as in proofs/checker/text.ml."""
BLOCK = 256
"""Rows of the matrix, or of the constraints, that are held as Python integers at once."""
ROOT_BITS = 60
"""Where the least bound is asked for, the root is taken for a relative 2^-60 more, so that a checker that rounds it up
by a little less accepts, too."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """constant + linear . y + y^T matrix y / 2 over ||y||_2 <= radius and the constraints.

    Attributes:
        matrix: (d, d) symmetric.
        linear: (d,).
        normals: (k, d); row i says normals[i] . y <= levels[i], or = where `equal[i]`.
        levels, equal: (k,).
    """

    matrix: Array
    linear: Array
    constant: float
    radius: float
    normals: Array
    levels: Array
    equal: np.ndarray


@dataclass(frozen=True, eq=False)
class Evidence:
    """The shift m, a lower triangular factor L (d, d) of few bits, v (d,), a multiplier for every constraint (k,)."""

    shift: float
    factor: Array
    vector: Array
    multipliers: Array


@dataclass(frozen=True)
class DualValue:
    """fixed + root, where root^2 = square: twice the bound that the evidence proves."""

    fixed: Fraction
    square: Fraction

    def at_most(self, upper: float) -> bool:
        """Whether the bound is at most `upper`; exactly."""
        room = 2 * Fraction(upper) - self.fixed
        return room >= 0 and self.square <= room * room

    def rounded_up(self) -> float:
        """A float that is at least the bound, with the root raised by a relative 2^-ROOT_BITS."""
        top, bottom = self.square.numerator, self.square.denominator  # bottom is a power of two, perhaps an odd one
        scale = max(0, 2 * ROOT_BITS + 4 - top.bit_length() + bottom.bit_length())
        root = Fraction(math.isqrt((top << (2 * scale)) // bottom) + 1, 1 << scale) if top else Fraction(0)
        root *= 1 + Fraction(1, 2**ROOT_BITS)
        exact = (self.fixed + root) / 2
        try:
            near = float(exact)
        except OverflowError:
            raise Rejected("the bound is beyond the range of floats") from None
        return near if Fraction(near) >= exact else math.nextafter(near, math.inf)


def dual_value(q: Quadratic, e: Evidence) -> DualValue:
    """What the evidence proves, exactly.

    Raises:
        Rejected: the evidence proves nothing: a sign is wrong, or dominance fails.
    """
    need(q.radius >= 0, "the radius is negative")
    need(e.shift >= 0, "the shift is negative")
    need((e.multipliers[~q.equal] >= 0).all(), "a half-space has a negative multiplier")
    need(np.array_equal(q.matrix, q.matrix.T), "the matrix is not symmetric")
    need(not np.triu(e.factor, 1).any(), "the factor is not lower triangular")
    v, m, radius = Whole.of(e.vector), Whole.of(e.shift), Whole.of(q.radius)
    image = _dominant(q.matrix, m, Factor.of(e.factor), v)
    left, cost = Whole.of(q.linear), Whole.of(q.constant)
    used = np.flatnonzero(e.multipliers)
    for start in range(0, used.size, BLOCK):
        some = used[start : start + BLOCK]
        prices = Whole.of(e.multipliers[some])
        left = left - prices @ Whole.of(q.normals[some])
        cost = cost + prices @ Whole.of(q.levels[some])
    left = left + image - v * m
    two = Whole.of(2.0)
    fixed = two * cost + m * (radius * radius + v @ v) - v @ image
    root_square = two * two * radius * radius * (left @ left)
    return DualValue(fixed.fraction(), root_square.fraction())


def _dominant(matrix: Array, m: Whole, factor: Factor, v: Whole) -> Whole:
    """Q v; rejects unless m I - Q - L L^T is diagonally dominant and its diagonal is not negative."""
    parts, order = [], len(matrix)
    for start in range(0, order, BLOCK):
        rows = slice(start, min(start + BLOCK, order))
        block = Whole.of(matrix[rows])
        parts.append(block @ v)
        size = rows.stop - start
        at = (np.arange(size), np.arange(start, rows.stop))
        rest = factor.gram_rows(rows) + block
        diagonal = m - rest[at]
        off = abs(rest).sum(axis=1) - abs(rest[at])
        good = (diagonal - off).integers >= 0
        if not good.all():
            row = start + int(np.argmin(good))
            raise Rejected(f"m I - Q - L L^T is not diagonally dominant with a non-negative diagonal, at row {row}")
    e = max(part.exponent for part in parts)
    return Whole(np.concatenate([part.at(e) for part in parts]), e)


def read_quadratic(subject: Subject, step: Reader) -> tuple[Quadratic, Evidence]:
    """The question of a step and its evidence, shapes and sizes checked."""
    linear, vector = step.numbers("linear"), step.numbers("vector")
    d = len(linear)
    if not 0 < d <= MAX_ORDER:
        raise step.fail("linear", f"must be 1 to {MAX_ORDER} numbers")
    if len(vector) != d:
        raise step.fail("vector", f"must be {d} numbers")
    multipliers = Reader(step.raw("multipliers"), "multipliers", ("halfspaces", "equalities"))
    normals, levels, prices, equal = [], [], [], []
    for key in ("halfspaces", "equalities"):
        rows, heights = _constraints(subject, step, key, d)
        given = multipliers.numbers(key)
        if len(given) != len(rows):
            raise multipliers.fail(key, f"must be {len(rows)} numbers")
        normals.append(rows)
        levels.append(heights)
        prices.append(given)
        equal.append(np.full(len(rows), key == "equalities"))
    if sum(map(len, normals)) * d > MAX_ENTRIES:
        raise Rejected(f"more than the {MAX_ENTRIES} entries that the constraints may have")
    question = Quadratic(
        matrix=_stored(subject, step, "matrix", d, d),
        linear=linear,
        constant=step.number("constant"),
        radius=step.number("radius"),
        normals=np.concatenate(normals),
        levels=np.concatenate(levels),
        equal=np.concatenate(equal),
    )
    factor = _stored(subject, step, "factor", d, d)
    return question, Evidence(step.number("shift"), factor, vector, np.concatenate(prices))


def _constraints(subject: Subject, step: Reader, key: str, d: int) -> tuple[Array, Array]:
    """Rows and levels of `{rows, levels}`; none for null."""
    if step.raw(key) is None:
        return np.zeros((0, d)), np.zeros(0)
    named = Reader(step.raw(key), key, ("rows", "levels"))
    levels = named.numbers("levels")
    return _stored(subject, named, "rows", len(levels), d), levels


def _stored(subject: Subject, step: Reader, key: str, rows: int, width: int) -> Array:
    """A matrix of a .npy file beside the statement file, `{path, sha256}`, as float64."""
    named = Reader(step.raw(key), key, ("path", "sha256"))
    file = named.text("path")
    if Path(file).name != file:
        raise named.fail("path", "must be the plain name of a file beside the statement file")
    most = 8 * rows * width + HEADER
    with regular(subject.directory / file).open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise Rejected(f"{file}: more than the {most} bytes that a {rows} x {width} matrix may have")
    if hashlib.sha256(data).hexdigest() != named.text("sha256"):
        raise Rejected(f"{file}: the matrix is not the one that the statement speaks of")
    stored = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(stored, np.ndarray) or stored.dtype.str not in ("<f8", "<f4", "<f2"):
        raise Rejected(f"{file}: a matrix is a little-endian float array")
    if stored.shape != (rows, width) or not np.isfinite(stored).all():
        raise Rejected(
            f"{file}: the matrix has shape {stored.shape}, not {(rows, width)}, or values that are not finite"
        )
    return np.asarray(stored, dtype=np.float64)


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    question, evidence = read_quadratic(subject, step)
    upper = step.number("upper")
    proven = dual_value(question, evidence)
    need(proven.at_most(upper), f"the evidence does not prove {upper!r}")
    d, equalities = len(question.linear), int(question.equal.sum())
    halfspaces = len(question.equal) - equalities
    text = (
        f"quadratic function of order {d} over l2 radius {question.radius!r}, {halfspaces} half-spaces and "
        f"{equalities} equalities: <= {upper!r}"
    )
    values = {"upper": upper, "radius": question.radius, "order": d}
    return text, values | {"halfspaces": halfspaces, "equalities": equalities}


KIND = Kind(
    theorem="trust-region",
    keys=(
        *("matrix", "linear", "constant", "radius", "halfspaces", "equalities", "upper"),
        *("shift", "factor", "vector", "multipliers"),
    ),
    prove=_prove,
)
