"""Typed access to parsed JSON: every key must be asked for, and no other may be there."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import Array
from .errors import Rejected


class Reader:
    """Typed access to one JSON object; every key must be asked for, and no other may be there."""

    def __init__(self, value: Any, where: str, keys: tuple[str, ...]) -> None:
        if not isinstance(value, dict) or set(value) != set(keys):
            found = str(sorted(value))[:200] if isinstance(value, dict) else type(value).__name__
            raise Rejected(f"{where}: expected the keys {sorted(keys)}, found {found}")
        self._value, self._where = value, where

    def raw(self, key: str) -> Any:
        """The value as parsed."""
        return self._value[key]

    def fail(self, key: str, rule: str) -> Rejected:
        """The rejection of a value, with the rule it breaks."""
        return Rejected(f"{self._where}.{key}: {rule}, found {str(self._value[key])[:80]!r}")

    def text(self, key: str, allowed: tuple[str, ...] | None = None) -> str:
        """A string, one of `allowed` if given."""
        value = self._value[key]
        if not isinstance(value, str) or (allowed is not None and value not in allowed):
            raise self.fail(key, f"must be one of {', '.join(allowed)}" if allowed else "must be a string")
        return value

    def number(self, key: str) -> float:
        """A finite float64."""
        value = self._value[key]
        if not _is_float(value):
            raise self.fail(key, "must be a float64 up to 1e300")
        return float(value)

    def integer(self, key: str) -> int:
        """An integer from 0."""
        value = self._value[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
            raise self.fail(key, "must be an integer from 0")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of integers from 0."""
        value = self._value[key]
        good = isinstance(value, list) and all(
            isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**40 for v in value
        )
        if not good:
            raise self.fail(key, "must be a list of integers from 0")
        return tuple(value)

    def features(self, key: str) -> tuple[int, ...]:
        """The same, none repeated."""
        result = self.integers(key)
        if len(set(result)) != len(result):
            raise self.fail(key, "repeats a feature")
        return result

    def numbers(self, key: str) -> Array:
        """A list of finite float64, (n,)."""
        value = self._value[key]
        if not isinstance(value, list) or not all(map(_is_float, value)):
            raise self.fail(key, "must be a list of float64 up to 1e300")
        return np.array(value, dtype=np.float64)

    def matrix(self, key: str, width: int) -> Array:
        """A list of rows of `width` finite float64 each, (n, width)."""
        value = self._value[key]
        good = isinstance(value, list) and all(
            isinstance(row, list) and len(row) == width and all(map(_is_float, row)) for row in value
        )
        if not good:
            raise self.fail(key, f"must be a list of rows of {width} float64 up to 1e300")
        return np.array(value, dtype=np.float64).reshape(len(value), width)


def _is_float(value: Any) -> bool:
    """Whether a JSON number is exactly a float64 of a size that is taken; an integer beyond 2^53 may not be."""
    return type(value) in (int, float) and abs(value) <= 1e300 and float(value) == value
