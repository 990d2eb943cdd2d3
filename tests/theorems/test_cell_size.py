"""Theorem cell-size in rationals, with members of the cell constructed exactly; and the checker's use of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from geometry.cells import cell_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.checker.errors import Rejected
from sae_verify.checker.independence import defect
from sae_verify.checker.statements.cell_bounded import left_inverse
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.cell_size import inner_radius

from .exact import (
    Matrix,
    Vector,
    add,
    at_most_root,
    dot,
    matrices,
    minus_identity,
    product,
    refutation,
    root,
    solve,
    squares,
    times,
    transpose,
    vectors,
)

D = 2
SMALL = st.integers(-2, 2)
EXTRA = st.sampled_from([Fraction(0), Fraction(1, 4), Fraction(1), Fraction(5)])


@dataclass(frozen=True)
class Ball:
    """An equality, a member of its null space, a row with its room, a multiplier."""

    equal: Vector
    delta: Vector
    row: Vector
    room: Fraction
    mu: Fraction


@st.composite
def balls(draw: st.DrawFn) -> Ball:
    equal, row = draw(vectors(3)), draw(vectors(3))
    square = dot(equal, equal)
    raw = draw(vectors(3))
    delta = raw if square == 0 else add(raw, equal, -dot(equal, raw) / square)
    best = Fraction(0) if square == 0 else dot(row, equal) / square
    return Ball(equal, delta, row, draw(EXTRA), best + draw(st.sampled_from([Fraction(0), Fraction(1, 3)])))


def escapes(b: Ball, *, shortened: bool = True, equality: bool = True) -> bool:
    """R ||w - mu a|| <= s with r = ||delta||, and yet w . delta > s; the options are mutants."""
    short = add(b.row, b.equal, -b.mu) if shortened else [x / 2 for x in b.row]
    delta = b.delta if equality else add(b.delta, b.equal)
    enough = dot(delta, delta) * dot(short, short) <= b.room**2
    return enough and dot(b.row, delta) > b.room


@given(balls())
@settings(max_examples=150)
def test_the_inner_radius_is_inside(b: Ball) -> None:
    assert not escapes(b)


def test_half_the_row_is_refuted() -> None:
    refutation(balls(), lambda b: escapes(b, shortened=False))


def test_a_perturbation_that_breaks_the_equality_is_refuted() -> None:
    refutation(balls(), lambda b: escapes(b, equality=False))


@given(balls())
@settings(max_examples=100)
def test_the_searchs_radius_is_the_exact_one(b: Ball) -> None:
    """(a) is an equivalence: r^2 ||P w||^2 = s^2 for the radius that the search gives."""
    square = dot(b.equal, b.equal)
    free = b.row if square == 0 else add(b.row, b.equal, -dot(b.row, b.equal) / square)
    as_float = [[float(x) for x in v] for v in (b.equal, b.row)]
    radius = inner_radius(cell_of(3, [as_float[0]], (1.0, np.array([as_float[1]]), np.array([float(b.room)]))))
    if not any(free):
        assert radius == np.inf
    else:
        assert radius == pytest.approx(float(b.room) / float(dot(free, free)) ** 0.5, rel=1e-12)


@dataclass(frozen=True)
class Bounded:
    """Everything of part (c): a member of the cell, rows, room, multipliers and any left inverse."""

    delta: Vector
    equal: Matrix
    rows: Matrix
    room: Vector
    mu: Vector
    f: Vector
    at_equal: Matrix
    inverse: Matrix

    @property
    def rest(self) -> Vector:
        v = [Fraction(0)] * len(self.delta)
        for multiplier, row in zip([*self.mu, *self.f], [*self.equal, *self.rows], strict=True):
            v = add(v, row, multiplier)
        return v

    @property
    def miss(self) -> Fraction:
        left = [[*a, *b] for a, b in zip(self.at_equal, self.inverse, strict=True)]
        return root(squares(minus_identity(product(left, [*self.equal, *self.rows]))), up=True)

    def corners(self, total: Fraction) -> Fraction:
        """max_j ||L s - S l_j / f_j||^2."""
        start = times(self.inverse, self.room)
        columns = transpose(self.inverse, len(self.f))
        return max(squares([add(start, c, -total / f)]) for c, f in zip(columns, self.f, strict=True))

    def steepest(self) -> Fraction:
        columns = transpose(self.inverse, len(self.f))
        return max(root(squares([c]), up=True) / abs(f) for c, f in zip(columns, self.f, strict=True))


def exceeds(b: Bounded, *, defect_: bool = True, rest: bool = True, members: str = "corners") -> bool:
    """||delta|| > V / (1 - c - eta T); the options are mutants."""
    c = b.miss if defect_ else Fraction(0)
    eta = root(squares([b.rest]), up=True) if rest else Fraction(0)
    left = 1 - c - eta * b.steepest()
    if left <= 0:
        return False
    total = dot(b.f, b.room)
    square = b.corners(total) if members == "corners" else squares([times(b.inverse, b.room)])
    return not at_most_root(left, Fraction(1), square / dot(b.delta, b.delta)) if any(b.delta) else False


@st.composite
def boundeds(draw: st.DrawFn, width: int = D) -> Bounded:
    """Rows that nearly cancel with their multipliers: the last one is chosen so, then rounded."""
    delta = draw(vectors(width, SMALL))
    shrink = draw(st.sampled_from([1, 1, 3, 100]))
    delta = [x / shrink for x in delta]
    square = dot(delta, delta)
    equal = draw(matrices(draw(st.integers(0, 1)), width, SMALL))
    if square:
        equal = [add([x * square for x in row], delta, -dot(row, delta)) for row in equal]
    mu = draw(vectors(len(equal), SMALL))
    count = draw(st.integers(width, width + 1))
    rows = draw(matrices(count, width, SMALL))
    f = [Fraction(n, 2) for n in draw(st.lists(st.integers(1, 4), min_size=count + 1, max_size=count + 1))]
    last = [Fraction(0)] * width
    for multiplier, row in zip([*mu, *f], [*equal, *rows], strict=False):
        last = add(last, row, -multiplier / f[-1])
    digits = draw(st.sampled_from([1, 4, 1000]))
    rows.append([Fraction(round(x * digits), digits) for x in last])
    room = [max(Fraction(0), dot(row, delta)) + draw(EXTRA) for row in rows]
    whole = np.array([[float(x) for x in row] for row in [*equal, *rows]])
    guess = np.linalg.pinv(whole) if whole.any() else np.zeros(whole.shape[::-1])
    fine = draw(st.sampled_from([4, 64, 10**6]))
    left = [[Fraction(round(x * fine), fine) for x in line] for line in guess]
    cut = len(equal)
    return Bounded(delta, equal, rows, room, mu, f, [line[:cut] for line in left], [line[cut:] for line in left])


@given(boundeds())
@settings(max_examples=200)
def test_the_size_holds(b: Bounded) -> None:
    assert not exceeds(b)


def test_the_premise_is_met_with_defect_and_rest() -> None:
    refutation(
        boundeds(),
        lambda b: any(b.rest) and b.miss > 0 and 1 - b.miss - root(squares([b.rest]), up=True) * b.steepest() > 0,
    )


def test_the_size_is_attained_by_a_simplex() -> None:
    """A corner of the simplex is in it, so the statement is sharp there."""

    def attained(b: Bounded) -> bool:
        exact = b.miss == 0 and not any(b.rest) and any(b.delta)
        return exact and b.corners(dot(b.f, b.room)) == dot(b.delta, b.delta)

    refutation(boundeds(), attained, 20000)


def test_without_the_defect_is_refuted() -> None:
    refutation(boundeds(), lambda b: exceeds(b, defect_=False), 20000)


def test_without_the_rest_is_refuted() -> None:
    refutation(boundeds(), lambda b: exceeds(b, rest=False), 20000)


def test_the_point_where_all_room_is_used_up_is_refuted() -> None:
    refutation(boundeds(), lambda b: exceeds(b, members="start"))


def test_a_negative_multiplier_is_refuted() -> None:
    def wrong(b: Bounded) -> bool:
        return exceeds(replace(b, f=[-b.f[0], *b.f[1:]]))

    refutation(boundeds(), wrong, 20000)


def test_less_room_than_the_cell_has_is_refuted() -> None:
    refutation(boundeds(), lambda b: exceeds(replace(b, room=[x / 2 for x in b.room])), 20000)


RAYS = st.tuples(vectors(2), vectors(2), EXTRA, st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(100)]))
"""A direction, a row, its room, t."""


def ray_leaves(case: tuple[Vector, Vector, Fraction, Fraction], *, strict: bool, guarded: bool = True) -> bool:
    """The premises of (d) hold for one row, and yet t delta != 0 leaves its half-space; `guarded` off is a mutant."""
    direction, row, room, t = case
    rise = dot(row, direction)
    premise = rise <= 0 and (not strict or not guarded or rise < 0 or room > 0)
    inside = t * rise < room if strict else t * rise <= room
    return premise and t > 0 and not inside


@given(RAYS, st.booleans())
@settings(max_examples=100)
def test_a_ray_stays(case: tuple[Vector, Vector, Fraction, Fraction], strict: bool) -> None:
    assert not ray_leaves(case, strict=strict)


def test_resting_on_a_boundary_that_is_outside_is_refuted() -> None:
    refutation(RAYS, lambda case: ray_leaves(case, strict=True, guarded=False))


@given(matrices(4, 2, SMALL), st.lists(st.integers(0, 2), min_size=4, max_size=4))
@settings(max_examples=150)
def test_the_search_agrees_with_exact_enumeration(rows: Matrix, room: list[int]) -> None:
    """(e) in the plane: a cone {W y <= 0} is not {0} iff one of the rows' normals, turned by 90 degrees, is in it."""
    turned = [[s * row[1], -s * row[0]] for row in rows for s in (1, -1)]
    rays = turned if any(any(row) for row in rows) else [[Fraction(1), Fraction(0)]]
    endless = any(any(ray) and all(dot(row, ray) <= 0 for row in rows) for ray in rays)
    whole = np.array([[float(x) for x in row] for row in rows])
    found = recession(cell_of(2, None, (1.0, whole, np.array(room, dtype=float))))
    assert found.verdict == ("unbounded" if endless else "bounded")
    if endless:
        assert found.direction is not None
        assert (whole @ found.direction).max() <= 1e-9
        return
    assert found.radius is not None
    for corner in corners(rows, [Fraction(s) for s in room]):  # the farthest points of a bounded cell
        assert float(dot(corner, corner)) ** 0.5 <= found.radius * (1 + 1e-8) + 1e-12


def corners(rows: Matrix, room: Vector) -> list[Vector]:
    """Every vertex of {W y <= s} in the plane."""
    found = []
    for i in range(len(rows)):
        for j in range(i):
            at = solve([rows[i], rows[j]], [room[i], room[j]])
            if at is not None and all(dot(row, at) <= s for row, s in zip(rows, room, strict=True)):
                found.append(at)
    return found


@given(matrices(5, 3, SMALL), st.lists(st.integers(1, 5), min_size=5, max_size=5), st.integers(0, 2))
@settings(max_examples=100)
def test_the_checkers_left_inverse_is_one(rows: Matrix, f: list[int], fixed: int) -> None:
    """Nothing is assumed of it; this is that it is good enough to prove something, or gives up."""
    whole = np.array([[float(x) for x in row] for row in rows])
    try:
        at_equal, inverse = left_inverse(whole[:fixed], whole[fixed:], np.array(f[fixed:], dtype=float))
    except Rejected:
        assert np.linalg.matrix_rank(whole) < 3
        return
    miss = defect(np.concatenate([at_equal, inverse], axis=1), whole)
    assert miss < 1e-9 if np.linalg.matrix_rank(whole) == 3 else not miss < 0.5
