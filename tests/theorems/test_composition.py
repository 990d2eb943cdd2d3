"""Theorem composition: bounds combine on finite sets and trees of regions, exactly; wrong combinations are refuted."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import Vector, add, at_most_root, dot, refutation, vectors

POINTS = range(8)
SCALES = st.sampled_from([Fraction(1), Fraction(10) ** 30, Fraction(1, 10**30)])


@dataclass(frozen=True)
class Node:
    """A region of points, and children; a leaf is proved when every value is at most tau."""

    region: frozenset[int]
    children: tuple[Node, ...] = field(default=())

    def accepted(self, values: Vector, tau: Fraction, *, cover: bool = True) -> bool:
        """What a checker asks: leaves are bounded, and children cover what may exceed tau."""
        if not self.children:
            return all(values[x] <= tau for x in self.region)
        open_points = {x for x in self.region if values[x] > tau}
        covered = open_points <= set().union(*(child.region for child in self.children))
        return (covered or not cover) and all(child.accepted(values, tau, cover=cover) for child in self.children)


REGIONS = st.frozensets(st.sampled_from(POINTS))
TREES = st.recursive(
    REGIONS.map(Node),
    lambda below: st.builds(Node, REGIONS, st.lists(below, min_size=1, max_size=3).map(tuple)),
    max_leaves=6,
)


@given(vectors(len(POINTS)), TREES, st.integers(-4, 4).map(Fraction))
@settings(max_examples=300)
def test_an_accepted_tree_proves_its_root(values: Vector, tree: Node, tau: Fraction) -> None:
    if tree.accepted(values, tau):
        assert all(values[x] <= tau for x in tree.region)


def test_trees_that_need_their_children_are_accepted_and_gaps_refuted() -> None:
    cases = st.tuples(vectors(len(POINTS)), TREES)

    def cut(c: tuple[Vector, Node]) -> bool:  # a child that leaves out some of the region, and not all is below tau
        dropped = c[1].region - set().union(frozenset(), *(child.region for child in c[1].children))
        return (
            bool(c[1].children) and bool(dropped) and bool(c[1].region - dropped) and c[1].accepted(c[0], Fraction(0))
        )

    assert refutation(cases, cut)
    assert refutation(
        cases, lambda c: c[1].accepted(c[0], Fraction(0), cover=False) and any(c[0][x] > 0 for x in c[1].region)
    )


@given(vectors(len(POINTS)), st.lists(REGIONS, min_size=1, max_size=4), REGIONS, SCALES)
def test_intersection_and_cases(
    values: Vector, parts: list[frozenset[int]], x: frozenset[int], scale: Fraction
) -> None:
    values = [v * scale for v in values]
    x = x & frozenset().union(*parts)
    bounds = [max((values[i] for i in part & x), default=-(10**9) * scale) for part in parts]
    assert all(values[i] <= max(bounds) for i in x)
    u, v = max(bounds), max((values[i] for i in x), default=Fraction(0))
    assert all(values[i] <= min(u, v) for i in x)


LINES = st.tuples(*[st.integers(-4, 4).map(Fraction)] * 4, st.fractions(0, 1, max_denominator=4), st.integers(0, 4))


@given(st.lists(LINES, min_size=1, max_size=4), SCALES)
def test_a_relaxation_step(entries: list[tuple[Fraction, ...]], scale: Fraction) -> None:
    """Each entry: coefficient, x, slopes of both lines, and where phi lies between them; offsets make the lines fit."""
    exact, relaxed = step(entries, scale)
    assert exact <= relaxed


def step(entries: list[tuple[Fraction, ...]], scale: Fraction, *, signs: bool = True) -> tuple[Fraction, Fraction]:
    """The sum and its relaxation; without signs, the upper line serves every coefficient."""
    exact, relaxed = Fraction(0), Fraction(0)
    for c, x, a, b, share, gap in entries:
        x = x * scale
        low_offset = -b  # lines b x - b and a x + offset, a gap apart at x
        high_offset = b * x + low_offset + gap - a * x
        phi = b * x + low_offset + share * gap
        exact += c * phi
        relaxed += c * (a * x + high_offset if c >= 0 or not signs else b * x + low_offset)
    return exact, relaxed


def test_one_line_for_both_signs_is_refuted() -> None:
    def wrong(entries: list[tuple[Fraction, ...]]) -> bool:
        exact, relaxed = step(entries, Fraction(1), signs=False)
        return exact > relaxed

    assert refutation(st.lists(LINES, min_size=1, max_size=2), wrong)


@given(st.integers(1, 8), st.integers(1, 8), st.fractions(0, 1, max_denominator=16), st.fractions(0, 1), SCALES)
def test_the_lines_around_a_rectifier(low: int, up: int, at: Fraction, a: Fraction, scale: Fraction) -> None:
    l, u = -low * scale, up * scale  # noqa: E741
    x = l + at * (u - l)
    assert a * x <= max(x, Fraction(0)) <= u * (x - l) / (u - l)


def test_a_steeper_line_is_refuted() -> None:
    slopes = st.tuples(st.fractions(Fraction(9, 8), 2, max_denominator=8), st.integers(-3, 3))
    assert refutation(slopes, lambda c: c[0] * c[1] > max(c[1], 0))


def along(e: Vector, v: Vector) -> Vector:
    """The part of v orthogonal to e, which may be zero."""
    return add(v, e, -dot(v, e) / dot(e, e)) if any(e) else v


CURVED = st.tuples(vectors(3), vectors(3), vectors(3), st.integers(0, 3), st.integers(0, 2))


def excess(case: tuple[Vector, Vector, Vector, int, int], *, curvature: bool = True) -> tuple[Fraction, Fraction]:
    """F(delta) - F(0) - H r^2/2, and the square of r ||P g||, for F quadratic with curvature H."""
    e, g, v, h, spare = case
    delta, free = along(e, v), along(e, g)
    square = dot(delta, delta) + spare
    return dot(g, delta) + Fraction(h, 2) * (dot(delta, delta) - (square if curvature else 0)), dot(free, free) * square


@given(CURVED)
def test_curvature(case: tuple[Vector, Vector, Vector, int, int]) -> None:
    left, square = excess(case)
    assert at_most_root(left, Fraction(1), square)


def test_forgotten_curvature_is_refuted() -> None:
    assert refutation(CURVED, lambda c: not at_most_root(excess(c, curvature=False)[0], Fraction(1), excess(c)[1]))
