"""The stored tensors of one block, of which none may be left unread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..arithmetic import Array
from ..errors import Rejected
from ..model import ModelFiles

_UNUSED = re.compile(r"attn\.(masked_)?bias|self_attn\.rotary_emb\.inv_freq")
"""Tensors of older exports that are no weights: causal masks and frequency tables."""


class Layer:
    """The tensors of one block, by their names within it; every use is recorded."""

    def __init__(self, files: ModelFiles, number: int) -> None:
        self.files, self.number = files, number
        self.prefix = f"{'h' if files.config['model_type'] == 'gpt2' else 'layers'}.{number}."
        self.used: set[str] = set()

    def tensor(self, name: str, *shape: int | None) -> Array:
        """The exact values; None in `shape` stands for any size."""
        self.used.add(name)
        stored = self.files.needed(self.prefix + name)
        if len(stored.shape) != len(shape) or any(
            want is not None and have != want for have, want in zip(stored.shape, shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise Rejected(f"tensor {self.prefix}{name} has shape {stored.shape}, and ({wanted}) was expected")
        try:
            return np.ascontiguousarray(stored.float64())
        except Rejected as error:
            raise Rejected(f"tensor {self.prefix}{name}: {error}") from None

    def bias(self, name: str, size: int, present: bool) -> Array:
        """A bias, zeros where the architecture has none."""
        return self.tensor(name, size) if present else np.zeros(size)


@contextmanager
def whole(layer: Layer) -> Iterator[Layer]:
    """Refuse a block that holds more than was read."""
    yield layer
    pattern = re.compile(rf"(?:{re.escape(layer.files.family['prefix'])})?{re.escape(layer.prefix)}(.*)", re.DOTALL)
    names = {match[1] for name in layer.files.tensors if (match := pattern.fullmatch(name))}
    more = sorted(name for name in names - layer.used if not _UNUSED.fullmatch(name))
    if more:
        raise Rejected(f"block {layer.number} has tensors that are not modelled: {more[:5]}")
