"""First-order worst cases on SAEs of every architecture: what a held set means, checked by encoding again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.geometry.dictionary import encoder
from sae_verify.geometry.held_cell import held_cell, held_cells
from sae_verify.geometry.inside import inside
from sae_verify.geometry.worst_case import worst_case
from sae_verify.geometry.worst_cases import worst_cases
from sae_verify.problem import ErrorBall
from sae_verify.sae import SAE, InputScale, Normalization
from tests.support.tiny import ARCHITECTURES, random_sae

D, M = 8, 24
DEFENDED = (0, 3, 5, 7)


def sae_of(architecture: str, seed: int = 0, normalization: Normalization | None = None) -> SAE:
    return random_sae(
        architecture,
        d=D,
        m=M,
        k=4,
        hook="blocks.0.hook_resid_post",
        seed=seed,
        normalization=normalization,
        subtract=True,
        bias=-0.6,
        dtype=torch.float32,
    ).to(torch.float64)


def threat(held: str) -> ErrorBall:
    features = DEFENDED if held in ("preactivations", "defended") else None
    return ErrorBall(1.0, "absolute", held, "x", features)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [None, InputScale(0.37)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(seed=st.integers(0, 2**32 - 1), radius=st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
@settings(max_examples=15)
def test_the_worst_point_leaves_the_code_as_it_is(
    architecture: str, scale: Normalization | None, seed: int, radius: float
) -> None:
    rng = np.random.default_rng(seed)
    sae = sae_of(architecture, seed % 7, scale)
    x, g = rng.normal(size=D) * 2, rng.normal(size=D)
    cell = held_cell(sae, threat("code"), (), x, x, "outer")
    found = worst_case(cell, g, radius)
    delta = torch.from_numpy(inside(cell, found.delta, radius, 2.0**-42))
    before, after = sae.encode(torch.from_numpy(x)), sae.encode(torch.from_numpy(x) + delta)
    assert torch.equal(before != 0, after != 0)
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-12 * (1 + radius))
    assert float(g @ delta.numpy()) == pytest.approx(found.value, abs=1e-9 * radius * float(np.linalg.norm(g)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_holding_more_never_helps(architecture: str, seed: int) -> None:
    """Free >= preactivations >= defended for the same S, and free >= defended >= code, at every radius."""
    rng = np.random.default_rng(seed)
    sae = sae_of(architecture, seed % 5)
    x, g = rng.normal(size=D) * 2, rng.normal(size=D)

    def value(held: str, radius: float) -> float:
        chosen = DEFENDED if held in ("preactivations", "defended") else ()
        return worst_case(held_cell(sae, threat(held), chosen, x, x, "outer"), g, radius).value

    for radius in (0.01, 0.5, 5.0):
        unit = 1e-9 * radius * float(np.linalg.norm(g))
        free, defended, code = (value(held, radius) for held in ("free", "defended", "code"))
        assert code <= defended + unit
        assert defended <= free + unit
        assert free == pytest.approx(radius * float(np.linalg.norm(g)))
        on = sae.active(torch.from_numpy(x))[list(DEFENDED)]
        if bool(on.all()):  # then defended holds every pre-activation of S, and more
            assert defended <= value("preactivations", radius) + unit
        assert value("preactivations", radius) <= free + unit


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_of_cells_is_the_cells_of_the_batch(architecture: str) -> None:
    sae, rng = sae_of(architecture), np.random.default_rng(1)
    x, h, g = rng.normal(size=(5, D)), rng.normal(size=(5, D)), rng.normal(size=(5, D))
    for held in ("free", "preactivations", "defended", "code", "unreachable"):
        for side in ("outer", "inner"):
            many = held_cells(sae, threat(held), DEFENDED, x, h, side)
            for i, cell in enumerate(many):
                alone = held_cell(sae, threat(held), DEFENDED, x[i], h[i], side)
                np.testing.assert_array_equal(cell.equal, alone.equal)
                assert cell.rows == alone.rows
                for a, b in zip(cell.half_spaces, alone.half_spaces, strict=True):
                    np.testing.assert_allclose(a.slack, b.slack, rtol=1e-12, atol=1e-14)
    cells = held_cells(sae, threat("code"), (), x, x, "outer")
    for i, found in enumerate(worst_cases(encoder(sae), cells, g, np.full(5, 0.3))):
        assert found.value == pytest.approx(worst_case(cells[i], g[i], 0.3).value, rel=1e-10)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_order_and_units_of_features_do_not_matter(seed: int) -> None:
    """Features permuted and rescaled (with their biases and thresholds): the same worst case."""
    rng = np.random.default_rng(seed)
    sae = sae_of("jumprelu", seed % 3)
    order = torch.from_numpy(rng.permutation(M))
    factor = torch.from_numpy(2.0 ** rng.integers(-3, 4, M))[order]
    other = type(sae)(
        W_enc=sae.W_enc[:, order] * factor,
        W_dec=sae.W_dec[order] / factor[:, None],
        b_dec=sae.b_dec,
        subtract_b_dec=sae.subtract_b_dec,
        b_enc=sae.b_enc[order] * factor,  # type: ignore[attr-defined]
        threshold=sae.threshold[order] * factor,  # type: ignore[attr-defined]
    )
    x, g = rng.normal(size=D), rng.normal(size=D)
    values = [worst_case(held_cell(s, threat("code"), (), x, x, "outer"), g, 0.4).value for s in (sae, other)]
    assert values[0] == pytest.approx(values[1], abs=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_feature_on_and_none(architecture: str) -> None:
    sae, g = sae_of(architecture), np.ones(D)
    for x in (np.zeros(D), 50 * np.ones(D), -50 * np.ones(D)):
        cell = held_cell(sae, threat("code"), (), x, x, "outer")
        found = worst_case(cell, g, 0.2)
        assert -1e-12 <= found.dual - found.value <= 1e-9
        assert 0 <= found.value <= 0.2 * np.sqrt(D) + 1e-12
