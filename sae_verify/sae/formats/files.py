"""Files nobody vouches for: that they lie where they seem to lie, and strict JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import FileFormatError, UnsafeFileError

MAX_JSON_BYTES = 16 * 2**20
"""A config is a few kilobytes; anything larger is not one."""

STORED_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def regular(path: Path, root: Path | None = None) -> Path:
    """Return the path of a regular file that does not lead out of `root` (by default its directory).

    The hub's cache is the one exception: its snapshots are links to the blobs of the same repository.

    Raises:
        FileFormatError: there is no such file.
        UnsafeFileError: a link leads elsewhere.

    """
    root = (path.parent if root is None else root).resolve()
    if not path.is_file():
        raise FileFormatError(f"{path} does not exist or is no file", remedy="check the path; download it again")
    real = path.resolve()
    allowed = [root, *_blobs(root)]
    if not any(real.is_relative_to(place) for place in allowed):
        raise UnsafeFileError(
            f"{path} is a link to {real}",
            rule="the files of an SAE lie in its own directory",
            remedy="copy the file there, or give the directory it really lies in",
        )
    return path


def _blobs(root: Path) -> list[Path]:
    """Where the hub's cache keeps the contents of this snapshot's files."""
    for place in (root, *root.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return [place.parent.parent / "blobs"]
    return []


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileFormatError: missing, too large, not UTF-8, not strict JSON (NaN, repeated keys), or not an object.
        UnsafeFileError: a link that leads out of the directory.

    """
    regular(path, root)
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


def check_dtypes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise FileFormatError for a tensor that is no dense float, or larger than what is stored of it."""
    for name, tensor in tensors.items():
        if tensor.is_sparse or tensor.dtype not in STORED_DTYPES:
            raise FileFormatError(
                f"{name} in {path} is {'sparse ' if tensor.is_sparse else ''}{tensor.dtype}",
                rule="weights are dense float64, float32, float16 or bfloat16 tensors",
                remedy="export them in one of these (quantised weights are not supported)",
            )
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise FileFormatError(
                f"{name} in {path} has shape {tuple(tensor.shape)} and {tensor.untyped_storage().nbytes()} bytes",
                rule="every value of a weight is stored",
                remedy="export it with tensor.contiguous()",
            )


def take(tensors: Mapping[str, Tensor], names: tuple[str, ...], path: Path, what: str) -> dict[str, Tensor]:
    """Return exactly the named tensors, as stored.

    Raises:
        FileFormatError: a tensor is missing or no float, or there is one that the algebra would not use.

    """
    missing = [name for name in names if name not in tensors]
    extra = sorted(name for name in tensors if name not in names)
    if missing or extra:
        raise FileFormatError(
            f"{path} has tensors {sorted(tensors)}; missing {missing}, unexpected {extra}",
            rule=f"{what} has exactly {list(names)}",
            remedy="check that config and weights belong together",
        )
    check_dtypes(tensors, path)
    return {name: tensors[name] for name in names}


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], path: Path, what: str) -> dict[str, Tensor]:
    """Return tensors under our names, from a map of ours to the file's; errors as `take`.

    A name of the file that ends in `.T` stands for the transpose of that matrix, a view.
    """
    stored = {ours: theirs.removesuffix(".T") for ours, theirs in names.items()}
    found = take(tensors, tuple(stored.values()), path, what)
    result = {}
    for ours, theirs in names.items():
        tensor = found[stored[ours]]
        if theirs.endswith(".T") and tensor.ndim != 2:
            raise FileFormatError(f"{stored[ours]} in {path} has shape {tuple(tensor.shape)}", rule="it is a matrix")
        result[ours] = tensor.T if theirs.endswith(".T") else tensor
    return result


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("an object repeats a key")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
