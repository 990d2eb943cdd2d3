"""Theorem final-norm in rationals. Both parts are pointwise implications: premise at delta, hence conclusion at delta.

Square roots are compared by squares, so nothing is rounded: rho, q0 and sqrt(d eps0) never appear as numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from bounds.instances import final_norm_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from .exact import POSITIVE, Vector, add, at_most_root, centre, dot, refutation, vectors

D = 3


@dataclass(frozen=True)
class Norm:
    """A readout w . z / rho (the constant is left out), a state, a perturbation and evidence."""

    layer: bool
    w: Vector
    h: Vector
    delta: Vector
    d_epsilon: Fraction
    t: Fraction
    q: Vector
    s: Fraction
    m: Fraction
    spare: Fraction  # r^2 - ||delta||^2

    def p(self, v: Vector) -> Vector:
        return centre(v) if self.layer else v

    @property
    def z(self) -> Vector:
        return self.p(add(self.h, self.delta))


def near(x: float, digits: int = 1000) -> Fraction:
    return Fraction(round(x * digits), digits)


@st.composite
def norms(draw: st.DrawFn, layers: tuple[bool, ...] = (True, False), tight: tuple[bool, ...] = (True, False)) -> Norm:
    """Any evidence; or, half of the time, evidence within a thousandth of tight."""
    layer = draw(st.sampled_from(layers))
    w, h = draw(vectors(D)), draw(vectors(D))
    shrink = draw(st.sampled_from([1, 2, 8]))
    delta = [x / shrink for x in draw(vectors(D))]
    d_epsilon = draw(POSITIVE) / draw(st.sampled_from([1, 100]))
    w = centre(w) if layer else w
    spare = draw(st.sampled_from([Fraction(0), Fraction(0), Fraction(1, 2)]))
    if not draw(st.sampled_from(tight)):
        t, s, m = (
            draw(st.fractions(-4, 4, max_denominator=4)),
            draw(POSITIVE),
            draw(st.fractions(-2, 2, max_denominator=4)),
        )
        q = [x / draw(st.sampled_from([3, 4, 5, 7])) for x in draw(vectors(D))]
        return Norm(layer, w, h, delta, d_epsilon, t, q, s, m, spare)
    state = add(h, delta)
    z = centre(state) if layer else state
    rho = math.sqrt(dot(z, z) + d_epsilon)
    t = near(float(dot(w, z)) / rho) + draw(st.sampled_from([Fraction(i, 500) for i in (-20, -2, 0, 1, 10)]))
    longer = draw(st.sampled_from([0.999, 0.999, 1.2]))
    q = [near(float(x) / rho * longer) for x in z]
    return Norm(layer, w, h, delta, d_epsilon, t, q, near(rho), near(float(sum(delta)) / D), spare)


def above_the_level(n: Norm) -> bool:
    """F > t: w . z > t rho, with rho^2 = ||z||^2 + d eps0."""
    return not at_most_root(dot(n.w, n.z), n.t, dot(n.z, n.z) + n.d_epsilon)


def tangent_proves(n: Norm, *, short: bool = True, projected: bool = True, root: bool = True) -> bool:
    """The premise of (a) at this delta; the options are mutants."""
    if n.t < 0 or (short and dot(n.q, n.q) > 1):
        return False
    slope = add(n.w, n.q, -n.t)
    slope = n.p(slope) if projected else slope
    spare = max(Fraction(0), 1 - dot(n.q, n.q)) if root else Fraction(1)
    return at_most_root(dot(slope, add(n.h, n.delta)), n.t, spare * n.d_epsilon)


def secant_proves(
    n: Norm, *, radius: bool = True, offset: bool = True, mean: bool = True, secant: bool = True, sign: int = 1
) -> bool:
    """The premise of (b) at this delta; the options are mutants."""
    if n.t >= 0:
        return False
    ph, weight = n.p(n.h), -n.t / n.s
    m = n.m if n.layer or not mean else Fraction(0)
    square = (dot(n.delta, n.delta) + n.spare) if radius else Fraction(0)
    squares = dot(ph, ph) + square + (D * m * m if offset else 0) + n.d_epsilon + (n.s**2 if secant else 0)
    slope = add(n.w, [x - m for x in ph], weight * sign)
    return dot(n.w, ph) + weight * squares / 2 + dot(slope, n.delta) <= 0


@given(norms())
@settings(max_examples=100)
def test_a_a_tangent_proves_a_level_of_at_least_zero(n: Norm) -> None:
    assert not (tangent_proves(n) and above_the_level(n))


@given(norms())
@settings(max_examples=100)
def test_b_a_secant_proves_a_negative_level(n: Norm) -> None:
    assert not (secant_proves(n) and above_the_level(n))


def test_the_premises_are_met_and_missed() -> None:
    """The implications are not vacuous: each part proves something, and leaves something unproven that is false."""
    refutation(norms(), lambda n: tangent_proves(n) and any(n.z) and dot(n.w, n.z) > 0)
    refutation(norms(), lambda n: secant_proves(n) and n.layer and n.m != 0)
    refutation(norms(), lambda n: not secant_proves(n) and n.t < 0 and above_the_level(n))


def test_a_tangent_longer_than_one_is_refuted() -> None:
    refutation(norms(), lambda n: tangent_proves(n, short=False) and above_the_level(n))


def test_a_full_root_beside_a_tangent_is_refuted() -> None:
    """Taking q0 = 1 whatever the length of q."""
    refutation(norms(), lambda n: tangent_proves(n, root=False) and above_the_level(n))


def test_a_tangent_for_a_negative_level_is_refuted() -> None:
    def wrong(n: Norm) -> bool:
        slope = n.p(add(n.w, n.q, -n.t))
        short = dot(n.q, n.q) <= 1
        proves = at_most_root(dot(slope, add(n.h, n.delta)), n.t, (1 - dot(n.q, n.q)) * n.d_epsilon if short else n.t)
        return n.t < 0 and short and proves and above_the_level(n)

    refutation(norms((False,), (True,)), wrong)


def test_an_uncentred_tangent_under_a_layer_norm_is_refuted() -> None:
    refutation(norms((True,), (True,)), lambda n: tangent_proves(n, projected=False) and above_the_level(n))


def test_b_without_the_radius_is_refuted() -> None:
    refutation(norms(), lambda n: secant_proves(n, radius=False) and above_the_level(n))


def test_b_without_the_square_of_the_mean_is_refuted() -> None:
    refutation(norms((True,), (True,)), lambda n: secant_proves(n, offset=False) and above_the_level(n))


def test_b_with_a_mean_under_an_rms_norm_is_refuted() -> None:
    def wrong(n: Norm) -> bool:
        shifted = add([x - n.m for x in n.h], [Fraction(0)] * D)
        weight = -n.t / n.s
        square = dot(n.delta, n.delta) + n.spare
        value = dot(n.w, n.h) + weight / 2 * (dot(n.h, n.h) + square + n.d_epsilon + n.s**2)
        return not n.layer and n.t < 0 and value + dot(add(n.w, shifted, weight), n.delta) <= 0 and above_the_level(n)

    refutation(norms((False,), (True,)), wrong)


def test_b_without_the_square_of_the_secant_is_refuted() -> None:
    refutation(norms(), lambda n: secant_proves(n, secant=False) and above_the_level(n))


def test_b_with_the_wrong_sign_is_refuted() -> None:
    refutation(norms(), lambda n: secant_proves(n, sign=-1) and above_the_level(n))


@pytest.mark.parametrize("kind", ["rms", "rms unit offset", "layer"])
def test_w_and_b_are_those_of_the_real_norms(kind: str) -> None:
    """The setting: (logit a - logit b) of torch's and Hugging Face's own modules is w . z / rho + b."""
    rng = np.random.default_rng(0)
    d, epsilon = 6, 0.01
    norm = final_norm_of(kind, d, rng, epsilon)
    gain = torch.from_numpy(norm.gain)
    if kind == "layer":
        module: torch.nn.Module = torch.nn.LayerNorm(d, eps=epsilon, dtype=torch.float64)
        module.bias = torch.nn.Parameter(torch.from_numpy(norm.shift))  # type: ignore[assignment]
    else:
        module = (LlamaRMSNorm if kind == "rms" else Gemma2RMSNorm)(d, eps=epsilon).double()
    module.weight = torch.nn.Parameter(gain - 1 if kind == "rms unit offset" else gain)  # type: ignore[assignment]
    row = rng.normal(size=d)
    w, constant = norm.functional(row)
    for _ in range(5):
        x = rng.normal(size=d)
        z = norm.centre(x)
        real = float(module(torch.from_numpy(x)[None]).detach().double().numpy()[0] @ row)
        assert real == pytest.approx(w @ z / np.sqrt(z @ z + d * epsilon) + constant, abs=1e-6)  # HF works in float32
