"""Against SAELens itself: the same directory gives the same code and reconstruction, in both directions."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from sae_verify.errors import UnsupportedError
from sae_verify.sae import SAE, InputScale, JumpReLUSAE, Normalization, load_sae, save_sae

from .helpers import ARCHITECTURES, NORMALIZATIONS, inputs, make

pytestmark = pytest.mark.saelens
sae_lens = pytest.importorskip("sae_lens")

NORMS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")
CLASSES = {"standard": "Standard", "jumprelu": "JumpReLU", "topk": "TopK", "topk-rescaled": "TopK", "gated": "Gated"}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def randomise(theirs: Any, seed: int = 0) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * (0.3 if name == "r_mag" else 1))


def config(architecture: str, normalize: str, subtract: bool) -> Any:
    extra: dict[str, Any] = {}
    if architecture.startswith("topk"):
        extra = {"k": 5, "rescale_acts_by_decoder_norm": architecture == "topk-rescaled"}
    return getattr(sae_lens, CLASSES[architecture] + "SAEConfig")(
        d_in=8, d_sae=24, apply_b_dec_to_input=subtract, normalize_activations=normalize, **extra
    )


def assert_same(theirs: Any, ours: SAE) -> None:
    x = inputs()
    with torch.no_grad():
        z = theirs.encode(x)
        reconstruction = theirs.decode(z)
    assert torch.equal(z != 0, ours.active(x))
    torch.testing.assert_close(ours.encode(x), z, **CLOSE)
    torch.testing.assert_close(ours.reconstruct(x), reconstruction, **CLOSE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalize", NORMS)
@pytest.mark.parametrize("subtract", [True, False])
def test_we_read_what_saelens_writes(architecture, normalize, subtract, tmp_path):
    theirs = getattr(sae_lens, CLASSES[architecture] + "SAE")(config(architecture, normalize, subtract))
    randomise(theirs)
    theirs.save_model(tmp_path)
    scale = 1.0 if normalize == "expected_average_only_in" else None
    assert_same(theirs, load_sae(tmp_path, input_scale=scale))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("subtract", [True, False])
def test_saelens_reads_what_we_write(architecture, normalization: Normalization, subtract, tmp_path):
    ours = make(architecture, normalization, subtract=subtract)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sae_lens.SAE.load_from_disk(save_sae(ours, tmp_path / "sae"))
    if isinstance(normalization, InputScale):
        theirs.fold_activation_norm_scaling_factor(normalization.scale)
    if isinstance(normalization, InputScale) and architecture == "topk-rescaled":
        # Folding divides the decoder norms, which the codes of these SAEs are in units of.
        x = inputs()
        torch.testing.assert_close(theirs.encode(x) * normalization.scale, ours.encode(x), **CLOSE)
        torch.testing.assert_close(theirs(x), ours.reconstruct(x), **CLOSE)
        return
    assert_same(theirs, ours)


@pytest.mark.parametrize("architecture", ["BatchTopK", "MatryoshkaBatchTopK"])
@pytest.mark.parametrize("rescale", [True, False])
def test_batchtopk_saves(architecture, rescale, tmp_path):
    widths = {"matryoshka_widths": [8, 24]} if architecture == "MatryoshkaBatchTopK" else {}
    settings = getattr(sae_lens, architecture + "TrainingSAEConfig")(
        d_in=8, d_sae=24, k=5, rescale_acts_by_decoder_norm=rescale, **widths
    )
    theirs = getattr(sae_lens, architecture + "TrainingSAE")(settings)
    randomise(theirs)
    theirs.topk_threshold = torch.tensor(0.7, dtype=torch.float64)
    theirs.save_model(tmp_path / "training")
    theirs.save_inference_model(tmp_path / "inference")
    inference = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    ours = load_sae(tmp_path / "inference")
    assert isinstance(ours, JumpReLUSAE)
    assert_same(inference, ours)
    if rescale:
        with pytest.raises(UnsupportedError, match="save_inference_model"):
            load_sae(tmp_path / "training")
        return
    training = load_sae(tmp_path / "training").to(torch.float32)
    assert_same(inference, training)


@pytest.mark.parametrize("architecture", ["Standard", "Gated", "TopK", "JumpReLU"])
def test_other_training_saves(architecture, tmp_path):
    extra = {"k": 5} if architecture == "TopK" else {}
    theirs = getattr(sae_lens, architecture + "TrainingSAE")(
        getattr(sae_lens, architecture + "TrainingSAEConfig")(d_in=8, d_sae=24, **extra)
    )
    randomise(theirs)
    theirs.save_model(tmp_path / "training")
    theirs.save_inference_model(tmp_path / "inference")
    for folder in ("training", "inference"):
        inference = sae_lens.SAE.load_from_disk(tmp_path / folder)
        assert_same(inference, load_sae(tmp_path / folder))


def test_what_is_not_one_position_is_refused_by_name(tmp_path):
    settings = sae_lens.TemporalSAEConfig(d_in=8, d_sae=256, n_heads=2)
    sae_lens.TemporalSAE(settings).save_model(tmp_path)
    with pytest.raises(UnsupportedError, match="temporal"):
        load_sae(tmp_path)
