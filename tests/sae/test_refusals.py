"""What has no certificate ends as Unsupported, with the reason, and never as another verdict."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_model

import sae_verify as sv
from sae_verify.certificates.weights import locate_sae
from sae_verify.errors import UnsupportedError
from sae_verify.sae import AbsTopKSAE, GroupMaxSAE, JumpReLUSAE, MatchingPursuitSAE, load_transcoder, save_sae

from .formats.sources import SAES, TRANSCODERS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sv.load_model(tiny_model(tmp_path_factory.mktemp("model") / "llama"))


def written(name: str, directory: Path) -> Path:
    table = SAES if name in SAES else TRANSCODERS
    return table[name][1](directory, np.random.default_rng(zlib.crc32(name.encode()))).path


def problem(model, sae, held="code") -> sv.Problem:
    threat = sv.ErrorBall(radius=0.1, relative_to="h", held=held)
    clamp = sv.Clamp.set({1: 0.0, 2: 0.0})
    return sv.Problem(model, sae, [[1, 2, 3]], clamp, threat, sv.LogitDifference(3, 4), hook="blocks.0.hook_resid_post")


def unplaced(sae):
    """Without the hook point of its metadata, which the tiny model does not have."""
    import dataclasses

    return dataclasses.replace(sae, source=dataclasses.replace(sae.source, hook_name=None))


def reason(model, sae, held="code") -> str:
    (result,) = sv.certify(problem(model, unplaced(sae), held))
    assert result.verdict.name == "unsupported"
    assert result.certificate is None
    return result.verdict.reason


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("saelens/abstopk", AbsTopKSAE),
        ("saelens/abstopk-rescaled", AbsTopKSAE),
        ("sparsify/groupmax", GroupMaxSAE),
        ("saelens/matching-pursuit", MatchingPursuitSAE),
    ],
)
@pytest.mark.parametrize("held", ["free", "preactivations", "defended", "code", "unreachable"])
def test_architectures_without_a_certificate(name, kind, held, model, tmp_path):
    sae = sv.load_sae(written(name, tmp_path))
    assert type(sae) is kind
    assert kind.__name__ in reason(model, sae, held)
    with pytest.raises(UnsupportedError, match=kind.__name__):
        locate_sae(sae)


@pytest.mark.parametrize(
    "name", ["gemma-scope-2/resid", "dictionary-learning/batchtopk", "sparsify/topk", "llama-scope/plain"]
)
def test_formats_that_the_checker_does_not_read(name, model, tmp_path):
    (tmp_path / "from").mkdir()
    sae = sv.load_sae(written(name, tmp_path / "from"))
    assert "save_sae" in reason(model, sae)
    again = sv.load_sae(save_sae(unplaced(sae), tmp_path / "to"))
    (result,) = sv.certify(problem(model, again))
    assert result.verdict.name in ("certified", "refuted", "undecided")


def test_a_directory_with_two_saes_is_certified_as_the_one_that_was_loaded(tmp_path):
    # The checker looks for params.npz in a directory; the loader was told to read another format there.
    path = written("dictionary-learning/topk", tmp_path)
    arrays = {"W_enc": (8, 24), "W_dec": (24, 8), "b_enc": (24,), "b_dec": (8,), "threshold": (24,)}
    np.savez(path / "params.npz", **{name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    assert isinstance(sv.load_sae(path), JumpReLUSAE)
    with pytest.raises(UnsupportedError, match="dictionary-learning"):
        locate_sae(sv.load_sae(path, format="dictionary-learning"))


def test_a_format_that_was_forced_is_not_certified_as_another(tmp_path):
    path = written("saelens/batchtopk-training", tmp_path)
    arrays = {"W_enc": (8, 24), "W_dec": (24, 8), "b_enc": (24,), "b_dec": (8,), "threshold": (24,)}
    np.savez(path / "params.npz", **{name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    locate_sae(sv.load_sae(path))
    with pytest.raises(UnsupportedError, match="gemma-scope"):
        locate_sae(sv.load_sae(path, format="gemma-scope"))


@pytest.mark.parametrize("name", ["saelens/skip_transcoder", "sparsify/topk-transcoder"])
def test_transcoders_are_not_certified(name, model, tmp_path):
    coder = load_transcoder(written(name, tmp_path))
    wanted = problem(model, unplaced(coder))
    (result,) = sv.certify(wanted)
    assert result.verdict.name == "unsupported"
    assert "Transcoder" in result.verdict.reason


def test_settings_that_only_a_rule_of_older_versions_gives(model, tmp_path):
    # The checker takes no setting by default; saving writes them all.
    (tmp_path / "from").mkdir()
    sae = sv.load_sae(written("saelens/before-6-defaults", tmp_path / "from"))
    assert "apply_b_dec_to_input" in sae.source.notes[0]
    assert "checker cannot read" in reason(model, sae)
    (result,) = sv.certify(problem(model, sv.load_sae(save_sae(unplaced(sae), tmp_path / "to"))))
    assert result.verdict.name in ("certified", "refuted", "undecided")


def test_half_precision_is_exact_where_it_is_proved(tmp_path):
    from safetensors.torch import load_file, save_file

    from sae_verify.checker.weights import load_weights

    for dtype in (torch.bfloat16, torch.float16):
        path = written("saelens/batchtopk-training", tmp_path)
        halves = {name: t.to(dtype) for name, t in load_file(path / "sae_weights.safetensors").items()}
        save_file(halves, path / "sae_weights.safetensors")
        sae, checked = sv.load_sae(path), load_weights(path, None)
        assert sae.dtype == torch.float32
        for name in ("W_enc", "W_dec", "b_dec"):
            ours = sae.to(torch.float64).tensors()[name]
            assert torch.equal(ours, halves[name].double())
            np.testing.assert_array_equal(ours.numpy(), getattr(checked, name))
