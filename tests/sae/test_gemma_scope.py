"""Gemma Scope files: both spellings of the arrays, read alike by the loader and by the checker."""

from __future__ import annotations

import numpy as np
import pytest

from sae_verify.checker.weights import load_weights
from sae_verify.errors import FileFormatError, MetadataError, ShapeError
from sae_verify.sae import JumpReLUSAE, load_sae


def arrays(spelling):
    generator = np.random.default_rng(0)
    shapes = {"W_enc": (6, 10), "W_dec": (10, 6), "b_enc": (10,), "b_dec": (6,), "threshold": (10,)}
    return {spelling(name): generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("spelling", [str, str.lower], ids=["W_enc", "w_enc"])
def test_both_spellings(tmp_path, spelling):
    np.savez(tmp_path / "params.npz", **arrays(spelling))
    for path in (tmp_path, tmp_path / "params.npz"):
        sae = load_sae(path)
        assert isinstance(sae, JumpReLUSAE)
        assert not sae.subtract_b_dec
        np.testing.assert_array_equal(sae.W_enc.numpy(), arrays(str)["W_enc"])
        np.testing.assert_array_equal(load_weights(path, None).W_enc, arrays(str)["W_enc"].astype(np.float64))


def test_a_mixture_is_refused(tmp_path):
    mixed = arrays(str)
    mixed["w_dec"] = mixed.pop("W_dec")
    np.savez(tmp_path / "params.npz", **mixed)
    with pytest.raises((FileFormatError, MetadataError, ShapeError), match="W_dec"):
        load_sae(tmp_path)
