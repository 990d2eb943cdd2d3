"""Weight files, read by the checker itself: safetensors by its published layout, npz without pickles, JSON strictly.

A tensor's digest is the SHA-256 of its stored dtype, shape and bytes, so it does not depend on the container.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Array
from .errors import Rejected

MAX_JSON = 16 * 2**20
"""Bytes a configuration or a safetensors header may have; parsed, JSON can be thirty times as large."""
MAX_UNPACKED = 50
"""How many times its size an npz file may unpack to, beyond the first 256 MiB; weights compress by less than two."""
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "<u1",
    "BOOL": "|b1",
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A stored tensor: its dtype's name, shape and raw little-endian bytes (a view of the mapped file)."""

    dtype: str
    shape: tuple[int, ...]
    raw: np.ndarray

    def float64(self, rows: Any = ...) -> Array:
        """The exact values, of some rows if asked."""
        if self.dtype not in ("F64", "F32", "F16", "BF16"):
            raise Rejected(f"a weight is stored as {self.dtype}, not as a float")
        values = np.asarray(self.raw.view(_NUMPY[self.dtype]).reshape(self.shape)[rows])
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        result = values.astype(np.float64)
        if not np.isfinite(result).all():
            raise Rejected("a weight is NaN or infinite")
        return result

    def digest(self) -> str:
        """SHA-256 over dtype, shape and bytes."""
        head = f"{self.dtype}{list(self.shape)}".encode()
        result = hashlib.sha256(head + b"\0")
        result.update(np.ascontiguousarray(self.raw).data)
        return result.hexdigest()


def strict_json(text: str | bytes, what: str) -> Any:
    """JSON without NaN, infinities or repeated keys; anything else is a rejection."""

    def constant(name: str) -> Any:
        raise Rejected(f"{what}: {name} is not a number")

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise Rejected(f"{what}: {text} is out of range")
        return value

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise Rejected(f"{what}: an object repeats a key")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{what}: not valid JSON ({error})") from None


def regular(path: Path) -> Path:
    """The path of a regular file; a pipe or a device could be read for ever."""
    try:
        good = path.is_file()
    except OSError:
        good = False
    if not good:
        raise Rejected(f"{path.name[:80]}: there is no such file")
    return path


def json_file(path: Path) -> Any:
    """A configuration file's content, strictly."""
    with regular(path).open("rb") as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise Rejected(f"{path.name}: more than the {MAX_JSON} bytes a configuration may have")
    return strict_json(data, path.name)


def safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file, mapped, not copied; together they must fill it without holes or overlaps."""
    regular(path)
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise Rejected(f"{path.name}: cannot be read ({error})") from None
    if data.size < 8:
        raise Rejected(f"{path.name}: truncated, {data.size} bytes")
    length = int(data[:8].view("<u8")[0])
    if length > min(MAX_JSON, data.size - 8):
        raise Rejected(f"{path.name}: header of {length} bytes in a file of {data.size}")
    header = strict_json(bytes(data[8 : 8 + length]), path.name)
    if not isinstance(header, dict):
        raise Rejected(f"{path.name}: the header is no object")
    body = data[8 + length :]
    tensors, places = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            size = np.dtype(_NUMPY[dtype]).itemsize * math.prod(shape)
        except (KeyError, TypeError, ValueError):
            raise Rejected(f"{path.name}: tensor {name!r} has an unusable header entry") from None
        integers = all(type(v) is int and v >= 0 for v in (*shape, start, stop))
        if not integers or stop - start != size or stop > body.size:
            raise Rejected(f"{path.name}: tensor {name!r} does not fit its file")
        tensors[name] = Tensor(dtype, shape, body[start:stop])
        places.append((start, stop))
    # Overlapping tensors would let a small file stand for a huge one; the published format forbids them.
    places.sort()
    ends = [0, *(stop for _, stop in places)]
    if [start for start, _ in places] != ends[:-1] or ends[-1] != body.size:
        raise Rejected(f"{path.name}: the tensors do not fill the file exactly once")
    return tensors


def npz(path: Path) -> dict[str, Tensor]:
    """All arrays of an npz file; pickled members are refused."""
    names = {np.dtype(v): k for k, v in _NUMPY.items() if k != "BF16"}
    try:
        with zipfile.ZipFile(regular(path)) as packed:
            unpacked, members = sum(m.file_size for m in packed.infolist()), packed.namelist()
        if unpacked > 2**28 and unpacked > MAX_UNPACKED * path.stat().st_size:
            raise Rejected(f"{path.name}: unpacks to {unpacked} bytes")
        if len(set(members)) != len(members):
            raise Rejected(f"{path.name}: repeats a member")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name], order="C") for name in archive.files}
    except Rejected:
        raise
    except Exception as error:  # zip, zlib and npy readers raise many kinds on hostile bytes
        raise Rejected(f"{path.name}: cannot be read ({type(error).__name__}: {error})") from None
    tensors = {}
    for name, array in arrays.items():
        if array.dtype not in names:
            raise Rejected(f"{path.name}: array {name!r} has dtype {array.dtype}")
        raw = array.reshape(-1).view(np.uint8) if array.size else np.zeros(0, np.uint8)
        tensors[name] = Tensor(names[array.dtype], array.shape, raw)
    return tensors


def digest_tensors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """SHA-256 over the sorted (name, tensor digest) pairs and the settings that the algebra depends on."""
    content = {"tensors": {name: tensors[name].digest() for name in sorted(tensors)}, "settings": dict(settings)}
    return digest_json(content)


def digest_json(content: Any) -> str:
    """SHA-256 of the canonical JSON form: sorted keys, no spaces, shortest exact floats."""
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    except RecursionError:
        raise Rejected("nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()


def shards(directory: Path) -> Iterator[Path]:
    """The safetensors files of a Hugging Face model directory."""
    single = directory / "model.safetensors"
    if single.is_file():
        yield single
        return
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        raise Rejected(f"{directory}: neither model.safetensors nor its index is there")
    content = json_file(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise Rejected(f"{index.name}: there is no map from tensors to files")
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise Rejected(f"{index.name}: {name!r} is no file name")
        yield directory / name
