"""Files that are broken, hostile or contradict themselves: one typed error each, that names what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tempfile
import zipfile
import zlib
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
from sae_verify.sae import describe, load_sae, load_transcoder

from .sources import SAES, TRANSCODERS, write_json

CONFIGS = ("cfg.json", "config.json", "hyperparams.json")


def written(name: str, directory: Path) -> Path:
    table = SAES if name in SAES else TRANSCODERS
    return table[name][1](directory, np.random.default_rng(zlib.crc32(name.encode()))).path


def edit_config(path: Path, **changes: object) -> None:
    """Change settings of the directory's config; `...` removes one, a trainer's are nested."""
    file = next(path / name for name in CONFIGS if (path / name).exists())
    config = json.loads(file.read_text())
    inner = config.get("trainer", config)
    for key, value in changes.items():
        inner.pop(key, None)
        if value is not ...:
            inner[key] = value
    write_json(file, config)


def weights_of(path: Path) -> Path:
    if path.is_file():
        return path
    return next(f for f in sorted(path.rglob("*")) if f.suffix in (".pt", ".safetensors", ".npz"))


def edit_weights(path: Path, **changes: object) -> None:
    """Replace tensors by functions of them or by values; `...` removes one. Names use `__` for a dot."""
    file = weights_of(path)
    if file.suffix == ".npz":
        with np.load(file) as data:
            tensors = {name: torch.from_numpy(data[name]) for name in data.files}
    else:
        tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    for key, change in changes.items():
        name = key.replace("__", ".")
        old = tensors.pop(name, None)
        if change is not ...:
            tensors[name] = change(old) if callable(change) else change
    if file.suffix == ".npz":
        np.savez(file, **{name: t.numpy() for name, t in tensors.items()})
    elif file.suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in tensors.items()}, file)
    else:
        torch.save(tensors, file)


def assert_refuses(path: Path, error: type[SaeVerifyError], match: str, **arguments) -> None:
    """Loading and describing raise the same."""
    with pytest.raises(error, match=match) as raised:
        load_sae(path, **arguments)
    assert str(raised.value).count(".") >= 1
    with pytest.raises(error, match=match):
        describe(path, **arguments)


# --- orientation, missing tensors, values ----------------------------------------------------------------------------


def transposed(t: torch.Tensor) -> torch.Tensor:
    return t.T


@pytest.mark.parametrize(
    ("name", "changes", "error", "match"),
    [
        ("gemma-scope/params", {"W_enc": transposed, "W_dec": transposed}, ShapeError, "transposed"),
        ("gemma-scope-2/resid", {"w_enc": transposed, "w_dec": transposed}, ShapeError, "transposed"),
        ("sparsify/topk", {"encoder__weight": transposed}, ShapeError, "W_enc has shape|W_dec has shape"),
        ("sparsify/topk", {"W_dec": transposed}, ShapeError, "W_dec has shape"),
        ("llama-scope/plain", {"decoder__weight": transposed}, ShapeError, "W_dec has shape"),
        ("dictionary-learning/topk", {"encoder__weight": transposed}, ShapeError, "has shape"),
        ("goodfire/release", {"decoder_linear__weight": transposed}, ShapeError, "W_dec has shape"),
        ("qwen-scope/release", {"W_enc": transposed, "W_dec": transposed}, ShapeError, "transposed"),
        ("saelens/batchtopk-training", {"W_enc": transposed, "W_dec": transposed}, ShapeError, "transposed"),
        ("gemma-scope/params", {"threshold": ...}, FileFormatError, "missing .'threshold'"),
        ("gemma-scope-2/resid", {"threshold": ...}, FileFormatError, "missing .'threshold'"),
        ("saelens/batchtopk-training", {"topk_threshold": ...}, FileFormatError, "missing .'topk_threshold'"),
        ("dictionary-learning/batchtopk", {"threshold": ...}, FileFormatError, "missing .'threshold'"),
        ("dictionary-learning/batchtopk", {"threshold": torch.tensor(-1.0)}, MetadataError, "-1.0"),
        ("dictionary-learning/matryoshka", {"threshold": torch.ones(24)}, ShapeError, "one number"),
        ("dictionary-learning/matryoshka", {"group_sizes": torch.tensor([8, 8])}, ShapeError, "add up"),
        ("dictionary-learning/topk", {"k": torch.tensor(5.0)}, FileFormatError, "one integer"),
        ("dictionary-learning/topk", {"k": torch.tensor(5), "encoder__bias": "text"}, FileFormatError, "no tensors"),
        ("openai/topk", {"latent_bias": ...}, SaeVerifyError, "one.pt|6.pt|has"),
        ("openai/topk", {"decoder__weight": ...}, UnsupportedError, "tied"),
        ("openai/topk", {"activation": "Identity"}, UnsupportedError, "Identity"),
        ("openai/topk", {"activation_state_dict": {"k": 5, "postact_fn": "Identity"}}, MetadataError, "postact_fn"),
        ("openai/topk", {"activation__k": 6}, MetadataError, "two values of k"),
        ("openai/topk", {"activation_state_dict": {"postact_fn": "ReLU"}}, MetadataError, "values of k"),
        ("goodfire/release", {"encoder_linear__bias": lambda t: t * torch.nan}, WeightsError, "24 of 24"),
        ("sparsify/topk", {"W_dec": lambda t: t.index_fill(0, torch.tensor(3), torch.inf)}, WeightsError, "8 of 192"),
        ("sparsify/topk", {"W_dec": lambda t: t.half()}, InputError, "one dtype"),
        ("gemma-scope-2/resid", {"w_enc": lambda t: t.bfloat16()}, InputError, "one dtype"),
        ("sparsify/topk", {"encoder__bias": lambda t: t.int()}, FileFormatError, "int32"),
        ("sparsify/topk", {"W_skip": torch.ones(8, 8)}, FileFormatError, "unexpected .'W_skip'"),
        ("llama-scope/plain", {"encoder_glu__weight": torch.ones(24, 8)}, FileFormatError, "unexpected"),
        ("saelens/before-6-ones", {"scaling_factor": torch.full((24,), 2.0)}, UnsupportedError, "scaling_factor"),
        ("goodfire/release", {"encoder_linear__weight": torch.ones(1).expand(24, 8)}, FileFormatError, "is stored"),
    ],
)
def test_weights(name, changes, error, match, tmp_path):
    path = written(name, tmp_path)
    edit_weights(path, **changes)
    assert_refuses(path, error, match)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "error", "match"),
    [
        ("gemma-scope-2/resid", {"architecture": "topk"}, UnsupportedError, "topk"),
        ("gemma-scope-2/resid", {"type": "crosscoder"}, UnsupportedError, "several layers"),
        ("gemma-scope-2/resid", {"type": "transcoder"}, UnsupportedError, "transcoder"),
        ("gemma-scope-2/resid", {"hf_hook_point_out": "model.layers.4.output"}, UnsupportedError, "transcoder"),
        ("gemma-scope-2/resid", {"width": 25}, ShapeError, "width = 25"),
        ("gemma-scope-2/resid", {"magic": 1}, UnsupportedError, "magic"),
        ("sparsify/topk", {"magic": 1}, UnsupportedError, "magic"),
        ("gemma-scope-2/resid", {"architecture": ...}, MetadataError, "architecture"),
        ("gemma-scope-2/resid", {"affine_connection": True}, FileFormatError, "affine"),
        ("gemma-scope-2/resid", {"affine_connection": "yes"}, MetadataError, "bool"),
        ("dictionary-learning/topk", {"dict_class": ...}, MetadataError, "dict_class"),
        ("dictionary-learning/topk", {"dict_class": "CrossCoder"}, UnsupportedError, "CrossCoder"),
        ("dictionary-learning/topk", {"dict_class": "AutoEncoder"}, FileFormatError, "missing .'bias'"),
        ("dictionary-learning/topk", {"activation_dim": 9}, ShapeError, "activation_dim = 9"),
        ("dictionary-learning/topk", {"k": 6}, ShapeError, "k = 6"),
        ("sparsify/topk", {"activation": "relu"}, UnsupportedError, "relu"),
        ("sparsify/topk", {"signed": True}, UnsupportedError, "signed"),
        ("sparsify/topk", {"num_latents": 25}, ShapeError, "num_latents = 25"),
        ("sparsify/topk", {"expansion_factor": 4}, ShapeError, "num_latents = 32"),
        ("sparsify/topk", {"d_in": 9}, ShapeError, "d_in = 9"),
        ("sparsify/topk", {"k": ...}, MetadataError, "'k'"),
        ("sparsify/topk", {"skip_connection": True}, UnsupportedError, "skip"),
        ("sparsify/groupmax", {"k": 5}, InputError, "divides"),
        ("llama-scope/plain", {"use_glu_encoder": True}, UnsupportedError, "glu"),
        ("llama-scope/plain", {"norm_activation": "batch-wise"}, UnsupportedError, "batch-wise"),
        ("llama-scope/plain", {"hook_point_out": "blocks.4.hook_mlp_out"}, UnsupportedError, "transcoder"),
        ("llama-scope/plain", {"jump_relu_threshold": -0.5}, MetadataError, "-0.5"),
        ("llama-scope/plain", {"dataset_average_activation_norm": {"in": 1.0, "out": 2.0}}, UnsupportedError, "scale"),
        ("llama-scope/plain", {"dataset_average_activation_norm": {"in": 0.0, "out": 0.0}}, MetadataError, "positive"),
        ("llama-scope/plain", {"dataset_average_activation_norm": ...}, MetadataError, "'in'"),
        ("llama-scope/plain", {"d_sae": 25}, ShapeError, "d_sae = 25"),
        ("llama-scope/topk", {"sparsity_include_decoder_norm": True}, UnsupportedError, "units"),
        ("llama-scope/plain", {"sparsity_include_decoder_norm": ...}, MetadataError, "sparsity_include_decoder_norm"),
        ("saelens/matching-pursuit", {"residual_threshold": -1.0}, InputError, "residual_threshold"),
        ("saelens/matching-pursuit", {"magic": 1}, UnsupportedError, "magic"),
        ("saelens/abstopk", {"residual_threshold": 1.0}, UnsupportedError, "residual_threshold"),
        ("saelens/abstopk", {"d_sae": 25}, ShapeError, "d_sae = 25"),
    ],
)
def test_settings(name, changes, error, match, tmp_path):
    path = written(name, tmp_path)
    edit_config(path, **changes)
    with pytest.raises(error, match=match):
        load_sae(path)


def test_a_transcoder_that_contradicts_itself(tmp_path):
    path = written("saelens/skip_transcoder", tmp_path)
    edit_config(path, d_out=7)
    with pytest.raises(ShapeError, match="d_out = 7"):
        load_transcoder(path)
    edit_config(path, d_out=6, apply_b_dec_to_input=True)
    with pytest.raises(UnsupportedError, match="subtracts"):
        load_transcoder(path)
    edit_config(path, apply_b_dec_to_input=False)
    edit_weights(path, W_skip=transposed)
    with pytest.raises(ShapeError, match="W_skip"):
        load_transcoder(path)
    edit_weights(path, W_skip=lambda t: t.T * torch.nan)
    with pytest.raises(WeightsError, match="W_skip"):
        load_transcoder(path)


def test_an_sae_is_no_transcoder(tmp_path):
    with pytest.raises(UnsupportedError, match="load_sae"):
        load_transcoder(written("sparsify/topk", tmp_path))


def test_cross_layer_transcoders_are_told(tmp_path):
    path = written("gemma-scope-2/resid", tmp_path)
    edit_weights(path, w_dec=lambda t: t[:, None].expand(-1, 3, -1))
    assert_refuses(path, UnsupportedError, "cross-layer")
    (tmp_path / "clt").mkdir()
    save_file({"W_enc_0": torch.ones(3, 3)}, tmp_path / "clt" / "W_enc_0.safetensors")
    assert_refuses(tmp_path / "clt", UnsupportedError, "later ones")


def test_gemma_scope_releases_that_only_their_name_tells(tmp_path):
    path = written("gemma-scope/params", tmp_path)
    moved = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3"
    moved.parent.mkdir()
    path.rename(moved)
    assert_refuses(moved, UnsupportedError, "transcoder")


def test_qwen_scope_needs_its_name(tmp_path):
    path = written("qwen-scope/release", tmp_path)
    moved = path.rename(tmp_path / "layer3.sae.pt")
    assert_refuses(moved, MetadataError, "L0_")
    wrong = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W2K-L0_50"
    wrong.mkdir()
    assert_refuses(moved.rename(wrong / "layer3.sae.pt"), ShapeError, "W = 2048")


def test_torch_files_that_nothing_tells(tmp_path):
    torch.save({"encoder.weight": torch.ones(2, 2)}, tmp_path / "a.pt")
    assert_refuses(tmp_path / "a.pt", FileFormatError, "encoder.weight")
    assert_refuses(tmp_path, FileFormatError, "encoder.weight")  # the only one of its folder
    torch.save({}, tmp_path / "b.pt")
    assert_refuses(tmp_path, FileFormatError, "is not one SAE")


# --- hostile files ----------------------------------------------------------------------------------------------------


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["dictionary-learning/topk", "openai/topk", "goodfire/release", "qwen-scope/release"])
@pytest.mark.parametrize("modern", [True, False])
def test_pickles_with_code(name, modern, tmp_path):
    (tmp_path / "sae").mkdir()
    path = written(name, tmp_path / "sae")
    target = tmp_path / "owned"
    content = torch.load(weights_of(path), weights_only=True) | {"extra": Attack(target)}
    if modern:
        torch.save(content, weights_of(path))
    else:
        weights_of(path).write_bytes(pickle.dumps(content))
    assert_refuses(path, UnsafeFileError, "was not loaded")
    assert not target.exists()


@pytest.mark.parametrize("name", [name for name in SAES if "pursuit" not in name])
@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.95])
def test_truncated_weights(name, keep, tmp_path):
    path = written(name, tmp_path)
    data = weights_of(path).read_bytes()
    weights_of(path).write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(FileFormatError):
        load_sae(path)


@given(st.sampled_from([*SAES, *TRANSCODERS]), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_flipped_byte_gives_an_sae_or_a_typed_error(name, data):
    with tempfile.TemporaryDirectory() as scratch:
        path = written(name, Path(scratch))
        files = [path] if path.is_file() else [f for f in sorted(path.rglob("*")) if f.is_file()]
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, min(len(content), 3000) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        for action in (load_sae, load_transcoder, describe):
            with contextlib.suppress(SaeVerifyError):
                action(path)


def test_compressed_torch_files_are_refused(tmp_path):
    path = written("goodfire/release", tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    path.write_bytes(packed.getvalue())
    with pytest.raises(FileFormatError, match=r"compressed|nothing that can be read"):
        load_sae(path)
    with pytest.raises(FileFormatError, match="compressed"):
        load_sae(path, format="goodfire")


def test_links_out_of_the_directory(tmp_path):
    for name in ("sparsify/topk", "gemma-scope/params", "dictionary-learning/topk", "llama-scope/plain"):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        path = written(name, folder)
        file = weights_of(path)
        outside = file.rename(tmp_path / f"{folder.name}.outside")
        file.symlink_to(outside)
        assert_refuses(path, UnsafeFileError, "is a link to")
    path = written("gemma-scope-2/resid", tmp_path)
    secret = (path / "config.json").rename(tmp_path / "secret.json")
    (path / "config.json").symlink_to(secret)
    load_sae(path)  # stays within the directory


def test_a_linked_directory_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    path = written("sparsify/topk", tmp_path / "real")
    (tmp_path / "link").symlink_to(path)
    assert load_sae(tmp_path / "link").d_in == 8


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    path = written("gemma-scope-2/resid", tmp_path)
    tensors = load_file(path / "params.safetensors")
    (path / "params.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for i, part in enumerate((names[:2], names[2:]), start=1):
        file = f"params-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path / file)
        places |= dict.fromkeys(part, file)
    write_json(path / "params.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return path


def test_shards(sharded, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = load_sae(written("gemma-scope-2/resid", tmp_path / "whole"))
    ours = load_sae(sharded)
    assert all(torch.equal(a, b) for a, b in zip(ours.tensors().values(), whole.tensors().values(), strict=True))


@pytest.mark.parametrize("change", ["truncated", "missing", "moved", "elsewhere", "no map", "unlisted"])
def test_broken_shards(sharded, change):
    index = sharded / "params.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    second = sharded / "params-00002-of-00002.safetensors"
    error: type[SaeVerifyError] = FileFormatError
    if change == "truncated":
        second.write_bytes(second.read_bytes()[:-8])
    elif change == "missing":
        second.unlink()
    elif change == "moved":
        places["w_enc"] = "params-00001-of-00002.safetensors"
    elif change == "elsewhere":
        places["w_enc"] = "../params-00002-of-00002.safetensors"
        error = UnsafeFileError
    elif change == "unlisted":
        places.pop("w_enc")
    write_json(index, {"weight_map": [] if change == "no map" else places})
    assert_refuses(sharded, error, "shard|index|weight_map|cannot be read|does not exist|names the file|tensors")
