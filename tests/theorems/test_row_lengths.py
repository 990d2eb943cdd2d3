"""Theorem row-lengths: with 60 digits, at vanishing norms, ties, tiny and huge errors; narrower forms are refuted."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import exp, mp, mpf, sqrt

from .exact import refutation

DIGITS = 60
ROUNDING = mpf(10) ** -45
D = 3

Vector = list[mpf]


def length(x: Vector) -> mpf:
    return sqrt(sum((a * a for a in x), mpf(0)))


def minus(x: Vector, y: Vector) -> Vector:
    return [a - b for a, b in zip(x, y, strict=True)]


@dataclass(frozen=True)
class Pair:
    """Two vectors: what is taken for the row, and the row."""

    taken: list[float]
    true: list[float]

    @property
    def vectors(self) -> tuple[Vector, Vector]:
        return [mpf(a) for a in self.taken], [mpf(a) for a in self.true]

    @property
    def far(self) -> mpf:
        taken, true = self.vectors
        return length(minus(true, taken))


NUMBERS = st.floats(-4, 4, allow_subnormal=False).map(lambda x: round(x, 3)) | st.sampled_from([0.0, 1.0, -1.0])
SIZES = st.sampled_from([1e-9, 1e-3, 0.3, 1.0, 50.0])


@st.composite
def pairs(draw: st.DrawFn, d: int = D) -> Pair:
    taken = draw(st.lists(NUMBERS, min_size=d, max_size=d))
    size = draw(SIZES)
    moved = draw(st.lists(NUMBERS, min_size=d, max_size=d))
    return Pair(taken, [a + size * b for a, b in zip(taken, moved, strict=True)])


EPSILONS = st.sampled_from([1e-12, 1e-5, 1.0])


def direction(z: Vector, epsilon: float) -> Vector:
    rho = sqrt(length(z) ** 2 / len(z) + mpf(epsilon))
    return [a / rho for a in z]


def turned(pair: Pair, epsilon: float, floor: float = 0.0, share: int = 1) -> tuple[mpf, mpf]:
    """What (b) bounds, and its bound; mutants have a length that does not shrink, or a share of the cap."""
    taken, true = pair.vectors
    least = max(length(taken) - pair.far, mpf(floor))
    bound = min(pair.far / sqrt(least * least / D + mpf(epsilon)), 2 * sqrt(mpf(D)) / share)
    return length(minus(direction(true, epsilon), direction(taken, epsilon))), bound


@given(pairs(), EPSILONS)
@settings(max_examples=200)
def test_norms(pair: Pair, epsilon: float) -> None:
    with mp.workdps(DIGITS):
        moved, bound = turned(pair, epsilon)
        assert moved <= bound * (1 + ROUNDING) + ROUNDING


@given(pairs(), pairs())
@settings(max_examples=200)
def test_inner_products_and_products(x: Pair, y: Pair) -> None:
    with mp.workdps(DIGITS):
        (a, b), (c, d) = x.vectors, y.vectors
        inner = sum((p * q for p, q in zip(b, d, strict=True)), mpf(0)) - sum(
            (p * q for p, q in zip(a, c, strict=True)), mpf(0)
        )
        assert abs(inner) <= length(a) * y.far + x.far * length(c) + x.far * y.far + ROUNDING
        entries = [p * q - r * s for p, q, r, s in zip(b, d, a, c, strict=True)]
        bound = max(abs(p) for p in a) * y.far + max(abs(q) for q in d) * x.far
        assert length(entries) <= bound + ROUNDING


@dataclass(frozen=True)
class Head:
    """Scores and values of some positions, and what they are taken for."""

    scores: list[float]
    errors: list[float]
    values: list[Pair]

    def weights(self, scores: list[mpf]) -> list[mpf]:
        top = max(scores)
        terms = [exp(s - top) for s in scores]
        return [t / sum(terms) for t in terms]

    def average(self, weights: list[mpf], true: bool) -> Vector:
        chosen = [pair.vectors[int(true)] for pair in self.values]
        return [sum((w * v[i] for w, v in zip(weights, chosen, strict=True)), mpf(0)) for i in range(D)]


@st.composite
def heads(draw: st.DrawFn) -> Head:
    n = draw(st.integers(1, 4))
    size = draw(st.sampled_from([1e-9, 0.01, 1.0, 30.0]))
    scores = draw(st.lists(st.floats(-20, 20).map(lambda x: round(x, 2)), min_size=n, max_size=n))
    errors = [size * e for e in draw(st.lists(NUMBERS, min_size=n, max_size=n))]
    return Head(scores, errors, draw(st.lists(pairs(), min_size=n, max_size=n)))


def averaged(head: Head, slack: float, power: int = 1) -> tuple[mpf, mpf, mpf]:
    """What (d) bounds around a vector near the average, and both bounds; a mutant leaves out e^r (power 0)."""
    scores = [mpf(s) for s in head.scores]
    p = head.weights(scores)
    q = head.weights([s + mpf(e) for s, e in zip(scores, head.errors, strict=True)])
    c = [a + mpf(slack) for a in head.average(p, true=False)]
    apart = [length(minus(pair.vectors[0], c)) for pair in head.values]
    r = max(abs(mpf(e)) for e in head.errors)
    steps = sum((w * (exp(abs(mpf(e))) - 1) * a for w, e, a in zip(p, head.errors, apart, strict=True)), mpf(0))
    far = max(pair.far for pair in head.values)
    near = far + exp(r) ** power * (length(minus(head.average(p, true=False), c)) + steps)
    return length(minus(head.average(q, true=True), c)), near, far + max(apart)


@given(heads(), st.sampled_from([0.0, 1e-6, 0.5]))
@settings(max_examples=200)
def test_averages(head: Head, slack: float) -> None:
    with mp.workdps(DIGITS):
        moved, near, anyway = averaged(head, slack)
        assert moved <= near * (1 + ROUNDING) + ROUNDING
        assert moved <= anyway * (1 + ROUNDING) + ROUNDING


def test_narrower_forms_are_refuted() -> None:
    """A length that does not shrink on the way, half the cap of a norm, and averages without e^r."""
    with mp.workdps(DIGITS):

        def unshrunk(case: tuple[Pair, float]) -> bool:
            moved, bound = turned(*case, floor=length(case[0].vectors[0]))
            return moved > bound * (1 + ROUNDING)

        def half(case: tuple[Pair, float]) -> bool:
            moved, bound = turned(*case, share=2)
            return moved > bound * (1 + ROUNDING)

        def without(head: Head) -> bool:
            moved, bound, _ = averaged(head, 0.0, power=0)
            return moved > bound * (1 + ROUNDING)

        norms = st.tuples(pairs(), EPSILONS)
        assert refutation(norms, unshrunk) is not None
        assert refutation(norms, half) is not None
        assert refutation(heads(), without) is not None
