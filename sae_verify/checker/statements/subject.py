"""What statements speak of, and what an accepted one says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arithmetic import Array, Ball
from ..errors import Rejected
from ..reader import Reader
from ..sae import Sae


@dataclass(frozen=True, eq=False)
class Subject:
    """The weights, decoded exactly, and the residuals that steps refer to.

    Attributes:
        sae: decoded weights; W_enc (d, m), W_dec (m, d), float64.
        points: residuals, (n, d) float64.
        directory: of the file, for factors stored beside it.
    """

    sae: Sae
    points: Array
    directory: Path

    @property
    def d(self) -> int:
        """Width of the residual stream."""
        return self.sae.W_enc.shape[0]

    @property
    def m(self) -> int:
        """Number of features."""
        return self.sae.W_enc.shape[1]

    def point(self, reader: Reader, key: str = "point") -> Ball:
        """The residual that a step names by its index, exactly, (d,)."""
        index = reader.integer(key)
        if index >= len(self.points):
            raise reader.fail(key, f"must be an index into the file's {len(self.points)} points")
        return Ball.exact(self.points[index])

    def vector(self, reader: Reader, key: str) -> Array:
        """A vector of the residual stream that a step gives, (d,)."""
        value = reader.numbers(key)
        if value.shape != (self.d,):
            raise reader.fail(key, f"must be {self.d} numbers")
        return value

    def rows(self, reader: Reader, key: str = "rows") -> Array:
        """Rows that a step names: `{matrix: decoder | encoder, features: list | null for all}`, (n, d), as stored.

        Row j is W_dec[j] for the decoder and column j of W_enc for the encoder.
        """
        named = Reader(reader.raw(key), key, ("matrix", "features"))
        matrix = self.sae.W_dec if named.text("matrix", ("decoder", "encoder")) == "decoder" else self.sae.W_enc.T
        if named.raw("features") is None:
            return matrix
        return matrix[self.features(named)]

    def features(self, reader: Reader, key: str = "features") -> np.ndarray:
        """Feature indices that a step gives, (n,), none repeated."""
        chosen = np.array(reader.features(key), dtype=np.intp)
        if chosen.size and chosen.max() >= self.m:
            raise reader.fail(key, f"must be features below {self.m}")
        return chosen


@dataclass(frozen=True)
class Statement:
    """An accepted step.

    Attributes:
        kind, theorem: of the step.
        text: what is proved, in one line; numbers in full, since rounding them for print might claim more.
        values: its numbers, JSON-ready.
    """

    kind: str
    theorem: str
    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """How one kind of step is checked.

    Attributes:
        theorem: its slug in theory/.
        keys: of the step, besides `kind` and `theorem`.
        prove: from the subject and the step to (text, values); raises `Rejected` when the statement is not proved.
    """

    theorem: str
    keys: tuple[str, ...]
    prove: Callable[[Subject, Reader], tuple[str, dict[str, Any]]]


def need(good: Any, reason: str) -> None:
    """Reject unless a comparison certainly holds; NaN is a rejection."""
    if not bool(good):
        raise Rejected(reason)
