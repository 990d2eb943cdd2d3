"""Reading tensors and JSON from files nobody vouches for: typed errors, no code execution, exact widening."""

from __future__ import annotations

import json
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
from sae_verify.sae.base import check_finite

MAX_JSON_BYTES = 16 * 2**20
"""A config is a few kilobytes; anything larger is not one."""

MAX_UNCHECKED_MEMBER_BYTES = 2**28
"""Archive members above this size must not be compressed better than `MAX_COMPRESSION`."""

MAX_COMPRESSION = 50
"""Real weights compress by less than two; a larger ratio on a large member is a decompression bomb."""

STORED_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileFormatError: missing, too large, not UTF-8, not strict JSON (NaN, repeated keys), or not an object.

    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FileFormatError(f"{path} has {path.stat().st_size} bytes", rule="a config is below 16 MiB")
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} cannot be read as JSON: {error}",
            rule="it must be a UTF-8 JSON object",
            remedy="download or export it again",
        ) from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} holds a JSON {type(value).__name__}", rule="it must be a JSON object")
    return value


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read every tensor as stored, and the file's own metadata.

    Raises:
        FileFormatError: missing, truncated, with a broken or oversized header, or with an unexpected dtype.
        WeightsError: a value is NaN or infinite.

    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors: {error}",
            rule="header and data must be complete and agree",
            remedy="download or export it again",
        ) from error
    return checked(tensors, path), metadata


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read every array of an .npz archive as stored.

    Raises:
        FileFormatError: missing, truncated, a decompression bomb, or with an unexpected dtype.
        UnsafeFileError: a member is a pickle.
        WeightsError: a value is NaN or infinite.

    """
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
    return checked({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, path)


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict from a torch file, with `weights_only=True` and nothing else.

    Raises:
        UnsafeFileError: the pickle asks for anything but tensors and plain containers.
        FileFormatError: missing, truncated, or not a flat dict of tensors.
        WeightsError: a value is NaN or infinite.

    """
    try:
        value = cast(object, torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        first_line = str(error).splitlines()[0] if str(error) else "no reason given"
        raise UnsafeFileError(
            f"{path} was not loaded: {first_line}",
            rule="a pickle may hold tensors and plain containers only; any other instruction can execute code",
            remedy="export the state dict as safetensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} cannot be read as a torch file: {error}",
            rule="it must be a complete torch.save of a state dict",
            remedy="export the state dict as safetensors",
        ) from error
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        raise FileFormatError(
            f"{path} holds a {type(value).__name__} that is not a flat dict of tensors",
            rule="a torch file must be a state dict",
            remedy="export the state dict as safetensors",
        )
    return checked(cast("dict[str, Tensor]", value), path)


def checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors after checking dtype and finiteness, in sorted order."""
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in STORED_DTYPES or tensor.is_sparse:
            raise FileFormatError(
                f"{name} in {path} is {'sparse ' if tensor.is_sparse else ''}{tensor.dtype}",
                rule="weights are dense float64, float32, float16 or bfloat16 tensors",
                remedy="export them in one of these (quantised weights are not supported)",
            )
        check_finite(f"{name} in {path}", tensor)
    return dict(sorted(tensors.items()))


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Widen all tensors exactly to one dtype: float64 if the encoder is float64, else float32.

    A float64 tensor beside float32 ones (a threshold, say) is kept exactly: everything then becomes float64.
    """
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors.values()) else torch.float32
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def take(tensors: dict[str, Tensor], names: tuple[str, ...], path: Path, what: str) -> dict[str, Tensor]:
    """Return exactly the named tensors, widened.

    Raises:
        FileFormatError: a tensor is missing, or there is one that the algebra would not use.

    """
    missing = [name for name in names if name not in tensors]
    extra = [name for name in tensors if name not in names]
    if missing or extra:
        raise FileFormatError(
            f"{path} has tensors {sorted(tensors)}; missing {missing}, unexpected {extra}",
            rule=f"{what} has exactly {list(names)}",
            remedy="check that config and weights belong together",
        )
    return widened(tensors)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("an object repeats a key")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


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
