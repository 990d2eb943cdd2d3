"""Exact rational linear algebra, and the search for counter-examples that every mutant must fall to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

Vector = list[Fraction]
Matrix = list[Vector]
T = TypeVar("T")

INTEGERS = st.integers(-4, 4)
POSITIVE = st.fractions(Fraction(1, 8), 8, max_denominator=8)


def refutation(strategy: st.SearchStrategy[T], refutes: Callable[[T], bool], examples: int = 4000) -> T:
    """A counter-example to a wrong statement; raises NoSuchExample when the strategy has none to show."""
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),  # type: ignore[arg-type]
    )
    return hypothesis.find(strategy, refutes, settings=settings)


def vectors(n: int, entries: st.SearchStrategy[int] = INTEGERS) -> st.SearchStrategy[Vector]:
    return st.lists(entries, min_size=n, max_size=n).map(lambda v: [Fraction(x) for x in v])


def matrices(n: int, d: int, entries: st.SearchStrategy[int] = INTEGERS) -> st.SearchStrategy[Matrix]:
    flat = st.lists(entries, min_size=n * d, max_size=n * d)
    return flat.map(lambda v: [[Fraction(x) for x in v[i * d : (i + 1) * d]] for i in range(n)])


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def add(a: Vector, b: Vector, scale: Fraction | int = 1) -> Vector:
    """A + scale * b."""
    return [x + scale * y for x, y in zip(a, b, strict=True)]


def centre(v: Vector) -> Vector:
    mean = sum(v, Fraction(0)) / len(v)
    return [x - mean for x in v]


def times(m: Matrix, v: Vector) -> Vector:
    return [dot(row, v) for row in m]


def transpose(m: Matrix, width: int) -> Matrix:
    return [[row[i] for row in m] for i in range(width)]


def product(a: Matrix, b: Matrix) -> Matrix:
    columns = transpose(b, len(b[0]))
    return [[dot(row, column) for column in columns] for row in a]


def minus_identity(m: Matrix) -> Matrix:
    return [[x - (i == j) for j, x in enumerate(row)] for i, row in enumerate(m)]


def squares(m: Matrix) -> Fraction:
    """Squared Frobenius norm."""
    return sum((x * x for row in m for x in row), Fraction(0))


def root(x: Fraction, *, up: bool) -> Fraction:
    """The square root to 50 digits, rounded outward or inward."""
    context = Context(prec=60)
    near = Fraction(context.sqrt(context.divide(Decimal(x.numerator), Decimal(x.denominator))))
    return near * (1 + Fraction(1, 10**50) * (1 if up else -1))


def solve(m: Matrix, right: Vector) -> Vector | None:
    """The solution of a square system, or None if it is singular."""
    n = len(m)
    rows = [[*row, r] for row, r in zip(m, right, strict=True)]
    for i in range(n):
        pivot = next((j for j in range(i, n) if rows[j][i] != 0), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for j in range(n):
            if j != i:
                rows[j] = add(rows[j], rows[i], -rows[j][i])
    return [row[-1] for row in rows]


def rank(m: Matrix) -> int:
    rows, found = [list(row) for row in m], 0
    for column in range(len(m[0]) if m else 0):
        pivot = next((j for j in range(found, len(rows)) if rows[j][column] != 0), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for j in range(found + 1, len(rows)):
            rows[j] = add(rows[j], rows[found], -rows[j][column] / rows[found][column])
        found += 1
    return found


def at_most_root(a: Fraction, b: Fraction, square: Fraction) -> bool:
    """Whether a <= b sqrt(square), exactly; square >= 0."""
    if b >= 0:
        return a <= 0 or a * a <= b * b * square
    return a <= 0 and a * a >= b * b * square
