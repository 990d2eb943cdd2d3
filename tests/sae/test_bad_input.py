from __future__ import annotations

import contextlib
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sae_verify.errors import (
    FileFormatError,
    InputError,
    MetadataError,
    SaeVerifyError,
    ShapeError,
    UnsafeFileError,
    UnsupportedError,
    WeightsError,
)
from sae_verify.sae import load_sae, save_sae
from sae_verify.sae.formats.tensors import read_torch

from .helpers import make
from .test_checker_agrees import save_plain
from .test_round_trip import edit

WEIGHTS = "sae_weights.safetensors"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_sae(make("topk"), tmp_path / "sae")


class Attack:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def assert_refuses(path: Path, error: type[SaeVerifyError], match: str | None = None, **arguments) -> None:
    with pytest.raises(error, match=match):
        load_sae(path, **arguments)


# --- pickles --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["ae.pt", "sae.bin", "sae.pkl", "sae.pth"])
def test_pickles_are_never_executed(name, tmp_path):
    target = tmp_path / "owned"
    folder = tmp_path / "sae"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Attack(target)))
    assert_refuses(folder / name, FileFormatError if name == "ae.pt" else UnsafeFileError)
    (folder / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    assert_refuses(folder / name, UnsafeFileError, "pickle")
    assert_refuses(folder, UnsafeFileError, "pickle")
    with pytest.raises(UnsafeFileError):
        read_torch(folder / name)
    torch.save({"W_enc": Attack(target)}, folder / name)
    with pytest.raises(UnsafeFileError):
        read_torch(folder / name)
    assert not target.exists()
    pickle.loads(pickle.dumps(Attack(target)))
    assert target.exists()  # the attack works where pickles are loaded


def test_pickled_npz_members_are_never_executed(tmp_path):
    target = tmp_path / "owned"
    np.savez(tmp_path / "params.npz", w_enc=np.array([Attack(target)], dtype=object))
    assert_refuses(tmp_path, UnsafeFileError, "pickled member")
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("w_enc.npy", pickle.dumps(Attack(target)))
    assert_refuses(tmp_path / "params.npz", FileFormatError)
    assert not target.exists()


def test_a_pickle_under_another_name_is_not_executed(directory, tmp_path):
    target = tmp_path / "owned"
    for name in (WEIGHTS, "cfg.json"):
        (directory / name).write_bytes(pickle.dumps(Attack(target)))
        assert_refuses(directory, FileFormatError)
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Attack(target)))
    assert_refuses(tmp_path / "x.safetensors", FileFormatError)
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Attack(target)))
    assert_refuses(tmp_path / "x.npz", FileFormatError)
    assert not target.exists()


# --- broken files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.99])
def test_truncated_safetensors(directory, keep):
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert_refuses(directory, FileFormatError, "cannot be read as safetensors")


