"""The true theorems hold: on the cases where mutants fall, on hypothesis's own, and on SAEs of other kinds."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorems.exact import rank

from sae_verify.errors import UnsupportedError
from sae_verify.sae import GatedSAE, Identity, JumpReLUSAE, TopKSAE
from sae_verify.sae.normalization import ConstantNormRescale, LayerNorm
from sae_verify.testing import PROPERTIES, Attempt, HardCase, Property, hard_case, residuals, synthetic
from sae_verify.testing.inputs import _gap
from sae_verify.testing.properties.base import Strongest
from sae_verify.testing.properties.exact import exact_rank
from sae_verify.testing.properties.observe import observe
from sae_verify.testing.rounding import gamma, norms, span, wide
from sae_verify.testing.strategies import SEEDS, cases
from sae_verify.testing.strategies import residuals as residual_strategy

from .library import BUDGET, attack

BY_NAME = pytest.mark.parametrize("theorem", PROPERTIES, ids=lambda p: p.name)
NEEDS_A_CELL = {"held-cell", "linear-dual", "bypass-cost", "cell-size", "first-order-closure", "final-norm"}
"""Theorems about polyhedra: not about SAEs that divide by a statistic of the residual."""


@BY_NAME
@pytest.mark.parametrize("count", [30, pytest.param(BUDGET, marks=pytest.mark.slow)])
def test_it_holds_where_mutants_fall(theorem: Property, count: int) -> None:
    attempts, found = attack(theorem, count)
    assert found is None, f"attempt {attempts}: {found.margin} {found.witness}"


@BY_NAME
@given(data=st.data())
@settings(max_examples=15)
def test_it_holds_on_hard_saes(theorem: Property, data: st.DataObject) -> None:
    case = data.draw(cases())
    x = case.x if data.draw(st.booleans()) else data.draw(residual_strategy(case.sae))
    found = theorem.attempt(case.sae, x, np.random.default_rng(data.draw(SEEDS)))
    assert not found.falsified, (found.margin, found.witness)


@BY_NAME
def test_it_holds_on_a_larger_sae_and_tries_something(theorem: Property) -> None:
    made = synthetic(48, 384, 2, active=12)
    tried = 0
    for i, x in enumerate(made.x):
        found = theorem.attempt(made.sae, x, np.random.default_rng(i))
        assert not found.falsified, (found.margin, found.witness)
        tried += found.tried
    assert tried > 0


SHARP = ("linear-dual", "bypass-cost", "cell-size", "cone-membership", "whole-cone", "all-radius-cap", "final-norm")
PARTS = {"error-kept", "undo"}
"""Parts of decoder-blindness with a property of their own."""


UNUSED = "no code relies on it"
NO_PROPERTY = {
    "composition": "about functions and sets: an SAE gives nothing to attack",
    "trust-region": "about any quadratic function, not about an SAE",
    "region-cut": "about ellipsoids, not about an SAE",
    "adjoint-identity": "about a model's tail",
    "activation-remainder": "about a model's activations",
    "norm-remainder": "about a model's norms",
    "attention-remainder": "about a model's attention",
    "every-radius": "each of its cases is another theorem with a property: cell-size, all-radius-cap, pinned",
    "drift": "attacked in tests/checker/test_drift_sets.py; threats with drift are not drawn here yet",
    "through-blocks": "about a model's tail",
    "lowered-degree": "about a model's tail",
    "row-lengths": "about a model's earlier positions",
}
"""Registered theorems that `falsify` does not attack, and why. Each has its own test in tests/theorems."""


def test_every_registered_theorem_has_a_property_or_a_reason() -> None:
    text = (Path(__file__).parents[2] / "theory" / "theorems.toml").read_text(encoding="utf-8")
    registered, names = tomllib.loads(text), [p.name for p in PROPERTIES]
    assert set(names) >= PARTS
    assert sorted([*names, *NO_PROPERTY]) == sorted([*registered, *PARTS])
    for slug in [slug for slug, reason in NO_PROPERTY.items() if reason == UNUSED]:
        assert not registered[slug]["code"], f"code relies on {slug} now: it needs a property"


@pytest.mark.parametrize("name", SHARP)
def test_the_search_is_strong_enough_to_meet_sharp_bounds(name: str) -> None:
    """What is attained is reached to a millionth; a weaker attack would let mutants of that size pass."""
    theorem = next(p for p in PROPERTIES if p.name == name)
    made = synthetic(24, 96, 4, active=6)
    margins = [theorem.attempt(made.sae, x, np.random.default_rng(i)).margin for i, x in enumerate(made.x)]
    assert 0 < min(margins) < 1e-5


@BY_NAME
@pytest.mark.parametrize("normalization", [LayerNorm(), ConstantNormRescale()], ids=["layer_norm", "constant_norm"])
def test_normalisations_that_divide_by_a_statistic(theorem: Property, normalization: Any) -> None:
    case = hard_case("jumprelu", 5, 9, (), 3)
    sae = replace(case.sae, normalization=normalization)
    for i, x in enumerate([case.x, *residuals(sae, 7, np.random.default_rng(0))]):
        try:
            found = theorem.attempt(sae, x, np.random.default_rng(i))
        except UnsupportedError:
            assert theorem.name in NEEDS_A_CELL
        else:
            assert theorem.name not in NEEDS_A_CELL
            assert not found.falsified, (found.margin, found.witness)


class ClippedSAE(JumpReLUSAE):
    """An architecture of a user's own: JumpReLU whose slack forgets that a negative threshold acts as zero."""

    def _raw_slack(self, a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (self.threshold - a).clamp(min=0)


def test_a_users_own_architecture_is_judged_by_its_own_encoder() -> None:
    good = hard_case("jumprelu", 4, 8, ("negative thresholds",), 1)
    assert isinstance(good.sae, JumpReLUSAE)
    parts = good.sae.tensors() | {"subtract_b_dec": good.sae.subtract_b_dec, "normalization": Identity()}
    held_cell = PROPERTIES[0]
    attempts = [held_cell.attempt(ClippedSAE(**parts), good.x, np.random.default_rng(i)) for i in range(20)]
    assert any(found.falsified for found in attempts)
    attempts = [held_cell.attempt(good.sae, good.x, np.random.default_rng(i)) for i in range(20)]
    assert not any(found.falsified for found in attempts)


def test_what_counts_as_falsified() -> None:
    assert not Attempt(1.0, 5).falsified
    assert not Attempt(1e-300, 5).falsified
    assert Attempt(0.0, 5).falsified
    assert Attempt(-1e-9, 5).falsified
    assert Attempt(float("nan"), 5).falsified
    assert not Attempt(float("nan"), 0).falsified  # nothing was tried


@pytest.mark.parametrize(
    ("found", "allowed", "falsified"),
    [
        *((0.0, 0.0, False), (-1.0, 0.0, False), (1.0, 2.0, False), (1.0, np.inf, False)),
        *((1.0, 0.0, True), (2.0, 1.0, True), (1.0, 1.0, True), (np.inf, 1.0, True)),
        *((np.nan, 1.0, True), (1.0, np.nan, True), (0.0, np.nan, True)),
    ],
)
def test_candidates(found: float, allowed: float, falsified: bool) -> None:
    best = Strongest()
    best.offer(0.1, 1.0, lambda: {"which": "weak"})
    best.offer(found, allowed, lambda: {"which": np.arange(2)})
    attempt = best.attempt()
    assert attempt.falsified is falsified
    assert attempt.tried == 2
    if falsified:
        assert attempt.witness["which"] == [0, 1]


# --- what rounding may explain --------------------------------------------------------------------------------------


def exact_pre_activations(case: HardCase, x: np.ndarray) -> list[Fraction]:
    """Of the gate for a gated SAE, in rationals, from the stored weights."""
    sae = case.sae
    scale = Fraction(sae.normalization.linear_scale("a test"))
    bias = sae.b_gate if isinstance(sae, GatedSAE) else sae.tensors()["b_enc"]
    b_dec = sae.b_dec.tolist() if sae.subtract_b_dec else [0.0] * sae.d_in
    inputs = [scale * Fraction(v) - Fraction(b) for v, b in zip(x.tolist(), b_dec, strict=True)]
    return [
        sum((a * Fraction(w) for a, w in zip(inputs, column, strict=True)), Fraction(b))
        for column, b in zip(sae.W_enc.T.tolist(), bias.tolist(), strict=True)
    ]


@given(cases(), SEEDS)
@settings(max_examples=60)
def test_bands_cover_the_rounding_of_every_pre_activation(case: HardCase, seed: int) -> None:
    for x in [case.x, *residuals(case.sae, 6, np.random.default_rng(seed))]:
        sae = wide(case.sae)
        seen = observe(sae, x[None])
        for value, band, exact in zip(seen.affine[0], seen.band[0], exact_pre_activations(case, x), strict=True):
            assert abs(Fraction(float(value)) - exact) <= Fraction(float(band))


@given(cases(("topk", "topk-rescaled")))
@settings(max_examples=60)
def test_bands_cover_the_level_of_a_topk_sae(case: HardCase) -> None:
    assert isinstance(case.sae, TopKSAE)
    sae = wide(case.sae)
    assert isinstance(sae, TopKSAE)
    seen = observe(sae, case.x[None])
    norms_ = [Fraction(float(v)) for v in seen.unit]
    scores = [a * n for a, n in zip(exact_pre_activations(case, case.x), norms_, strict=True)]
    level = max(Fraction(0), sorted(scores, reverse=True)[sae.k - 1])
    computed = Fraction(float(sae.cutoff(torch.from_numpy(case.x))))
    for width, unit in zip(seen.level[0], norms_, strict=True):
        ulp = abs(computed) * Fraction(2) ** -50  # of the division by the row's length
        assert abs(computed - level) <= Fraction(float(width)) * unit + ulp


@given(st.integers(1, 6), st.integers(1, 6), st.integers(-60, 60), SEEDS)
@settings(max_examples=60)
def test_exact_ranks(n: int, d: int, exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (n, d)).astype(float)
    assert exact_rank(np.ldexp(rows, exponent)) == rank([[Fraction(v) for v in row] for row in rows.tolist()])
    rows = rng.normal(size=(n, d))
    rows[-1] = 3.0 * rows[0] if n > 1 else rows[-1]
    assert exact_rank(rows) == rank([[Fraction(v) for v in row] for row in rows.tolist()])


@given(st.integers(1, 6), st.integers(2, 6), SEEDS, st.sampled_from([1.0, 1e12, 1e-12]))
@settings(max_examples=60)
def test_the_rest_of_a_span_is_orthogonal_to_it(n: int, d: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * scale ** rng.integers(0, 2, (n, 1))
    rows[n // 2] = rows[0] * 2.0
    v = rng.normal(size=d)
    found = span(rows)
    left = found.rest(v)
    assert (np.abs(rows @ left) <= (found.rounding + gamma(d)) * norms(rows) * np.linalg.norm(v)).all()
    assert found.basis.shape[1] == np.linalg.matrix_rank(rows / norms(rows)[:, None])


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "topk", "topk-rescaled"])
def test_residuals_at_thresholds_are_there(architecture: str) -> None:
    from sae_verify.testing import residual

    case, rng = hard_case(architecture, 6, 12, (), 5, k=3), np.random.default_rng(0)
    gaps = np.array(
        [np.sort(np.abs(_gap(wide(case.sae), residual(case.sae, "threshold", rng))))[:2] for _ in range(20)]
    )
    assert np.median(gaps[:, 0]) <= 1e-13
    assert np.isfinite(gaps).all()
