"""Against EleutherAI's sparsify: what it saves is what we load."""

from __future__ import annotations

import copy

import pytest

from sae_verify.sae import load_sae, load_transcoder

from .compare import activations, assert_close_in_float32, assert_same, dense, randomise

sparsify = pytest.importorskip("sparsify")

D, K = 16, 8


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize(("transcode", "skip"), [(False, False), (True, False), (True, True)])
def test_sparse_coders(activation, transcode, skip, tmp_path):
    settings = sparsify.SparseCoderConfig(
        activation=activation, expansion_factor=4, k=K, transcode=transcode, skip_connection=skip
    )
    theirs = sparsify.SparseCoder(D, settings)
    randomise(theirs)
    theirs.save_to_disk(tmp_path / "layers.3")
    ours = (load_transcoder if transcode else load_sae)(tmp_path / "layers.3")
    wide = copy.deepcopy(theirs).double()

    def upstream(module):
        def both(x):
            values, indices, _ = module.encode(x)
            return dense(values, indices, module.num_latents), module(x).sae_out

        return both

    x = activations(D)
    assert_same(ours, upstream(wide), x)
    assert_close_in_float32(ours, upstream(theirs), x)
