"""Theorem every-radius: cells that are bounded, rays, caps and pinned cells, in rationals; each premise is needed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import Matrix, Vector, at_most_root, dot, matrices, rank, refutation, times, vectors

D = 2
SCALES = st.sampled_from([Fraction(1), Fraction(10) ** 20, Fraction(1, 10**20)])


@dataclass(frozen=True)
class Cell:
    """W delta <= s, a readout g . delta, and points to try."""

    rows: Matrix
    room: Vector
    g: Vector
    points: list[Vector]

    def within(self) -> list[Vector]:
        return [p for p in self.points if all(x <= s for x, s in zip(times(self.rows, p), self.room, strict=True))]

    def best(self, square: Fraction | None = None) -> Fraction:
        """The largest readout among the points of the cell with ||delta||^2 <= square."""
        inside = [p for p in self.within() if square is None or dot(p, p) <= square]
        return max((dot(self.g, p) for p in inside), default=Fraction(0))


def boxed(scale: Fraction, room: Vector) -> tuple[Matrix, Vector]:
    """|delta_i| <= room_i scale, of width zero where the room is: a cell inside the ball of its half-diagonal."""
    rows = [[Fraction(sign * (i == j)) for j in range(D)] for i in range(D) for sign in (1, -1)]
    return rows, [scale * abs(room[i]) for i in range(D) for _ in range(2)]


@st.composite
def cells(draw: st.DrawFn, bounded: bool = True) -> Cell:
    scale = draw(SCALES)
    rows, room = boxed(scale, draw(vectors(D)))
    if not bounded:
        rows, room = rows[1:], room[1:]
    corners = [[a * room[-3], b * room[-1]] for a in (-1, 0, 1) for b in (-1, 0, 1)]
    points = [*corners, *([x * scale for x in draw(vectors(D))] for _ in range(4))]
    return Cell(rows, room, draw(vectors(D)), points)


@given(cells(), st.integers(0, 5))
@settings(max_examples=200)
def test_a_bound_at_a_radius_that_contains_the_cell_holds_everywhere(c: Cell, more: int) -> None:
    square = c.room[0] ** 2 + c.room[2] ** 2
    assert all(dot(p, p) <= square for p in c.within())
    assert c.best() == c.best(square * (1 + more))
    assert c.best(square / 4) <= c.best(square)  # and a bound at a radius is one at every smaller


def test_each_premise_is_needed() -> None:
    # A radius that does not contain the cell; a cell with a ray; a cell bounded in one direction only.
    assert refutation(cells(), lambda c: c.best((c.room[0] ** 2 + c.room[2] ** 2) / 4) < c.best())
    assert refutation(cells(bounded=False), lambda c: c.best(c.room[1] ** 2 * 2 + c.room[0] ** 2) < c.best())


@given(cells(bounded=False), st.integers(1, 10**6))
def test_two_cases_cover_every_length(c: Cell, square: int) -> None:
    beyond = max((dot(c.g, p) for p in c.within() if dot(p, p) > square), default=Fraction(-(10**30)))
    assert all(dot(c.g, p) <= max(c.best(Fraction(square)), beyond) for p in c.within())


@given(vectors(D), vectors(D), vectors(D), SCALES)
def test_the_cap_holds_at_every_length(w: Vector, h: Vector, delta: Vector, scale: Fraction) -> None:
    z = [a + scale * b for a, b in zip(h, delta, strict=True)]
    assert at_most_root(dot(w, z), Fraction(1), dot(w, w) * (dot(z, z) + Fraction(1, 10**6)))


@given(matrices(3, D, st.integers(-1, 1)), vectors(D))
def test_pinned_cells_have_one_point(held: Matrix, delta: Vector) -> None:
    if rank(held) == D and not any(times(held, delta)):
        assert not any(delta)


def test_a_cell_that_is_not_pinned_has_more() -> None:
    pairs = st.tuples(matrices(3, D, st.integers(-1, 1)), vectors(D))
    assert refutation(pairs, lambda c: rank(c[0]) < D and any(c[1]) and not any(times(c[0], c[1])))