@pytest.mark.parametrize("length", [2**63, 2**40, 200 * 2**20])
def test_oversized_header(directory, length):
    (directory / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{}")
    assert_refuses(directory, FileFormatError)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{'a': 1}", '{"k": NaN}', '{"k": 1, "k": 2}', "[" * 99999])
def test_broken_json(directory, text):
    (directory / "cfg.json").write_text(text)
    assert_refuses(directory, FileFormatError)


def test_not_utf8_and_too_large_json(directory):
    (directory / "cfg.json").write_bytes(b"\xff\xfe{}")
    assert_refuses(directory, FileFormatError)
    with (directory / "cfg.json").open("wb") as file:
        file.truncate(17 * 2**20)
    assert_refuses(directory, FileFormatError, "16 MiB")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_truncated_npz(tmp_path, keep):
    arrays = {name.lower(): tensor.numpy() for name, tensor in make("jumprelu").tensors().items()}
    np.savez(tmp_path / "params.npz", **arrays)
    data = (tmp_path / "params.npz").read_bytes()
    (tmp_path / "params.npz").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert_refuses(tmp_path, FileFormatError)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_gives_an_sae_or_a_typed_error(tmp_path_factory, data):
    directory = save_sae(make("topk"), tmp_path_factory.mktemp("fuzz") / "sae")
    path = directory / data.draw(st.sampled_from([WEIGHTS, "cfg.json"]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, min(len(content), 900) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with contextlib.suppress(SaeVerifyError):
        load_sae(directory)


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["W_enc", "b_dec"])
def test_non_finite_weights_are_counted(directory, name, value):
    tensors = load_file(directory / WEIGHTS)
    tensors[name].view(-1)[:3] = value
    save_file(tensors, directory / WEIGHTS)
    assert_refuses(directory, WeightsError, f"{name} in .* has 3 of")


def test_finite_values_whose_sum_overflows_are_finite(directory):
    tensors = load_file(directory / WEIGHTS)
    tensors["b_dec"][:] = 3e38
    save_file(tensors, directory / WEIGHTS)
    assert float(load_sae(directory).b_dec.double().sum()) > 2e39


def test_wrong_tensors(directory):
    good = load_file(directory / WEIGHTS)
    for wrong, error, match in [
        ({**good, "threshold": torch.ones(24)}, FileFormatError, "unexpected .'threshold'."),
        ({n: t for n, t in good.items() if n != "b_enc"}, FileFormatError, "missing .'b_enc'."),
        ({**good, "b_enc": torch.ones(23)}, ShapeError, "b_enc has shape"),
        ({**good, "b_enc": torch.ones(24, dtype=torch.int32)}, FileFormatError, "int32"),
        ({**good, "W_enc": good["W_dec"], "W_dec": good["W_enc"]}, ShapeError, "W_enc has shape"),
    ]:
        save_file({n: t.contiguous() for n, t in wrong.items()}, directory / WEIGHTS)
        assert_refuses(directory, error, match)


def test_wrong_gemma_scope_arrays(tmp_path):
    good = {name.lower(): tensor.numpy() for name, tensor in make("jumprelu").tensors().items()}
    for wrong, error, match in [
        ({n: a for n, a in good.items() if n != "threshold"}, FileFormatError, "threshold"),
        ({**good, "threshold": np.ones(24, np.int64)}, FileFormatError, "int64"),
        ({**good, "threshold": np.full(24, np.nan, np.float32)}, WeightsError, "24 of 24"),
        ({**good, "threshold": np.ones(23, np.float32)}, ShapeError, "threshold has shape"),
    ]:
        np.savez(tmp_path / "params.npz", **wrong)
        assert_refuses(tmp_path, error, match)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_verify.sae.formats.tensors.MAX_UNCHECKED_MEMBER_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "params.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w_enc.npy", bytes(2**22))
    assert_refuses(tmp_path, FileFormatError, "unpacks from")


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["architecture", "apply_b_dec_to_input", "normalize_activations", "k", "d_in", "d_sae"])
def test_missing_settings(directory, key):
    edit(directory, **{key: ...})
    assert_refuses(directory, MetadataError, key)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        *[
            ({"architecture": name}, UnsupportedError, name)
            for name in ("temporal", "crosscoder", "clt", "dark_matter")
        ],
        ({"reshape_activations": "hook_z"}, UnsupportedError, "hook_z"),
        ({"normalize_activations": "covariance_whitening"}, UnsupportedError, "covariance_whitening"),
        ({"magic": 1}, UnsupportedError, "magic"),
        ({"k": 5.5}, MetadataError, "k in"),
        ({"k": True}, MetadataError, "k in"),
        ({"k": 0}, InputError, "k is 0"),
        ({"k": 25}, InputError, "k is 25"),
        ({"apply_b_dec_to_input": 1}, MetadataError, "bool"),
        ({"rescale_acts_by_decoder_norm": "yes"}, MetadataError, "rescale"),
        ({"architecture": 3}, MetadataError, "str"),
        ({"d_in": 9}, ShapeError, "d_in = 9"),
        ({"metadata": 3}, FileFormatError, "metadata"),
        ({"metadata": {"hook_head_index": 2}}, UnsupportedError, "hook_head_index"),
        ({"metadata": {"hook_name": "a", "hook_name_out": "b"}}, UnsupportedError, "hook_name_out"),
        ({"architecture": "jumprelu", "rescale_acts_by_decoder_norm": True}, UnsupportedError, "save_inference_model"),
        ({"metadata": {"sae_verify_input_scale": "2"}}, InputError, "input scale is '2'"),
    ],
)
def test_wrong_settings(directory, changes, error, match):
    edit(directory, **changes)
    assert_refuses(directory, error, match)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"activation_fn_str": "topk"}, MetadataError, "activation_fn_kwargs"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": "5"}}, MetadataError, "activation_fn_kwargs"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5, "signed": True}}, MetadataError, "signed"),
        ({"activation_fn_str": "tanh-relu"}, UnsupportedError, "tanh-relu"),
        ({"architecture": "topk"}, UnsupportedError, "topk"),
        ({"finetuning_scaling_factor": True}, UnsupportedError, "finetuning"),
        ({"hook_name": "blocks.0.attn.hook_z"}, UnsupportedError, "hook_z"),
        ({"hook_head_index": 1}, UnsupportedError, "hook_head_index"),
        ({"apply_b_dec_to_input": 1}, MetadataError, "apply_b_dec"),
        ({"normalize_activations": True}, MetadataError, "scale is not stored"),
        ({"normalize_activations": "magic"}, UnsupportedError, "magic"),
    ],
)
def test_wrong_settings_of_older_versions(tmp_path, changes, error, match):
    directory = save_sae(make("standard"), tmp_path / "sae")
    edit(directory, metadata=..., **changes)
    assert_refuses(directory, error, match)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_wrong_input_scale(directory, scale):
    assert_refuses(directory, InputError, "input scale", input_scale=scale)


