"""Architectures that features compete in: the tie rule, what keeps a code, nested dictionaries, units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.errors import InputError, MetadataError, ShapeError, UnsupportedError, WeightsError
from sae_verify.geometry.held_cell import held_cell
from sae_verify.problem import ErrorBall
from sae_verify.sae import (
    SAE,
    AbsTopKSAE,
    GroupMaxSAE,
    MatchingPursuitSAE,
    TopKSAE,
    Transcoder,
    nested,
    self_test,
    unit_decoder,
)

from .helpers import inputs, make

f64 = torch.float64


def competing(
    kind: type, *, k: int, d: int = 6, m: int = 12, seed: int = 0, integers: bool = False, **more: Any
) -> Any:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return (
            torch.randint(-3, 4, shape, generator=g).to(f64) if integers else torch.randn(shape, generator=g, dtype=f64)
        )

    common = {"W_enc": draw(d, m), "W_dec": draw(m, d), "b_dec": draw(d), "b_enc": draw(m), "subtract_b_dec": True}
    if kind is not GroupMaxSAE:
        more = {"rescale_by_decoder_norm": False} | more
    return kind(**common, k=k, **more)


# --- ties -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([TopKSAE, AbsTopKSAE, GroupMaxSAE]), st.sampled_from([1, 2, 3, 4, 6]))
def test_ties_go_to_the_lowest_index_and_are_counted(seed, kind, k):
    sae = competing(kind, k=k, seed=seed, integers=True)
    x = torch.randint(-2, 3, (20, 6), generator=torch.Generator().manual_seed(seed)).to(f64)
    z, ties = sae.encode(x), sae.ties(x)
    a = sae.pre_activations(x).numpy()
    for row, code, counted in zip(a, z.numpy(), ties.tolist(), strict=True):
        rank = np.abs(row) if kind is AbsTopKSAE else row
        groups = rank.reshape(k, -1) if kind is GroupMaxSAE else rank[None]
        keep = 1 if kind is GroupMaxSAE else k
        expected, tied = np.zeros(0), 0
        for group, values in zip(groups, (row.reshape(groups.shape)), strict=True):
            order = sorted(range(len(group)), key=lambda j, group=group: (-group[j], j))  # the lowest index first
            chosen = np.zeros(len(group), dtype=bool)
            chosen[order[:keep]] = True
            kept = np.where(chosen, values if kind is AbsTopKSAE else np.maximum(values, 0.0), 0.0)
            expected = np.concatenate([expected, kept])
            level = group[order[keep - 1]]
            if level > 0 and keep < len(group) and group[order[keep]] == level:
                tied += int((group == level).sum())
        np.testing.assert_array_equal(code, expected)
        assert counted == tied


def test_architectures_that_do_not_compete_have_no_ties():
    for architecture in ("standard", "jumprelu", "gated"):
        assert not make(architecture).ties(inputs()).any()


# --- what keeps the code ---------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(-3, 1))
def test_groupmax_slack_is_how_far_an_inactive_feature_may_move(seed, magnitude):
    sae = competing(GroupMaxSAE, k=2, seed=seed)
    g = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(6, generator=g, dtype=f64)
    active, slack = sae.active_and_slack(x)
    before = sae.encode(x)
    fixed = torch.linalg.svd(sae.W_enc[:, active], full_matrices=True)
    free = fixed.U[:, int((fixed.S > 1e-9).sum()) :]  # directions that keep the active features' values
    steps = (torch.randn(60, free.shape[1], generator=g, dtype=f64) @ free.T) * 10.0**magnitude
    moved = steps @ sae.W_enc  # (60, m)
    kept = ((sae.encode(x + steps) - before).abs() <= 1e-9).all(dim=1)
    inside = (moved <= slack - 1e-9)[:, ~active].all(dim=1)
    outside = (moved > slack + 1e-9)[:, ~active].any(dim=1)
    assert bool(kept[inside].all())
    assert not bool(kept[outside].any())


def test_abstopk_has_no_one_sided_slack():
    with pytest.raises(UnsupportedError, match="upwards and downwards"):
        competing(AbsTopKSAE, k=2).slack(torch.ones(6, dtype=f64))


def held_by(sae: SAE, held: Any) -> Any:
    x = np.ones(sae.d_in)
    features = {"features": (1,)} if held == "defended" else {}
    return held_cell(sae, ErrorBall(1.0, held=held, **features), (1,), x, x, "outer")


def test_held_sets_that_are_not_modelled_are_refused():
    for kind in (AbsTopKSAE, GroupMaxSAE):
        for held in ("defended", "code"):
            with pytest.raises(UnsupportedError, match="held cells"):
                held_by(competing(kind, k=3), held)
        held_by(competing(kind, k=3), "preactivations")
    for held in ("free", "preactivations", "defended", "code", "unreachable"):
        with pytest.raises(UnsupportedError, match="union of pieces"):
            held_by(pursuit(), held)
        held_by(competing(TopKSAE, k=3), held)


# --- groups, pursuit, nesting, units --------------------------------------------------------------------------------


def test_groupmax_keeps_at_most_one_of_a_group():
    sae = competing(GroupMaxSAE, k=4)
    z = sae.encode(torch.randn(50, 6, dtype=f64)).reshape(50, 4, 3)
    assert ((z != 0).sum(dim=2) <= 1).all()
    with pytest.raises(InputError, match="divides"):
        competing(GroupMaxSAE, k=5)


def pursuit(**settings: Any) -> MatchingPursuitSAE:
    w = torch.randn(12, 6, generator=torch.Generator().manual_seed(2), dtype=f64)
    w = w / w.norm(dim=1, keepdim=True)
    arguments = {"residual_threshold": 0.0} | settings
    return MatchingPursuitSAE(W_enc=w.T, W_dec=w, b_dec=torch.ones(6, dtype=f64), subtract_b_dec=True, **arguments)


def test_matching_pursuit_leaves_ever_less():
    x = 3 * torch.randn(30, 6, generator=torch.Generator().manual_seed(4), dtype=f64)
    before = torch.full((30,), torch.inf, dtype=f64)
    for steps in range(1, 7):
        sae = pursuit(max_iterations=steps, stop_on_duplicate_support=False)
        after = sae.error(x).norm(dim=1)
        assert (after <= before + 1e-12).all()
        before = after
    stops = pursuit(residual_threshold=1e9)
    assert (stops.active(x).sum(dim=1) <= 1).all()
    assert pursuit().encode(x[0]).shape == (12,)


def test_matching_pursuit_is_tied():
    good = pursuit()
    with pytest.raises(WeightsError, match="tied"):
        MatchingPursuitSAE(
            W_enc=good.W_enc + 1, W_dec=good.W_dec, b_dec=good.b_dec, subtract_b_dec=True, residual_threshold=0.0
        )
    for wrong in ({"residual_threshold": float("nan")}, {"max_iterations": 0}):
        with pytest.raises(InputError):
            pursuit(**wrong)
    with pytest.raises(UnsupportedError, match="pre-activations"):
        good.pre_activations(torch.ones(6, dtype=f64))


def test_nested_dictionaries_are_the_first_features():
    sae, x = make("jumprelu"), inputs()
    small = nested(sae, 10)
    torch.testing.assert_close(small.encode(x), sae.encode(x)[:, :10])
    assert small.source.path is None
    for width in (0, 25, True):
        with pytest.raises(InputError, match="width"):
            nested(sae, width)
    with pytest.raises(UnsupportedError, match="compete"):
        nested(make("topk"), 10)


def test_unit_decoder_rows_change_units_only():
    for architecture in ("standard", "jumprelu"):
        sae = make(architecture, dtype=f64)
        unit, x = unit_decoder(sae), inputs(dtype=f64)
        torch.testing.assert_close(unit.W_dec.norm(dim=1), torch.ones(24, dtype=f64))
        torch.testing.assert_close(unit.reconstruct(x), sae.reconstruct(x))
        torch.testing.assert_close(unit.encode(x), sae.encode(x) * sae.W_dec.norm(dim=1))
        assert torch.equal(unit.active(x), sae.active(x))
    with pytest.raises(UnsupportedError):
        unit_decoder(make("topk"))


# --- the self-test --------------------------------------------------------------------------------------------------


def autoencoder(scale: float = 1.0) -> SAE:
    """One that reconstructs what its own codes write."""
    sae = make("standard", d=8, m=8)
    q = torch.linalg.qr(sae.W_enc).Q
    return type(sae)(
        W_enc=torch.cat([q, -q], dim=1) * scale,
        W_dec=torch.cat([q.T, -q.T]),
        b_dec=torch.zeros(8),
        b_enc=torch.zeros(16),
        subtract_b_dec=False,
    )


def test_the_self_test_passes_what_fits_and_refuses_what_does_not():
    x = inputs()
    good = self_test(autoencoder(), x)
    assert good.unexplained < 1e-9
    assert good.l0 == 8.0
    assert good.ties == 0
    assert self_test(autoencoder(), x, x).difference == pytest.approx(0, abs=1e-6)
    with pytest.raises(MetadataError, match="unexplained"):
        self_test(autoencoder(scale=30.0), x)
    with pytest.raises(MetadataError, match="differs by"):
        self_test(autoencoder(scale=1.01), x, x)
    with pytest.raises(ShapeError):
        self_test(autoencoder(), x[0])
    with pytest.raises(ShapeError):
        self_test(autoencoder(), x, x[:3])


def test_transcoders_check_their_parts():
    w = {"W_enc": torch.ones(3, 4), "b_enc": torch.zeros(4), "W_dec": torch.ones(4, 2), "b_dec": torch.zeros(2)}
    coder = Transcoder(activation="standard", **w)
    assert (coder.d_in, coder.d_sae, coder.d_out) == (3, 4, 2)
    assert "3 x 4 x 2" in repr(coder)
    for wrong, error in [
        ({"activation": "magic"}, InputError),
        ({"activation": "topk"}, InputError),
        ({"activation": "jumprelu"}, InputError),
        ({"subtract_b_dec": True}, InputError),
        ({"b_dec": torch.zeros(3)}, ShapeError),
        ({"b_enc": torch.zeros(3)}, ShapeError),
        ({"W_skip": torch.zeros(3, 2)}, ShapeError),
        ({"W_dec": torch.full((4, 2), torch.nan)}, WeightsError),
    ]:
        with pytest.raises(error):
            Transcoder(**({"activation": "standard"} | w | wrong))
