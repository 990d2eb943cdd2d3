"""The checker reads the same files with its own code and encloses what this package computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.sae import decode, state
from sae_verify.checker.weights import load_weights
from sae_verify.sae import SAE, GatedSAE, InputScale, JumpReLUSAE, TopKSAE, load_sae, save_sae

from .helpers import ARCHITECTURES, NORMALIZATIONS, inputs, make, same

f64 = torch.float64
NORM_NAMES = ("none", "expected_average_only_in", "layer_norm", "constant_norm_rescale")


def save_plain(sae: SAE, directory: Path) -> Path:
    kinds = {JumpReLUSAE: "jumprelu", TopKSAE: "topk", GatedSAE: "gated"}
    index = [type(n) for n in NORMALIZATIONS].index(type(sae.normalization))
    metadata = {
        "architecture": kinds.get(type(sae), "standard"),
        "apply_b_dec_to_input": str(sae.subtract_b_dec).lower(),
        "normalize_activations": NORM_NAMES[index],
        "hook_name": "blocks.0.hook_resid_post",
    }
    if isinstance(sae, TopKSAE):
        metadata |= {"k": str(sae.k), "rescale_acts_by_decoder_norm": str(sae.rescale_by_decoder_norm).lower()}
    save_file(sae.tensors(), directory / "sae.safetensors", metadata)
    return directory / "sae.safetensors"


def assert_agree(path: Path, sae: SAE) -> None:
    scale = sae.normalization.scale if isinstance(sae.normalization, InputScale) else None
    theirs = load_weights(path, scale)
    ours = sae.to(f64)
    for x in inputs(12, sae.d_in, dtype=f64):
        ball = Ball.exact(x.numpy())
        found = state(theirs, ball)
        z = ours.encode(x).numpy()
        # The ball holds the real number; the float64 result is off by a rounding that the radius bounds as well.
        assert (np.abs(z - found.value.mid) <= 2 * found.value.rad).all()
        assert (z[found.on] != 0).all()
        assert (z[found.off] == 0).all()
        assert (found.on | found.off).mean() > 0.99
        full = decode(theirs, found.value, ball)
        assert (np.abs(ours.reconstruct(x).numpy() - full.mid) <= 2 * full.rad).all()
        assert full.rad.max() < 1e-9
        if found.room is not None:
            slack = ours.slack(x).numpy()
            off = found.off
            assert (np.abs(slack - found.room.mid) <= 2 * found.room.rad)[off].all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("subtract", [True, False])
def test_saelens_and_plain_files(architecture, normalization, subtract, tmp_path):
    sae = make(architecture, normalization, subtract=subtract)
    directory = save_sae(sae, tmp_path / "sae")
    assert_agree(directory, load_sae(directory))
    path = save_plain(sae, tmp_path)
    loaded = load_sae(path, input_scale=0.37 if isinstance(normalization, InputScale) else None)
    assert same(loaded, sae)
    assert (loaded.source.path, loaded.source.hook_name) == (path, "blocks.0.hook_resid_post")
    assert_agree(path, loaded)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gemma_scope(tmp_path, dtype):
    sae = make("jumprelu", subtract=False)
    arrays = {name.lower(): tensor.numpy().astype(dtype) for name, tensor in sae.tensors().items()}
    np.savez(tmp_path / "params.npz", **arrays)
    for path in (tmp_path, tmp_path / "params.npz"):
        loaded = load_sae(path)
        assert loaded.source.path == path
        assert_agree(path, loaded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_exactly(tmp_path, dtype):
    sae = make("topk")
    halves = {name: tensor.to(dtype) for name, tensor in sae.tensors().items()}
    directory = save_sae(sae, tmp_path / "sae")
    save_file(halves, directory / "sae_weights.safetensors")
    loaded = load_sae(directory)
    assert all(torch.equal(loaded.tensors()[n], t.float()) for n, t in halves.items())
    assert_agree(directory, loaded)


def test_ties_and_thresholds_at_the_activation(tmp_path):
    base = make("jumprelu", subtract=False)
    x = torch.tensor([1.0] + [0.0] * 7)  # the pre-activations are row 0, exactly
    base = dataclasses.replace(base, b_enc=torch.zeros(24), threshold=base.W_enc[0].abs())
    path = save_sae(base, tmp_path / "sae")
    found = state(load_weights(path, None), Ball.exact(x.double().numpy()))
    z = base.to(f64).encode(x.double()).numpy()
    assert (z == 0).all()  # at the threshold is off
    assert not found.on.any()
