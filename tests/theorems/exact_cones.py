"""Cones of small rational dictionaries, decided exactly by enumeration."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

from .exact import Matrix, Vector, add, dot, rank, solve, times


def combination(rows: Matrix, f: Vector, width: int) -> Vector:
    """The sum of f_j times row j."""
    total = [Fraction(0)] * width
    for row, weight in zip(rows, f, strict=True):
        total = add(total, row, weight)
    return total


def nearest_square(rows: Matrix, x: Vector, active: int | None = None) -> Fraction:
    """The least ||x - f rows||^2 over f >= 0 with at most `active` positive entries.

    Some nearest code has independent rows in use, and solves their normal equations.
    """
    best = dot(x, x)
    for size in range(1, min(len(x), len(rows), len(rows) if active is None else active) + 1):
        for chosen in combinations(rows, size):
            gram = [[dot(a, b) for b in chosen] for a in chosen]
            f = solve(gram, times(list(chosen), x))
            if f is not None and all(v >= 0 for v in f):
                rest = add(x, combination(list(chosen), f, len(x)), -1)
                best = min(best, dot(rest, rest))
    return best


def reaches_everything(rows: Matrix, width: int) -> bool:
    """Whether every vector is f rows for some f >= 0: the rows span, and no y != 0 has rows y <= 0.

    If they span, such y form a pointed cone, so one of them is orthogonal to width - 1 independent rows.
    """
    rows = [row for row in rows if any(row)]
    if rank(rows) < width:
        return False
    for chosen in combinations(rows, width - 1):
        y = _orthogonal(list(chosen), width)
        if y is None:
            continue
        products = times(rows, y)
        if all(p <= 0 for p in products) or all(p >= 0 for p in products):
            return False
    return True


def _orthogonal(rows: Matrix, width: int) -> Vector | None:
    """The vector orthogonal to width - 1 rows, up to a factor; None if they are dependent."""
    if rank(rows) < width - 1:
        return None
    for i in range(width):
        unit = [Fraction(int(i == j)) for j in range(width)]
        y = solve([*rows, unit], [Fraction(0)] * (width - 1) + [Fraction(1)])
        if y is not None:
            return y
    return None
