"""Against SAELens's own loaders of other people's releases, and its architectures, on 10,000 activations.

Files are served from disk in place of the hub. Where SAELens rounds to the release's dtype, it is asked not to.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sae.formats.sources import SAES, D, M

from sae_verify.sae import MatchingPursuitSAE, load_sae, load_transcoder

from .compare import activations, assert_close_in_float32, assert_same, randomise

sae_lens = pytest.importorskip("sae_lens")
loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")

RELEASES = {
    "gemma-scope/params": ("gemma_2", "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"),
    "gemma-scope-2/resid": ("gemma_3", "google/gemma-scope-2-1b-pt", "resid_post/layer_3_width_16k_l0_big"),
    "goodfire/release": (
        "goodfire",
        "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        "Llama-3.1-8B-Instruct-SAE-l19.pth",
    ),
    "deepseek-r1/release": (
        "deepseek_r1",
        "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19",
        "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
    ),
    "qwen-scope/release": ("qwen_scope", "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_50", "layer3.sae.pt"),
    "llama-scope/plain": ("llama_scope", "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L3R-8x"),
}


@pytest.mark.parametrize("name", RELEASES)
def test_releases(name, tmp_path, monkeypatch):
    # The Llama Scope case here subtracts nothing and ignores decoder norms, as SAELens's loader does.
    path, _ = SAES[name][1](tmp_path, np.random.default_rng(3))
    if name.startswith("llama"):
        config = json.loads((path / "hyperparams.json").read_text()) | {"apply_decoder_bias_to_pre_encoder": False}
        (path / "hyperparams.json").write_text(json.dumps(config))
    ours = load_sae(path)
    loader, repository, folder = RELEASES[name]
    root = path.parent if path.is_file() else path

    def serve(repo_id=None, filename=None, subfolder="", **_):
        place = root / "checkpoints" if "checkpoints" in (subfolder or "") else root
        return str(place / filename.split("/")[-1])

    def shapes(*_):
        return {key.lower(): list(tensor.shape) for key, tensor in ours.tensors().items()}

    monkeypatch.setattr(loaders, "hf_hub_download", serve)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    overrides: dict[str, Any] = {"d_in": D, "d_sae": ours.d_sae, "dtype": "float32"}
    load = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader]
    config, state, _ = load(repository, folder, "cpu", force_download=False, cfg_overrides=overrides)
    config = loaders.handle_config_defaulting(config)
    kind, config_class = loaders_classes(config["architecture"])
    theirs = kind(config_class.from_dict(config))
    theirs.process_state_dict_for_loading(state)
    theirs.load_state_dict(state)
    if name.startswith("llama"):
        theirs.fold_activation_norm_scaling_factor(ours.normalization.linear_scale("a test"))
        assert_close_in_float32(ours, upstream(theirs), activations(D))
        return
    assert_close_in_float32(ours, upstream(theirs), activations(D))
    theirs = theirs.double()
    theirs.dtype = torch.float64
    assert_same(ours, upstream(theirs), activations(D))


def loaders_classes(architecture):
    from sae_lens.registry import get_sae_class

    return get_sae_class(architecture)


def upstream(module):
    def both(x):
        z = module.encode(x)
        return z, module.decode(z)

    return both


@pytest.mark.parametrize("name", [name for name in SAES if "before-6" in name])
def test_configs_from_before_version_6(name, tmp_path):
    path, _ = SAES[name][1](tmp_path, np.random.default_rng(3))
    theirs = sae_lens.SAE.load_from_disk(path)
    assert_close_in_float32(load_sae(path), upstream(theirs), activations(D))


@pytest.mark.parametrize("rescale", [False, True])
def test_abstopk(rescale, tmp_path):
    config = sae_lens.AbsTopKSAEConfig(d_in=D, d_sae=M, k=5, rescale_acts_by_decoder_norm=rescale)
    theirs = sae_lens.AbsTopKSAE(config)
    randomise(theirs)
    theirs.save_model(tmp_path)
    ours = load_sae(tmp_path)
    assert_close_in_float32(ours, upstream(theirs), activations(D))
    theirs = theirs.double()
    theirs.dtype = torch.float64
    assert_same(ours, upstream(theirs), activations(D))


@pytest.mark.parametrize(
    "settings", [{}, {"residual_threshold": 0.0, "max_iterations": 5}, {"residual_threshold": 2.0}]
)
@pytest.mark.parametrize("subtract", [True, False])
def test_matching_pursuit(settings, subtract, tmp_path):
    config = sae_lens.MatchingPursuitSAEConfig(d_in=D, d_sae=M, apply_b_dec_to_input=subtract, **settings)
    theirs = sae_lens.MatchingPursuitSAE(config)
    randomise(theirs)
    with torch.no_grad():
        theirs.W_dec.copy_(theirs.W_dec / theirs.W_dec.norm(dim=1, keepdim=True))
    theirs.save_model(tmp_path)
    ours = load_sae(tmp_path)
    assert isinstance(ours, MatchingPursuitSAE)
    theirs = theirs.double()
    theirs.dtype = torch.float64
    assert_same(ours, upstream(theirs), activations(D))


@pytest.mark.parametrize("name", ["Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder"])
def test_transcoders(name, tmp_path):
    module = pytest.importorskip("sae_lens.saes.transcoder")
    config = getattr(module, f"{name}Config")(d_in=D, d_sae=M, d_out=6, apply_b_dec_to_input=False)
    theirs = getattr(module, name)(config)
    randomise(theirs)
    theirs.save_model(tmp_path)
    ours = load_transcoder(tmp_path)
    theirs = theirs.double()
    theirs.dtype = torch.float64
    assert_same(ours, lambda x: (theirs.encode(x), theirs(x)), activations(D))
