"""Theorem lowered-degree: ranges of products and what they leave, exactly; narrower forms are refuted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import Matrix, Vector, add, at_most_root, dot, matrices, refutation, times, vectors

N, K = 2, 3


@dataclass(frozen=True)
class Curved:
    """sum_j g_j (a_j . y)(b_j . y) for y of the unit ball."""

    left: Matrix
    right: Matrix
    gains: Matrix  # (entries, N)
    y: Vector

    def forms(self) -> Vector:
        return [dot(a, self.y) * dot(b, self.y) for a, b in zip(self.left, self.right, strict=True)]

    def ranges(self) -> list[tuple[Fraction, Fraction]]:
        """(a), whose identity holds for factors of any length."""
        found = []
        for a, b in zip(self.left, self.right, strict=True):
            plus, minus = add(a, b), add(a, b, -1)
            found.append((-dot(minus, minus) / 4, dot(plus, plus) / 4))
        return found


@st.composite
def curved(draw: st.DrawFn) -> Curved:
    left = draw(matrices(N, K))
    right = left if draw(st.booleans()) else draw(matrices(N, K))
    y = draw(vectors(K))
    while dot(y, y) > 1:
        y = [x / 2 for x in y]
    if draw(st.booleans()):  # on the sphere
        axis = draw(st.integers(0, K - 1))
        y = [Fraction(int(i == axis)) for i in range(K)]
    return Curved(left, right, draw(matrices(N, N)), y)


@given(curved())
@settings(max_examples=150)
def test_products_stay_in_their_range(case: Curved) -> None:
    for q, (low, high) in zip(case.forms(), case.ranges(), strict=True):
        assert low <= q <= high


def left_over(case: Curved) -> tuple[Vector, Vector, Vector]:
    """The error e of (b), the bounds of its entries, and the middles' part of the centre."""
    ranges = case.ranges()
    middles = [(low + high) / 2 for low, high in ranges]
    halves = [(high - low) / 2 for low, high in ranges]
    error = times(case.gains, add(case.forms(), middles, -1))
    box = [sum((abs(g) * half for g, half in zip(row, halves, strict=True)), Fraction(0)) for row in case.gains]
    return error, box, times(case.gains, middles)


@given(curved())
@settings(max_examples=150)
def test_what_is_left_is_in_its_box_and_no_longer_than_its_parts(case: Curved) -> None:
    error, box, middle = left_over(case)
    assert all(abs(e) <= b for e, b in zip(error, box, strict=True))
    exact = times(case.gains, case.forms())
    # |e| <= |sum g q| + |middle|: squared, 2 exact . (-middle) <= 2 |exact| |middle|.
    cross, both = -dot(exact, middle), dot(exact, exact) * dot(middle, middle)
    assert dot(error, error) == dot(exact, exact) + dot(middle, middle) + 2 * cross
    assert cross <= 0 or cross * cross <= both


@given(curved())
@settings(max_examples=150)
def test_products_together(case: Curved) -> None:
    """(c): each product is at most one factor's length times the other's value; and with one factor for all."""
    for a, b, q in zip(case.left, case.right, case.forms(), strict=True):
        assert at_most_root(abs(q), abs(dot(b, case.y)), dot(a, a))
    shared = [case.right[0]] * N
    value = times(case.gains, [dot(a, case.y) * dot(b, case.y) for a, b in zip(case.left, shared, strict=True)])
    mapped = times(case.gains, times(case.left, case.y))  # G A y
    assert dot(value, value) <= dot(shared[0], shared[0]) * dot(mapped, mapped)


def test_smaller_ranges_are_refuted() -> None:
    """Half the upper end, no lower end, or the box of a quarter of the range: each has a counter-example."""

    def above(case: Curved) -> bool:
        return any(q > high / 2 for q, (_, high) in zip(case.forms(), case.ranges(), strict=True))

    def below(case: Curved) -> bool:
        return any(q < 0 for q in case.forms())

    def outside(case: Curved) -> bool:
        error, box, _ = left_over(case)
        return any(abs(e) > b / 2 for e, b in zip(error, box, strict=True))

    for wrong in (above, below, outside):
        assert refutation(curved(), wrong) is not None
