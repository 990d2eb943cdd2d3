"""Theorem adjoint-identity: exactly in rationals, for chains of polynomial maps and any linearisations at all."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from .exact import Matrix, Vector, add, at_most_root, dot, matrices, product, refutation, times, transpose, vectors

D, K = 2, 3
SCALES = st.sampled_from([Fraction(1), Fraction(10) ** 20, Fraction(1, 10**20), Fraction(0)])


@dataclass(frozen=True)
class Tail:
    """Maps s -> B s + (C s) * (C s), a centre, a perturbation, a readout, and matrices called linearisations."""

    linear: list[Matrix]
    squared: list[Matrix]
    start: Vector
    delta: Vector
    readout: Vector
    guesses: list[Matrix]

    def states(self, s: Vector) -> list[Vector]:
        found = [s]
        for b, c in zip(self.linear, self.squared, strict=True):
            found.append(add(times(b, found[-1]), [x * x for x in times(c, found[-1])]))
        return found

    def sides(self, shift: int = 0) -> tuple[Fraction, Fraction]:
        """F - F0, and what the identity says; a shift of the adjoints' index is a mutant."""
        centre, moved = self.states(self.start), self.states(add(self.start, self.delta))
        change = [add(m, c, -1) for m, c in zip(moved, centre, strict=True)]
        adjoints = [self.readout]
        for a in reversed(self.guesses):
            adjoints.insert(0, times(transpose(a, D), adjoints[0]))
        total = dot(adjoints[0], change[0])
        for k, a in enumerate(self.guesses):
            total += dot(adjoints[k + 1 - shift], add(change[k + 1], times(a, change[k]), -1))
        return dot(self.readout, change[-1]), total


@st.composite
def tails(draw: st.DrawFn) -> Tail:
    scale = draw(SCALES)
    linear = [draw(matrices(D, D)) for _ in range(K)]
    guesses = linear if draw(st.booleans()) else [draw(matrices(D, D)) for _ in range(K)]
    delta = [x * scale for x in draw(vectors(D))]
    return Tail(linear, [draw(matrices(D, D)) for _ in range(K)], draw(vectors(D)), delta, draw(vectors(D)), guesses)


@given(tails())
@settings(max_examples=200)
def test_the_identity_is_exact(tail: Tail) -> None:
    change, said = tail.sides()
    assert change == said


def test_adjoints_of_the_wrong_layer_and_missing_remainders_are_refuted() -> None:
    def shifted(tail: Tail) -> bool:
        change, said = tail.sides(shift=1)
        return change != said

    def linear_only(tail: Tail) -> bool:
        change, _ = tail.sides()
        row = [tail.readout]
        for a in reversed(tail.guesses):
            row = product(row, a)
        return change != dot(row[0], tail.delta)

    assert refutation(tails(), shifted)
    assert refutation(tails(), linear_only)


@dataclass(frozen=True)
class Form:
    """C + J y + q + sum_s G_s e_s at one y: the known part as a vector, and generators with their errors and bounds."""

    known: Vector
    generators: list[Matrix]
    errors: list[Vector]

    def value(self) -> Vector:
        total = self.known
        for g, e in zip(self.generators, self.errors, strict=True):
            total = add(total, times(g, e))
        return total

    def after(self, a: Matrix) -> Form:
        return Form(times(a, self.known), [product(a, g) for g in self.generators], self.errors)

    def plus(self, other: Form) -> Form:
        assert self.errors == other.errors
        return Form(
            add(self.known, other.known),
            [
                [add(x, y) for x, y in zip(g, h, strict=True)]
                for g, h in zip(self.generators, other.generators, strict=True)
            ],
            self.errors,
        )


@st.composite
def forms(draw: st.DrawFn) -> tuple[Form, Matrix, Vector]:
    scale = draw(SCALES)
    errors = [[x * scale for x in draw(vectors(D))] for _ in range(2)]
    return (
        Form(draw(vectors(D)), [draw(matrices(D, D)) for _ in range(2)], errors),
        draw(matrices(D, D)),
        draw(vectors(D)),
    )


@given(forms())
@settings(max_examples=200)
def test_linear_maps_and_sums_act_on_the_parts(case: tuple[Form, Matrix, Vector]) -> None:
    form, a, _ = case
    assert form.after(a).value() == times(a, form.value())
    residual = form.plus(form.after(a))  # a residual stream and a branch that reads it
    assert residual.value() == add(form.value(), times(a, form.value()))


def box(form: Form, u: Vector) -> Fraction:
    """The bound by entries, with each error's own size as its bound."""
    pairs = zip(form.generators, form.errors, strict=True)
    return sum(
        (abs(x) * abs(e) for g, error in pairs for x, e in zip(times(transpose(g, D), u), error, strict=True)),
        Fraction(0),
    )


@given(forms())
def test_the_errors_of_a_functional(case: tuple[Form, Matrix, Vector]) -> None:
    form, _, u = case
    missing = dot(u, form.value()) - dot(u, form.known)
    assert abs(missing) <= box(form, u)
    for g, e in zip(form.generators, form.errors, strict=True):
        row = times(transpose(g, D), u)
        assert at_most_root(abs(dot(u, times(g, e))), Fraction(1), dot(row, row) * dot(e, e))


def test_what_cancels_in_the_sum_cancels_in_the_bound() -> None:
    """A branch that undoes the error: the sum of separate bounds is larger than the bound of the sum."""
    minus = [[Fraction(-(i == j)) for j in range(D)] for i in range(D)]

    def better(case: tuple[Form, Matrix, Vector]) -> bool:
        form, _, u = case
        both = form.plus(form.after(minus))
        return box(both, u) == 0 and box(form, u) + box(form.after(minus), u) > 0

    assert refutation(forms(), better)
    assert refutation(forms(), lambda c: abs(dot(c[2], c[0].value()) - dot(c[2], c[0].known)) == box(c[0], c[2]) > 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1.0, 1e-9, 1e9]))
def test_sizes_on_the_ball(seed: int, n: int, k: int, scale: float) -> None:
    """Both unfoldings bound the vector of quadratic forms, and so do eigenvalues one form."""
    rng = np.random.default_rng(seed)
    tensor = rng.integers(-3, 4, size=(n, k, k)).astype(float) * scale
    tensor = tensor + tensor.transpose(0, 2, 1)
    _, vectors_of_first = np.linalg.eigh(tensor[0])
    for y in (rng.normal(size=k), *vectors_of_first.T, np.eye(k)[0], np.zeros(k)):
        y = y / max(float(np.linalg.norm(y)), 1e-300)
        forms = np.einsum("a,nab,b->n", y, tensor, y)
        rows, beside = tensor.reshape(n, -1), tensor.transpose(1, 0, 2).reshape(k, -1)
        room = 1e-12 * scale * n * k
        assert np.linalg.norm(forms) <= np.linalg.norm(rows, 2) + room
        assert np.linalg.norm(forms) <= np.linalg.norm(beside, 2) + room
        values = np.linalg.eigvalsh(tensor[0])
        assert min(values[0], 0) - room <= forms[0] <= max(values[-1], 0) + room


def test_the_spectral_norm_of_one_slice_is_refuted() -> None:
    """Two forms at once are longer than the larger one alone."""
    tensor = np.stack([np.eye(2), np.eye(2)])
    y = np.array([1.0, 0.0])
    slices = max(np.linalg.norm(h, 2) for h in tensor)
    assert np.linalg.norm(np.einsum("a,nab,b->n", y, tensor, y)) > slices