def test_an_input_scale_beside_another_normalisation(directory):
    edit(directory, normalize_activations="layer_norm")
    assert_refuses(directory, InputError, "computes its own scale", input_scale=2.0)


def plain(path: Path, **changes: object) -> Path:
    tensors = load_file(path)
    metadata = {"architecture": "topk", "apply_b_dec_to_input": "true", "normalize_activations": "none", "k": "5"}
    metadata = {**metadata, "rescale_acts_by_decoder_norm": "false", **changes}
    save_file(tensors, path, {k: v for k, v in metadata.items() if v is not ...} or None)
    return path


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *[
            ({key: ...}, MetadataError)
            for key in ("architecture", "apply_b_dec_to_input", "normalize_activations", "k")
        ],
        ({"rescale_acts_by_decoder_norm": ...}, MetadataError),
        ({"k": "five"}, MetadataError),
        ({"k": "-5"}, MetadataError),
        ({"apply_b_dec_to_input": "True"}, MetadataError),
        ({"architecture": "temporal"}, UnsupportedError),
        ({"architecture": "jumprelu"}, UnsupportedError),
        ({"architecture": "gated", "k": ..., "rescale_acts_by_decoder_norm": ...}, FileFormatError),
        ({"normalize_activations": "whitened"}, UnsupportedError),
        ({"temperature": "2"}, UnsupportedError),
    ],
)
def test_wrong_plain_settings_are_refused_by_the_checker_too(tmp_path, changes, error):
    from sae_verify.checker.errors import Rejected
    from sae_verify.checker.weights import load_weights

    path = plain(save_plain(make("topk"), tmp_path), **changes)
    assert_refuses(path, error)
    with pytest.raises(Rejected):
        load_weights(path, None)


def test_a_bare_file_without_settings(tmp_path):
    save_file(make("standard").tensors(), tmp_path / "x.safetensors")
    assert_refuses(tmp_path / "x.safetensors", MetadataError, "architecture")


# --- nothing there --------------------------------------------------------------------------------------------------


def test_what_is_not_an_sae_is_listed(tmp_path):
    assert_refuses(tmp_path, FileFormatError, "holds nothing")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "layer_3").mkdir()
    assert_refuses(tmp_path, FileFormatError, r"'config\.json', 'layer_3/'")
    (tmp_path / "params.safetensors").touch()
    assert_refuses(tmp_path, MetadataError, "architecture")
    (tmp_path / "weights.h5").touch()
    assert_refuses(tmp_path / "weights.h5", FileFormatError, r"\.h5")
    assert_refuses(tmp_path / "absent.npz", FileFormatError, "does not exist")
    assert_refuses(tmp_path / "no" / "such" / "place", FileFormatError, "does not exist")
    with pytest.raises(FileFormatError, match="does not exist"):
        load_sae(tmp_path, "layer_9")


@pytest.mark.parametrize("sae_id", ["..", "a/../../b", "/etc", "", "*", "a?"])
def test_an_sae_id_stays_inside(tmp_path, sae_id):
    with pytest.raises(InputError, match="sae_id"):
        load_sae(tmp_path, sae_id)


# --- hub ------------------------------------------------------------------------------------------------------------


def test_a_repository_is_downloaded_without_pickles(directory, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    calls = []

    def snapshot_download(repo, allow_patterns):
        calls.append((repo, allow_patterns))
        return str(directory.parent)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert load_sae("owner/repository", "sae").source.path == directory
    assert calls[0][0] == "owner/repository"
    wanted = calls[0][1]
    assert {"sae/cfg.json", "sae/sae_weights.safetensors", "sae/params.npz", "sae/ae.pt"} <= set(wanted)
    assert all(name.startswith("sae/") and "*" not in name.replace("-*.safetensors", "") for name in wanted)
    load_sae("owner/repository/sae")
    assert calls[1] == calls[0]


def test_an_unavailable_repository(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match="could not be downloaded: offline"):
        load_sae("owner/repository", "sae")


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"sae-verify\[hf\]"):
        load_sae("owner/repository", "sae")
    with pytest.raises(FileFormatError, match="does not exist"):
        load_sae("gpt2-small-res-jb", "sae")


def test_json_numbers_are_not_settings(directory):
    config = json.loads((directory / "cfg.json").read_text())
    config["normalize_activations"] = None
    (directory / "cfg.json").write_text(json.dumps(config))
    assert_refuses(directory, MetadataError, "normalize_activations")
