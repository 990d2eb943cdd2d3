"""Theorem all-radius-cap: exactly in rationals, and against residuals of any size through the real norms."""

from __future__ import annotations

import numpy as np
import pytest
from bounds.instances import NORMS, final_norm_of, instance_of, readout_at
from geometry.cells import cell_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.bounds import Cap
from sae_verify.geometry.instance import TokenReadout

from .exact import Fraction, Vector, at_most_root, dot, refutation, vectors

D = 4


@given(vectors(D), vectors(D), st.sampled_from([Fraction(0), Fraction(1, 1000), Fraction(5)]))
@settings(max_examples=200)
def test_no_residual_beats_the_cap(w: Vector, z: Vector, d_epsilon: Fraction) -> None:
    """w . z <= ||w|| rho."""
    square = dot(w, w) * (dot(z, z) + d_epsilon)
    assert at_most_root(dot(w, z), Fraction(1), square)


def test_half_the_cap_is_refuted() -> None:
    pairs = st.tuples(vectors(D), vectors(D))
    refutation(pairs, lambda p: not at_most_root(dot(*p), Fraction(1), dot(p[0], p[0]) * (dot(p[1], p[1]) + 1) / 4))


@given(st.sampled_from(NORMS), st.integers(0, 2**32 - 1), st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e12]))
@settings(max_examples=100)
def test_cap_bounds_every_residual(kind: str, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    norm, unembedding = final_norm_of(kind, 5, rng), rng.normal(size=(4, 5))
    for readout in (TokenReadout(0, 1), TokenReadout(2, None)):
        instance = instance_of(rng.normal(size=5), unembedding, norm, cell_of(5), readout=readout)
        bound = Cap().bound(instance, 1.0)
        assert bound.radius is None
        w, _ = instance.functional(bound.against)
        towards = w * size - instance.h  # the residual that comes nearest to the cap
        reached = readout_at(instance, np.stack([towards, *rng.normal(size=(20, 5)) * size]))
        assert reached.max() <= bound.value
        if readout.negative is not None and size >= 1e3:
            assert reached.max() >= bound.value - 1e-3 * (1 + abs(bound.value))  # and it is attained in the limit


@pytest.mark.parametrize("mutant", ["without sqrt(d)", "without the gain", "without the shift"])
def test_mutants_of_the_cap_are_refuted(mutant: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        norm, unembedding = final_norm_of("layer", 5, rng), rng.normal(size=(2, 5))
        instance = instance_of(rng.normal(size=5), unembedding, norm, cell_of(5))
        row = unembedding[0] - unembedding[1]
        w, constant = instance.functional(None)
        cap = float(np.linalg.norm(w)) + constant
        wrong = {
            "without sqrt(d)": float(np.linalg.norm(w)) / np.sqrt(5) + constant,
            "without the gain": float(np.sqrt(5) * np.linalg.norm(norm.centre(row))) + constant,
            "without the shift": cap - constant,
        }[mutant]
        if float(readout_at(instance, w * 1e6 - instance.h)) > wrong + 1e-6:
            return
    pytest.fail("no counter-example found")
