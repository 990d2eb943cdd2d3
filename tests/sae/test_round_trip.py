from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_verify.errors import InputError, MetadataError, UnsupportedError
from sae_verify.sae import InputScale, JumpReLUSAE, Source, load_sae, save_sae

from .helpers import ARCHITECTURES, NORMALIZATIONS, inputs, make, same
from .test_checker_agrees import assert_agree


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saving_and_loading_is_exact(architecture, normalization, dtype, tmp_path):
    source = Source("memory", None, "blocks.3.hook_resid_post", "gpt2")
    sae = dataclasses.replace(make(architecture, normalization, dtype=dtype), source=source)
    directory = save_sae(sae, tmp_path / "a" / "sae")
    loaded = load_sae(directory)
    assert same(loaded, sae)
    assert loaded.source == Source("saelens", directory, "blocks.3.hook_resid_post", "gpt2")
    assert torch.equal(loaded.encode(inputs(dtype=dtype)), sae.encode(inputs(dtype=dtype)))
    for entry in ("cfg.json", "sae_weights.safetensors"):
        assert load_sae(directory / entry).source.path == directory
    assert load_sae(tmp_path / "a", "sae").source.path == directory


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
def test_a_plain_file_is_exact_and_the_checker_reads_it(architecture, normalization, tmp_path):
    sae = make(architecture, normalization)
    path = save_sae(sae, tmp_path / "a" / "sae.safetensors")
    scale = normalization.scale if isinstance(normalization, InputScale) else None
    loaded = load_sae(path, input_scale=scale)
    assert same(loaded, sae)
    assert_agree(path, loaded)
    save_sae(make("gated"), path)
    assert same(load_sae(path), make("gated"))
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(InputError, match="no file"):
        save_sae(sae, tmp_path / "b.safetensors")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["sae.safetensors"]


def test_what_a_layout_has_no_place_for_is_refused(tmp_path):
    from sae_verify.sae import GroupMaxSAE, MatchingPursuitSAE

    base = make("standard")
    common = {"W_dec": base.W_dec, "b_dec": base.b_dec, "subtract_b_dec": True}
    groups = GroupMaxSAE(**common, W_enc=base.W_enc, b_enc=torch.zeros(24), k=4)
    tied = MatchingPursuitSAE(**common, W_enc=base.W_dec.T, residual_threshold=0.0)
    with pytest.raises(UnsupportedError, match=r"ends in \.safetensors"):
        save_sae(groups, tmp_path / "sae")
    with pytest.raises(UnsupportedError, match=r"without \.safetensors"):
        save_sae(tied, tmp_path / "sae.safetensors")
    assert list(tmp_path.iterdir()) == []
    assert same(load_sae(save_sae(groups, tmp_path / "g.safetensors")), groups)
    assert same(load_sae(save_sae(tied, tmp_path / "tied")), tied)


def test_an_sae_is_replaced_and_nothing_else_is(tmp_path):
    target = tmp_path / "sae"
    target.mkdir()
    save_sae(make("standard"), target)
    save_sae(make("gated"), target)
    assert same(load_sae(target), make("gated"))
    (target / "notes.md").write_text("mine")
    with pytest.raises(InputError, match="not an SAE directory"):
        save_sae(make("standard"), target)
    assert (target / "notes.md").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError):
        save_sae(make("standard"), tmp_path / "file")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(InputError):
        save_sae(make("standard"), tmp_path / "link")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link", "sae"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    save_sae(make("standard"), tmp_path / "sae")
    monkeypatch.setattr("sae_verify.sae.formats.save.save_file", fail)
    with pytest.raises(InputError, match="disk full"):
        save_sae(make("gated"), tmp_path / "sae")
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]
    assert same(load_sae(tmp_path / "sae"), make("standard"))


def edit(directory, **changes):
    config = json.loads((directory / "cfg.json").read_text()) | changes
    (directory / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def test_the_average_norm_is_never_guessed(tmp_path):
    directory = save_sae(make("standard"), tmp_path / "sae")
    edit(directory, normalize_activations="expected_average_only_in")
    with pytest.raises(MetadataError, match=r"give input_scale=1\.0 if it is folded in"):
        load_sae(directory)
    assert load_sae(directory, input_scale=1.0).normalization == InputScale(1.0)
    assert load_sae(directory, input_scale=0.5).normalization == InputScale(0.5)


def test_a_recorded_scale_cannot_be_contradicted(tmp_path):
    directory = save_sae(make("standard", InputScale(0.37)), tmp_path / "sae")
    assert load_sae(directory, input_scale=0.37).normalization == InputScale(0.37)
    with pytest.raises(InputError, match=r"records 0\.37"):
        load_sae(directory, input_scale=0.5)


def save_with_one_threshold(architecture, path):
    directory = save_sae(make("standard"), path)
    tensors = load_file(directory / "sae_weights.safetensors")
    threshold = torch.tensor(0.1 + 0.2, dtype=torch.float64)
    save_file({**tensors, "topk_threshold": threshold}, directory / "sae_weights.safetensors")
    edit(directory, architecture=architecture, k=5.5, rescale_acts_by_decoder_norm=False, topk_threshold_lr=0.01)
    return directory


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_training_saves_with_one_threshold_run_as_jumprelu(architecture, tmp_path):
    sae = load_sae(save_with_one_threshold(architecture, tmp_path / "sae"))
    assert isinstance(sae, JumpReLUSAE)
    assert sae.threshold.tolist() == [0.1 + 0.2] * 24  # kept in float64, not rounded to float32


def test_the_checker_reads_training_saves_with_one_threshold(tmp_path):
    directory = save_with_one_threshold("batchtopk", tmp_path / "sae")
    assert_agree(directory, load_sae(directory))


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_flat_configs_of_older_versions(architecture, tmp_path):
    directory = save_sae(make(architecture), tmp_path / "sae")
    flat = {"metadata": ..., "hook_name": "blocks.1.hook_resid_pre", "model_name": "gpt2-small", "lr": 1e-3}
    edit(directory, activation_fn_str="relu", **flat)
    loaded = load_sae(directory)
    assert same(loaded, make(architecture))
    assert (loaded.source.hook_name, loaded.source.model_name) == ("blocks.1.hook_resid_pre", "gpt2-small")
