"""What a torch file holds, by name, for telling formats apart; and which pickles are looked at in the first place."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sae_verify.errors import FileFormatError
from sae_verify.sae.formats.tensors import read_torch

TORCH = (".pt", ".pth")
"""Read with `weights_only=True` alone."""
OTHER_PICKLES = (".bin", ".pkl", ".pickle", ".ckpt")
"""Never opened."""


def torch_names(path: Path) -> frozenset[str]:
    """Names in a `.pt` or `.pth` file, empty for anything else; its tensors are mapped, not read.

    Raises:
        UnsafeFileError: the pickle asks for anything but tensors and plain containers.

    """
    if path.suffix not in TORCH or not path.is_file():
        return frozenset()
    status = path.stat()
    return _names(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _names(path: Path, changed: int, size: int) -> frozenset[str]:
    del changed, size  # part of the key: a file that changes is read again
    try:
        return frozenset(read_torch(path))
    except FileFormatError as error:
        if type(error) is FileFormatError:
            return frozenset()  # the reader that is asked for it says what is wrong
        raise
