"""Files that nobody vouches for: each ends in `Rejected`, soon and in little memory, and never in anything else."""

from __future__ import annotations

import copy
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.tiny import tiny_model, tiny_sae

from sae_verify.checker import Rejected, check, forget_weights
from sae_verify.checker.model import load_head
from sae_verify.checker.weights import load_weights
from sae_verify.sae import InputScale

from .cases import Case, stamped

Cases = Callable[[str], Case]
NAME = "gated-refuted"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def case(case_of: Cases) -> Case:
    return case_of(NAME)


def rejection(path: Path, **places: Path) -> str | None:
    try:
        check(path, **places)
    except Rejected as reason:
        return str(reason)
    return None


def refused(case: Case, data: bytes, directory: Path) -> str:
    path = directory / "hostile.cert"
    path.write_bytes(data)
    with pytest.raises(Rejected) as caught:
        check(path, sae=case.sae, model=case.model)
    return str(caught.value)


# --- the certificate ------------------------------------------------------------------------------------------------

BYTES: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "not an object": b"[1, 2]",
    "null": b"null",
    "truncated": b'{"format": "sae_verify',
    "deep lists": b"[" * 200_000,
    "deep lists, closed": b"[" * 900 + b"]" * 900,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nan": b'{"x": NaN}',
    "infinity": b'{"x": -Infinity}',
    "out of range": b'{"x": 1e999}',
    "huge integer": b'{"x": ' + b"9" * 5000 + b"}",
    "repeated keys": b'{"x": 1, "x": 1}',
    "bad escape": b'{"x": "\\q"}',
    "lone surrogate": b'{"\\ud800": 1}',
    "many lists": b"[" + b"[]," * 200_000 + b"[]]",
    "bad utf-8": b'{"x": "\xff\xfe"}',
    "trailing data": b"{} {}",
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_certificate(name: str, case: Case, tmp_path: Path) -> None:
    assert len(refused(case, BYTES[name], tmp_path)) < 2000


VALUES: list[Any] = [
    *(True, False, None, 0, -1, 2**63, 2**70, 10**299, 2**53 + 1, -0.0, 5e-324, 1e300, -1e300, 1e301, 1.5),
    *("", "\ud800", "\x00", "\x1b[2J", "../" * 50, "/dev/zero", "/", "a" * 10_000, "٣", "blocks.٠.hook_resid_post"),
    *([], [[]], {}, [None], [True], ["1"], [1e300] * 8, [-0.0] * 8, [5e-324] * 8, [0] * 100_000, {"a": {}}),
    *([{"delta": []}], [{}] * 1000, [2**40], [2**39], [10**30]),
]
SPOTS = [
    *(("problem",), ("x",), ("context",), ("bounds",), ("witnesses",), ("weights",), ("tool",), ("version",)),
    ("format",),
    *(("weights", "sae"), ("weights", "sae", "path"), ("weights", "sae", "sha256"), ("weights", "sae", "input_scale")),
    *(("weights", "model", "path"), ("problem", "hook"), ("problem", "tokens"), ("problem", "text")),
    *(("problem", "clamp", key) for key in ("kind", "features", "values", "positions")),
    *(("problem", "threat", key) for key in ("radius", "relative_to", "held", "at", "features")),
    *(("problem", "readout", key) for key in ("kind", "positive", "negative")),
    *(("problem", "at_most"), ("digest",), ("sha256",), ("semantics",)),
    *(("bounds", -1, key) for key in ("method", "theorem", "radius", "value", "against", "multipliers")),
    *(("bounds", -1, key) for key in ("tangent", "secant", "mean", "regions")),
    *(("bounds", -1, "multipliers", "x", role, k) for role in ("equal", "upper") for k in ("features", "values")),
    *(("witnesses", 0, key) for key in ("delta", "replay", "dtype")),
]


