from __future__ import annotations

import dataclasses

import pytest
import torch

from sae_verify.errors import FeatureError, InputError, ShapeError, UnsupportedError, WeightsError
from sae_verify.sae import GatedSAE, Identity, InputScale, JumpReLUSAE, LayerNorm, ReLUSAE, TopKSAE

from .helpers import ARCHITECTURES, NORMALIZATIONS, inputs, make

f64 = torch.float64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("subtract", [True, False])
def test_the_error_term_completes_the_reconstruction_and_write_is_the_decoders_linear_part(
    architecture, normalization, subtract
):
    sae = make(architecture, normalization, subtract=subtract, dtype=f64)
    x = inputs(dtype=f64)
    z = sae.encode(x)
    assert torch.equal(sae.active(x), z != 0)
    assert (z >= 0).all()
    torch.testing.assert_close(sae.reconstruct(x) + sae.error(x), x)
    dz = torch.randn(z.shape, dtype=f64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sae.decode(z + dz, x) - sae.decode(z, x), sae.write(dz, x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS[:2], ids=lambda n: type(n).__name__)
def test_feature_rows_are_what_one_unit_writes(architecture, normalization):
    sae = make(architecture, normalization, dtype=f64)
    x = inputs(1, dtype=f64)
    unit = torch.zeros(1, sae.d_sae, dtype=f64)
    unit[0, 7] = 1
    torch.testing.assert_close(sae.feature_rows([7]), sae.write(unit, x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_position_acts_alone(architecture):
    sae = make(architecture, LayerNorm(), dtype=f64)
    x = inputs(6, dtype=f64)
    torch.testing.assert_close(sae.encode(x.reshape(2, 3, 8)).reshape(6, -1), sae.encode(x))
    torch.testing.assert_close(sae.encode(x[3]), sae.encode(x)[3])


def one(cls, a, **extra):
    """An SAE on R^n whose pre-activations are the input plus a."""
    n = len(a)
    bias = {"b_enc": torch.tensor(a, dtype=f64)} if cls is not GatedSAE else {}
    zero = torch.zeros(n, dtype=f64)
    return cls(
        W_enc=torch.eye(n, dtype=f64), W_dec=torch.eye(n, dtype=f64), b_dec=zero, subtract_b_dec=False, **bias, **extra
    )


def test_relu_is_off_at_zero():
    sae = one(ReLUSAE, [0.0, -1.0, 2.0])
    assert sae.encode(torch.zeros(3, dtype=f64)).tolist() == [0, 0, 2]
    assert sae.slack(torch.zeros(3, dtype=f64)).tolist() == [0, 1, 0]


def test_jumprelu_is_strict_at_the_threshold_and_a_negative_threshold_acts_as_zero():
    threshold = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0], dtype=f64)
    sae = one(JumpReLUSAE, [1.0, 1.5, -0.5, 0.5, 0.0], threshold=threshold)
    x = torch.zeros(5, dtype=f64)
    assert sae.encode(x).tolist() == [0, 1.5, 0, 0.5, 0]
    assert sae.slack(x).tolist() == [0, 0, 0.5, 0, 0]


def test_topk_ties_go_to_the_lowest_index():
    sae = one(TopKSAE, [1.0, 3.0, 1.0, 1.0, -2.0], k=2, rescale_by_decoder_norm=False)
    x = torch.zeros(5, dtype=f64)
    assert sae.encode(x).tolist() == [1, 3, 0, 0, 0]
    assert sae.slack(x).tolist() == [0, 0, 0, 0, 3]


def test_topk_with_fewer_positive_scores_than_k_cuts_off_at_zero():
    sae = one(TopKSAE, [-1.0, 3.0, -2.0], k=2, rescale_by_decoder_norm=False)
    x = torch.zeros(3, dtype=f64)
    assert sae.encode(x).tolist() == [0, 3, 0]
    assert sae.slack(x).tolist() == [1, 0, 2]


def test_topk_of_everything_is_relu():
    sae = dataclasses.replace(make("topk"), k=24)
    relu = make("standard")
    assert torch.equal(sae.encode(inputs()), relu.encode(inputs()))


def test_gated_needs_both_gate_and_magnitude():
    zero = torch.zeros(4, dtype=f64)
    gate, magnitude = torch.tensor([1.0, -1.0, 1.0, 0.0], dtype=f64), torch.tensor([2.0, 2.0, -4.0, 2.0], dtype=f64)
    sae = one(GatedSAE, [0.0] * 4, b_gate=gate, b_mag=magnitude, r_mag=zero)
    assert sae.encode(zero).tolist() == [2, 0, 0, 0]
    assert sae.slack(zero).tolist() == [0, 1, 4, 0]


def test_nan_in_nan_out():
    x = inputs(2)
    x[0, 0] = torch.nan
    z = make("standard").encode(x)
    assert z[0].isnan().any()
    assert not z[1].isnan().any()


def test_wrong_weights_and_arguments_are_typed_errors():
    sae = make("standard")
    with pytest.raises(ShapeError, match="b_enc has shape"):
        dataclasses.replace(sae, b_enc=torch.zeros(3))
    bad = sae.W_dec.clone()
    bad[3, 3] = torch.inf
    with pytest.raises(WeightsError, match="W_dec has 1 of 192 values"):
        dataclasses.replace(sae, W_dec=bad)
    with pytest.raises(InputError, match="bfloat16"):
        dataclasses.replace(sae, b_enc=torch.zeros(24).bfloat16())
    with pytest.raises(ShapeError, match="last axis must be d_in = 8"):
        sae.encode(torch.zeros(2, 9))
    with pytest.raises(InputError, match="never narrowed"):
        sae.encode(inputs(dtype=f64))
    with pytest.raises(FeatureError, match="feature 24"):
        sae.feature_rows([24])
    with pytest.raises(InputError, match="k is 25"):
        dataclasses.replace(make("topk"), k=25)
    with pytest.raises(WeightsError, match="r_mag has 1"):
        dataclasses.replace(make("gated"), r_mag=torch.tensor([200.0] + [0.0] * 23))
    with pytest.raises(WeightsError, match="rows of norm zero"):
        dataclasses.replace(make("topk-rescaled"), W_dec=torch.zeros(24, 8))
    with pytest.raises(InputError, match="finite positive"):
        InputScale(0.0)
    for normalization in NORMALIZATIONS[2:]:
        with pytest.raises(UnsupportedError, match="slack"):
            make("standard", normalization).slack(inputs())


def test_to_widens_exactly():
    sae = make("gated")
    wide = sae.to(f64)
    assert all(torch.equal(t.to(f64), wide.tensors()[n]) for n, t in sae.tensors().items())
    assert wide.normalization == Identity()
