from __future__ import annotations

import pytest
import torch

from sae_verify.errors import InputError, ShapeError
from sae_verify.sae import JumpReLUSAE, TopKSAE, train_sae

SMALL = {"d_sae": 64, "steps": 300, "batch": 256, "lr": 5e-3, "seed": 3}


def activations() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 16, generator=g), dim=1)
    on = (torch.rand(4000, 40, generator=g) < 0.06).float()
    return 50 * (on * (0.5 + torch.rand(4000, 40, generator=g))) @ directions + torch.randn(16, generator=g)


def test_topk_learns_and_reports_what_it_reached():
    x = activations()
    sae, report = train_sae(x, architecture="topk", k=6, **SMALL)
    assert isinstance(sae, TopKSAE)
    z = sae.encode(x)
    fvu = (x - sae.decode(z, x)).square().sum() / (x - x.mean(0)).square().sum()
    assert report.fvu == pytest.approx(float(fvu), rel=1e-4)
    assert report.fvu < 0.15
    assert report.l0 == pytest.approx(float((z != 0).sum(1).float().mean()), rel=1e-4)
    assert report.l0 <= 6
    assert 0 <= report.dead < 0.5
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))


def test_jumprelu_is_steered_to_its_target_and_has_positive_thresholds():
    sae, report = train_sae(activations(), architecture="jumprelu", l0=5, **{**SMALL, "steps": 600})
    assert isinstance(sae, JumpReLUSAE)
    assert report.l0 == pytest.approx(5, rel=0.25)
    assert report.fvu < 0.3
    assert (sae.threshold > 0).all()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))


@pytest.mark.parametrize("kind", [{"architecture": "topk", "k": 4}, {"architecture": "jumprelu", "l0": 4.0}])
def test_the_seed_decides_every_bit(kind):
    arguments = {**SMALL, **kind, "steps": 20}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second, other = (train_sae(activations(), **{**arguments, "seed": s})[0] for s in (1, 1, 2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, second.tensors()[n]) for n, a in first.tensors().items())
    assert not torch.equal(first.W_enc, other.W_enc)


def test_wrong_arguments():
    x = activations()
    for wrong, match in [
        ({"architecture": "topk"}, "topk needs k"),
        ({"architecture": "topk", "k": 65}, "k is 65"),
        ({"architecture": "topk", "k": 3, "l0": 3}, "and no other"),
        ({"architecture": "jumprelu", "k": 3}, "needs l0"),
        ({"architecture": "gated", "k": 3}, "architecture is 'gated'"),
        ({"architecture": "topk", "k": 3, "steps": 0}, "steps is 0"),
        ({"architecture": "topk", "k": 3, "lr": float("nan")}, "lr is nan"),
    ]:
        with pytest.raises(InputError, match=match):
            train_sae(x, **{**SMALL, **wrong})
    with pytest.raises(ShapeError):
        train_sae(x[0], architecture="topk", k=3, **SMALL)
    with pytest.raises(InputError, match="float64"):
        train_sae(x.double(), architecture="topk", k=3, **SMALL)
    with pytest.raises(InputError, match="all activations are equal"):
        train_sae(torch.ones(10, 4), architecture="topk", k=3, **SMALL)
    with pytest.raises(InputError, match="finite"):
        train_sae(torch.full((10, 4), torch.nan), architecture="topk", k=3, **SMALL)
