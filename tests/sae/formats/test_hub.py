"""Ids as users write them, against a cache in the hub's own layout; nothing is fetched."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_verify.errors import FileFormatError, InputError, UnsafeFileError, UnsupportedError
from sae_verify.sae import describe, load_sae
from sae_verify.sae.formats import hub

from .sources import SAES

pytest.importorskip("huggingface_hub")


def repository(cache: Path, name: str, source: Path) -> Path:
    """Put the files of a folder into a hub cache, as links to blobs, and return the snapshot."""
    place = cache / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    (place / "refs").mkdir(parents=True)
    (place / "blobs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    for file in source.rglob("*"):
        if file.is_file():
            blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.write_bytes(file.read_bytes())
            link = snapshot / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(*[".."] * (len(link.relative_to(place).parts) - 1)) / "blobs" / blob.name)
    return snapshot


@pytest.fixture
def cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def sources(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    SAES[name][1](folder, np.random.default_rng(0))
    return folder


def test_a_folder_of_a_repository(cache, tmp_path):
    source = sources(tmp_path, "gemma-scope/params")
    inner = source / "gemma-scope-2b-pt-res"
    snapshot = repository(cache, "google/gemma-scope-2b-pt-res", inner)
    folder = "layer_20/width_16k/average_l0_71"
    local = load_sae(inner / folder)
    for arguments in (("google/gemma-scope-2b-pt-res", folder), (f"google/gemma-scope-2b-pt-res/{folder}",)):
        sae = load_sae(*arguments)
        assert sae.source.path == snapshot / folder
        assert torch.equal(sae.W_enc, local.W_enc)
        assert sae.source.hook_name == "blocks.20.hook_resid_post"  # from the names of the cache
    with pytest.raises(FileFormatError, match="does not exist"):
        load_sae("google/gemma-scope-2b-pt-res", "layer_21/width_16k/average_l0_71")


@pytest.mark.parametrize("name", ["sparsify/topk", "dictionary-learning/topk", "llama-scope/plain", "saelens/abstopk"])
def test_every_layout(name, cache, tmp_path):
    source = sources(tmp_path, name)
    repository(cache, "owner/name", source)
    folder = "layers.3" if name.startswith("sparsify") else None
    sae = load_sae("owner/name", folder)
    assert sae.source.format == SAES[name][0]
    assert sae.encode(torch.ones(8)).shape == (24,)


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("goodfire/release", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
        ("qwen-scope/release", "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_50", "layer3.sae.pt"),
    ],
)
def test_a_file_of_a_repository(name, repo, file, cache, tmp_path):
    source = sources(tmp_path, name)
    repository(cache, repo, source / repo.split("/")[1] if name.startswith("qwen") else source)
    assert load_sae(repo, file).source.format == SAES[name][0]
    assert load_sae(f"{repo}/{file}").source.format == SAES[name][0]


def test_a_snapshot_that_links_elsewhere(cache, tmp_path):
    snapshot = repository(cache, "owner/name", sources(tmp_path, "saelens/abstopk"))
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "cfg.json").unlink()
    (snapshot / "cfg.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UnsafeFileError, match="is a link to"):
        load_sae("owner/name")


def test_what_is_not_in_the_cache(cache):
    with pytest.raises(InputError, match="could not be downloaded"):
        load_sae("owner/absent", "layer_1")
    for name in ("owner/name/../other", "owner/name/a//b"):
        with pytest.raises(InputError):
            load_sae(name)


RELEASES = """
my-release:
  repo_id: owner/name
  saes:
    - {id: layer_3, path: layers.3}
centred:
  repo_id: owner/name
  config_overrides: {dataset_path: text, model_from_pretrained_kwargs: {center_writing_weights: true}}
  saes:
    - {id: layer_3, path: layers.3}
corrected:
  repo_id: owner/name
  config_overrides: {normalize_activations: constant_norm_rescale}
  saes:
    - {id: layer_3, path: layers.3}
"""


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """A SAELens that is nothing but its list of releases: importing it fails."""
    package = tmp_path / "site" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "pretrained_saes.yaml").write_text(RELEASES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    hub._releases.cache_clear()
    yield
    hub._releases.cache_clear()


def test_a_release_by_its_saelens_name(cache, releases, tmp_path):
    pytest.importorskip("yaml")
    repository(cache, "owner/name", sources(tmp_path, "sparsify/topk"))
    assert load_sae("my-release", "layer_3").source.format == "sparsify"
    assert load_sae("my-release", "layer_3").source.notes == ()
    assert "center_writing_weights" in load_sae("centred", "layer_3").source.notes[0]
    assert describe("centred", "layer_3").notes == load_sae("centred", "layer_3").source.notes
    with pytest.raises(UnsupportedError, match="constant_norm_rescale"):
        load_sae("corrected", "layer_3")
    with pytest.raises(InputError, match="layer_3"):
        load_sae("my-release", "layer_4")
    with pytest.raises(FileFormatError, match="does not exist"):
        load_sae("another-release", "layer_3")