@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: ".".join(map(str, spot)))
def test_any_value_at_any_place_is_judged_or_rejected(spot: tuple[Any, ...], case: Case, tmp_path: Path) -> None:
    """Whatever stands there, nothing but a report or `Rejected` comes out; the mutation tests judge the reports."""
    path = tmp_path / "hostile.cert"
    count = 0
    for value in VALUES:
        content = copy.deepcopy(case.content)
        at = content
        for key in spot[:-1]:
            at = at[key]
        at[spot[-1]] = value
        path.write_text(json.dumps(stamped(content) if spot not in (("digest",), ("sha256",)) else content))
        for given in ({"sae": case.sae, "model": case.model}, {}):
            reason = rejection(path, **given)
            count += reason is not None
            assert len(reason or "") < 2000
            assert "cannot be checked" not in (reason or ""), "only the last resort caught this"
    assert count > 20


def test_large_files_and_many_steps(case: Case, tmp_path: Path) -> None:
    assert "bytes" in refused(case, b" " * (33 * 2**20), tmp_path)
    many = {**case.content, "witnesses": case.content["witnesses"] * 40}
    assert "at most" in refused(case, json.dumps(stamped(many)).encode(), tmp_path)


def test_places_that_are_no_files(case: Case, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path / "nothing", tmp_path, tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero")):
        with pytest.raises(Rejected):
            check(place, sae=case.sae, model=case.model)
    path = tmp_path / "good.cert"
    path.write_text(json.dumps(case.content))
    for place in (*("nothing", "pipe", "loop", "x" * 5000, "a\0b"), "\ud800"):
        with pytest.raises(Rejected):
            check(path, sae=tmp_path / place, model=case.model)
        with pytest.raises(Rejected):
            check(path, sae=case.sae, model=tmp_path / place)


# --- the weights ----------------------------------------------------------------------------------------------------


def container(header: Any, body: bytes = b"") -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + body


def entry(shape: Any, start: Any, stop: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


CONTAINERS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01\x00",
    "header beyond the file": struct.pack("<Q", 2**63) + b"{}",
    "header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "header is no object": container([]),
    "header is no json": container(b"{"),
    "deep header": container(b"[" * 100_000),
    "entry is a number": container({"a": 1}),
    "entry is null": container({"a": None}),
    "unknown dtype": container({"a": entry([1], 0, 4, "C64")}, b"0000"),
    "dtype is a list": container({"a": entry([1], 0, 4, ["F32"])}, b"0000"),
    "negative shape": container({"a": entry([-1], 0, 4)}, b"0000"),
    "boolean shape": container({"a": entry([True], 0, 4)}, b"0000"),
    "float shape": container({"a": entry([1.0], 0, 4)}, b"0000"),
    "text shape": container({"a": entry("11", 0, 4)}, b"0000"),
    "huge shape": container({"a": entry([2**62, 2**62], 0, 4)}, b"0000"),
    "overlap": container({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"0000"),
    "hole": container({"a": entry([1], 4, 8)}, b"00000000"),
    "trailing bytes": container({"a": entry([1], 0, 4)}, b"00000000"),
    "beyond the end": container({"a": entry([2], 0, 8)}, b"0000"),
    "backwards": container({"a": entry([1], 4, 0)}, b"0000"),
    "three offsets": container({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"0000"),
    "a bomb of overlaps": container({str(i): entry([2**18], 0, 2**20) for i in range(20_000)}, b"\0" * 2**20),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_hostile_safetensors(name: str, tmp_path: Path) -> None:
    sae, model = tiny_sae(tmp_path / "sae"), tiny_model(tmp_path / "model")
    (sae / "sae_weights.safetensors").write_bytes(CONTAINERS[name])
    (model / "model.safetensors").write_bytes(CONTAINERS[name])
    with pytest.raises(Rejected):
        load_weights(sae, None)
    with pytest.raises(Rejected):
        load_head(model)


def test_a_small_file_does_not_stand_for_a_huge_model(tmp_path: Path) -> None:
    """Ten thousand more names for the bytes of one tensor would have to be hashed ten thousand times."""
    model = tiny_model(tmp_path / "model") / "model.safetensors"
    (length,) = struct.unpack("<Q", model.read_bytes()[:8])
    header, body = json.loads(model.read_bytes()[8 : 8 + length]), model.read_bytes()[8 + length :]
    load_head(model.parent)
    many = {f"x{i}": entry([len(body)], 0, len(body), "U8") for i in range(10_000)}
    model.write_bytes(container({**header, **many}, body))
    with pytest.raises(Rejected, match="exactly once"):
        load_head(model.parent)


@pytest.mark.parametrize("kind", ["nan", "infinite", "integer", "shape", "missing", "extra"])
def test_tensors_that_are_no_weights(kind: str, tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae")
    tensors = load_file(sae / "sae_weights.safetensors")
    if kind in ("nan", "infinite"):
        tensors["b_enc"][3] = np.nan if kind == "nan" else np.inf
    elif kind == "integer":
        tensors["b_enc"] = np.full(24, 2**60 + 1, dtype=np.int64)
    elif kind == "shape":
        tensors["W_enc"] = tensors["W_enc"][None]
    elif kind == "missing":
        del tensors["threshold"]
    else:
        tensors["log_threshold"] = tensors["threshold"]
    save_file(tensors, sae / "sae_weights.safetensors")
    with pytest.raises(Rejected):
        load_weights(sae, None)


def write_npz(path: Path, kind: str) -> None:
    arrays = {
        "w_enc": np.zeros((4, 6), np.float32),
        "w_dec": np.zeros((6, 4), np.float32),
        "b_enc": np.zeros(6, np.float32),
        "b_dec": np.zeros(4, np.float32),
        "threshold": np.zeros(6, np.float32),
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    header = b"\x93NUMPY\x01\x00"

    def npy(text: str, body: bytes = b"") -> bytes:
        padded = text.encode() + b"\n"
        return header + struct.pack("<H", len(padded)) + padded + body

    contents = {
        "no zip": b"PK\x03\x04 nothing",
        "a pickle": b"\x80\x04N.",
        "an npy file": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"0000"),
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "corrupted":
        data = bytearray(path.read_bytes())
        data[60:400] = os.urandom(340)
        path.write_bytes(bytes(data))
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w_enc.npy", "w") as file:
            file.write(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**27},), }}"))
            for _ in range(300):
                file.write(b"\0" * 2**20)
    elif kind == "object array":
        np.savez(path, **{**arrays, "w_enc": np.array([None, {}], dtype=object)})  # type: ignore[arg-type]
    else:
        texts = {
            "huge shape": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**60},), }}",
            "negative shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (-5,), }",
            "nested header": "(" * 5000,
            "odd header": "{'descr': [('a', '<f4')], 'fortran_order': 0, 'shape': 'x'}",
            "big endian": "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }",
        }
        with zipfile.ZipFile(path, "a") as archive:
            if kind == "repeated member":
                archive.writestr("w_enc.npy", npy(texts["big endian"], b"0000"))
            else:
                archive.writestr("x.npy", npy(texts[kind], b"0000"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "kind",
    [
        *("no zip", "a pickle", "an npy file", "truncated", "corrupted", "bomb", "object array", "huge shape"),
        *("negative shape", "nested header", "odd header", "big endian", "repeated member"),
    ],
)
def test_hostile_npz(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    write_npz(path, kind)
    with pytest.raises(Rejected):
        load_weights(path, None)
    with pytest.raises(Rejected):
        load_weights(tmp_path, None)


def edit(file: Path, **changes: Any) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, **changes}))


