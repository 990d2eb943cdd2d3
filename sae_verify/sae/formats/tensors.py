"""Reading tensors as stored: safetensors (mapped, whole or in shards), .npz and .pt; no code is executed."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae_verify.errors import FileFormatError, UnsafeFileError
from sae_verify.sae.formats.files import read_json, regular

MAX_UNCHECKED_MEMBER_BYTES = 2**28
"""Archive members above this size must not be compressed better than `MAX_COMPRESSION`."""

MAX_COMPRESSION = 50
"""Real weights compress by less than two; a larger ratio on a large member is a decompression bomb."""


def has_safetensors(path: Path) -> bool:
    """Whether a safetensors file, or the index of its shards, is there."""
    return path.is_file() or _index(path).is_file()


def read_safetensors(path: Path, root: Path | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map every tensor as stored, and read the file's own metadata; from shards if there is an index of them.

    Raises:
        FileFormatError: missing, truncated, with a broken or oversized header, or shards that are not as indexed.
        UnsafeFileError: a link that leads out of the directory.

    """
    if path.is_file() or not _index(path).is_file():
        return _read_one(path, root)
    places = read_json(_index(path), root).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise FileFormatError(f"{_index(path)} has no weight_map", rule="it maps tensor names to file names")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise UnsafeFileError(f"{_index(path)} names the file {name!r}", rule="shards lie beside their index")
        shard, _ = _read_one(path.with_name(name), root)
        wanted = {key for key, place in places.items() if place == name}
        if set(shard) != wanted:
            raise FileFormatError(
                f"{path.with_name(name)} has tensors {sorted(shard)}",
                rule=f"the index says {sorted(wanted)}",
                remedy="download all shards again",
            )
        tensors |= shard
    return tensors, {}


def _index(path: Path) -> Path:
    return path.with_name(path.name + ".index.json")


def _read_one(path: Path, root: Path | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    regular(path, root)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors: {error}",
            rule="header and data must be complete and agree",
            remedy="download or export it again",
        ) from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read every array of an .npz archive as stored.

    Raises:
        FileFormatError: missing, truncated, a decompression bomb, or with an unexpected dtype.
        UnsafeFileError: a member is a pickle, or a link that leads out of the directory.

    """
    regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bombs(archive, path)
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: np.asarray(data[name]) for name in data.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UnsafeFileError(
                f"{path} has a pickled member: {error}",
                rule="pickles can execute code and are not loaded",
                remedy="export plain arrays",
            ) from error
        raise _not_npz(path, error) from error
    except (
        OSError,
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        RuntimeError,
        NotImplementedError,
        zlib.error,
        MemoryError,
        SyntaxError,
    ) as error:
        raise _not_npz(path, error) from error
    for name, array in arrays.items():
        if array.dtype not in (np.float64, np.float32, np.float16):
            raise FileFormatError(
                f"{name} in {path} is {array.dtype}",
                rule="weights are float64, float32 or float16 arrays",
                remedy="export them as float32",
            )
    return {name: torch.from_numpy(np.asarray(array, order="C")) for name, array in arrays.items()}


def read_torch(path: Path) -> dict[str, Any]:
    """Read the dict of a torch file, with `weights_only=True` and nothing else; its tensors are mapped.

    Raises:
        UnsafeFileError: the pickle asks for anything but tensors and plain containers.
        FileFormatError: missing, truncated, compressed, or not a dict with text keys.

    """
    regular(path)
    try:
        mapped = zipfile.is_zipfile(path)  # torch's own archives; older files are one pickle
        if mapped:
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise FileFormatError(f"{path} is compressed", rule="torch.save stores; this may be a bomb")
        value = cast(object, torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except pickle.UnpicklingError as error:
        first_line = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UnsafeFileError(
            f"{path} was not loaded: {first_line}",
            rule="a pickle may hold tensors and plain containers only; any other instruction can execute code",
            remedy="export the state dict as safetensors",
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        zipfile.BadZipFile,
    ) as error:
        raise FileFormatError(
            f"{path} cannot be read as a torch file: {error}",
            rule="it must be a complete torch.save of a state dict",
            remedy="export the state dict as safetensors",
        ) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise FileFormatError(
            f"{path} holds a {type(value).__name__} that is no state dict",
            rule="a torch file must be a dict with names as keys",
            remedy="export the state dict as safetensors",
        )
    return cast("dict[str, Any]", value)


def state_dict(path: Path) -> dict[str, Tensor]:
    """Read a torch file that must be a flat dict of tensors; errors as `read_torch`."""
    value = read_torch(path)
    others = sorted(name for name, tensor in value.items() if not isinstance(tensor, Tensor))
    if others:
        raise FileFormatError(
            f"{path} has {others} that are no tensors",
            rule="it must be a state dict, flat and of tensors alone",
            remedy="export the state dict as safetensors",
        )
    return value


def _refuse_bombs(archive: zipfile.ZipFile, path: Path) -> None:
    for member in archive.infolist():
        large = member.file_size > MAX_UNCHECKED_MEMBER_BYTES
        if large and member.file_size > MAX_COMPRESSION * max(member.compress_size, 1):
            raise FileFormatError(
                f"{member.filename} in {path} unpacks from {member.compress_size} to {member.file_size} bytes",
                rule=f"large members may not be compressed more than {MAX_COMPRESSION} times",
                remedy="save it uncompressed",
            )


def _not_npz(path: Path, error: BaseException) -> FileFormatError:
    return FileFormatError(
        f"{path} cannot be read as .npz: {error}",
        rule="it must be a complete zip archive of plain arrays",
        remedy="download or export it again",
    )