CONFIGS: list[dict[str, Any]] = [
    {"architecture": ["jumprelu"]},
    {"architecture": "transcoder"},
    {"apply_b_dec_to_input": 1},
    {"apply_b_dec_to_input": None},
    {"normalize_activations": None},
    {"normalize_activations": ["none"]},
    {"normalize_activations": "layer"},
    {"reshape_activations": "hook_z"},
    {"rescale_acts_by_decoder_norm": True},
    {"rescale_acts_by_decoder_norm": "yes"},
    {"activation_fn": "tanh"},
    {"finetuning_scaling_factor": True},
]


@pytest.mark.parametrize("changes", CONFIGS, ids=str)
def test_settings_that_might_change_the_algebra(changes: dict[str, Any], tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae")
    load_weights(sae, None)
    edit(sae / "cfg.json", **changes)
    with pytest.raises(Rejected):
        load_weights(sae, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_fn_str": "topk"},
        {"activation_fn": "tanh-relu"},
        {"finetuning_scaling_factor": True},
        {"hook_name": "blocks.0.attn.hook_z"},
        {"hook_head_index": 3},
        {"architecture": "topk", "k": 4},
    ],
    ids=str,
)
def test_settings_from_before_saelens_6(changes: dict[str, Any], tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae", "relu")
    config = json.loads((sae / "cfg.json").read_text())
    del config["metadata"]
    (sae / "cfg.json").write_text(json.dumps(config))
    load_weights(sae, None)
    edit(sae / "cfg.json", **changes)
    with pytest.raises(Rejected):
        load_weights(sae, None)


def test_an_input_scale_where_the_sae_computes_its_own(tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae")
    edit(sae / "cfg.json", normalize_activations="layer_norm")
    with pytest.raises(Rejected, match="input scale"):
        load_weights(sae, 2.0)


@pytest.mark.parametrize("scale", [None, 1.0, 0.7000000000000001])
def test_an_input_scale_that_is_not_the_recorded_one(scale: float | None, tmp_path: Path) -> None:
    sae = tiny_sae(tmp_path / "sae", normalization=InputScale(0.7))
    assert load_weights(sae, 0.7).input_scale == 0.7
    with pytest.raises(Rejected, match="input scale"):
        load_weights(sae, scale)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_an_input_scale_that_is_not_positive(scale: float, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="positive"):
        load_weights(tiny_sae(tmp_path / "sae"), scale)


def test_gated_exponents_out_of_range(case_of: Cases, tmp_path: Path) -> None:
    case = case_of(NAME)
    sae = tiny_sae(tmp_path / "sae", "gated")
    tensors = load_file(sae / "sae_weights.safetensors")
    tensors["r_mag"][:] = 3e38
    save_file(tensors, sae / "sae_weights.safetensors")
    content = copy.deepcopy(case.content)
    content["weights"]["sae"]["sha256"] = load_weights(sae, None).digest
    path = tmp_path / "a.cert"
    path.write_text(json.dumps(stamped(content)))
    with pytest.raises(Rejected, match="exponent"):
        check(path, sae=sae, model=case.model)


MODELS: list[dict[str, Any]] = [
    {"model_type": "mamba"},
    {"model_type": ["llama"]},
    {"rms_norm_eps": 0.0},
    {"rms_norm_eps": -1.0},
    {"rms_norm_eps": "1e-5"},
    {"rms_norm_eps": None},
    {"num_hidden_layers": 2},
    {"num_hidden_layers": 0},
    {"num_hidden_layers": True},
    {"num_hidden_layers": "1"},
    {"tie_word_embeddings": "false"},
    {"tie_word_embeddings": True},  # but another unembedding is stored
    {"quantization_config": {"bits": 4}},
    {"auto_map": {"AutoModel": "x"}},
]


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_models_whose_algebra_is_in_doubt(changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "llama", tied=False)
    load_head(model)
    edit(model / "config.json", **changes)
    with pytest.raises(Rejected):
        load_head(model)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_family_s_default_decides_which_matrix_is_the_unembedding(family: str, tmp_path: Path) -> None:
    """Without `tie_word_embeddings`, a Llama has its own unembedding and the others use the embedding."""
    model = tiny_model(tmp_path / "model", family)
    found = load_head(model).unembedding.digest()
    config = json.loads((model / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (model / "config.json").write_text(json.dumps(config))
    assert load_head(model).unembedding.digest() == found
    stored = load_file(model / "model.safetensors")
    name = {"gpt2": "transformer.wte.weight", "llama": "lm_head.weight", "gemma2": "model.embed_tokens.weight"}[family]
    assert load_head(model).unembedding.float64().tolist() == stored[name].astype(float).tolist()


@pytest.mark.parametrize(
    "tensors",
    [
        {"lm_head.bias": np.zeros(20, np.float32)},
        {"norm.weight": np.ones(8, np.float32)},
        {"model.layers.1.x": np.zeros(1, np.float32)},
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_tensors_that_could_be_read_in_two_ways(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "llama")
    save_file({**load_file(model / "model.safetensors"), **tensors}, model / "model.safetensors")
    with pytest.raises(Rejected):
        load_head(model)


@pytest.mark.parametrize(
    "index",
    [
        *([], {}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": ["x"]}}),
        *({"weight_map": {"a": "../secret.safetensors"}}, {"weight_map": {"a": "/etc/passwd"}}),
        *({"weight_map": {"a": ".."}}, {"weight_map": {"a": "a\0b"}}, {"weight_map": {"a": "b" * 5000}}),
        {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}},
    ],
    ids=lambda index: str(index)[:40],
)
def test_hostile_indices(index: Any, case: Case, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "llama")
    (model / "model.safetensors").rename(model / "one.safetensors")
    (model / "two.safetensors").write_bytes((model / "one.safetensors").read_bytes())
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    path = tmp_path / "good.cert"
    path.write_text(json.dumps(case.content))
    with pytest.raises(Rejected):
        check(path, sae=case.sae, model=model)


# --- changed weights ------------------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("which", ["sae", "model"])
def test_one_changed_bit_of_any_tensor_is_noticed(which: str, case_of: Cases, tmp_path: Path) -> None:
    original = case_of(NAME)
    sae, model = (tmp_path / "sae", tmp_path / "model")
    for source, target in ((original.sae, sae), (original.model, model)):
        target.mkdir()
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    case = Case("copy", original.content, sae, model)
    path = sae / "sae_weights.safetensors" if which == "sae" else model / "model.safetensors"
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    case.check(case.content, tmp_path)
    for name, place in header.items():
        if name != "__metadata__":
            offset = 8 + length + place["data_offsets"][0]
            flip(path, offset)
            forget_weights()
            with pytest.raises(Rejected, match=r"weights are|NaN"):
                case.check(case.content, tmp_path)
            flip(path, offset)
    forget_weights()
    case.check(case.content, tmp_path)


@pytest.mark.parametrize(
    ("which", "changes"),
    [
        ("model", {"rms_norm_eps": 0.010000000000000002}),
        ("model", {"hidden_act": "gelu"}),
        ("sae", {"apply_b_dec_to_input": False}),
        ("sae", {"architecture": "standard"}),
        ("sae", {"normalize_activations": "constant_norm_rescale"}),
    ],
    ids=str,
)
def test_changed_settings_are_noticed(which: str, changes: dict[str, Any], case_of: Cases, tmp_path: Path) -> None:
    original = case_of(NAME)
    copied = tmp_path / which
    copied.mkdir()
    for file in (original.sae if which == "sae" else original.model).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    edit(copied / ("cfg.json" if which == "sae" else "config.json"), **changes)
    path = tmp_path / "a.cert"
    path.write_text(json.dumps(original.content))
    with pytest.raises(Rejected):
        check(path, **{"sae": original.sae, "model": original.model, which: copied})


# --- the program ----------------------------------------------------------------------------------------------------

BLOCKER = """
import sys, resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scipy", "transformers", "safetensors", "click", "rich", "sympy"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
from sae_verify.checker.__main__ import main
sys.exit(main())
"""


def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"},
        check=False,
    )


def test_the_program_needs_numpy_alone_and_says_4_for_a_rejection(case: Case, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.cert", tmp_path / "bad\n\x1b[2J.cert"
    good.write_text(json.dumps(case.content))
    places = ("--sae", case.sae, "--model", case.model)
    done = program(good, *places)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted: refuted" in done.stdout
    content = copy.deepcopy(case.content)
    content["weights"]["sae"]["path"] = "\ud800\x1b[2J"
    bad.write_text(json.dumps(stamped(content)))
    done = program(bad, good, *places)
    assert (done.returncode, done.stderr) == (0, "")
    done = program(bad, good)
    assert (done.returncode, done.stderr) == (4, "")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_the_worst_files_within_the_limits_take_bounded_time_and_memory(case: Case, tmp_path: Path) -> None:
    files = []
    for i, data in enumerate((b"[" + b"[]," * 10_000_000 + b"[]]", b"[" + b"{}," * 10_000_000 + b"{}]", b"1" * 2**24)):
        files.append(tmp_path / f"{i}.cert")
        files[-1].write_bytes(data)
    done = program(*files, "--sae", case.sae, "--model", case.model)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.count("rejected") == 3
