"""Reading single keys of config.json, strictly: a value of another kind is a rejection that names the key."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ..errors import Rejected


def refuse(key: str, value: object, rule: str) -> NoReturn:
    """A rejection: the key, its value and what it must be."""
    raise Rejected(f"config.json has {key} = {str(value)[:80]}, and it must be {rule}")


def only(config: dict[str, Any], key: str, *allowed: object) -> None:
    """Refuse a key that is there with another value; an absent key counts as null where that is allowed."""
    if key in config and not any(type(config[key]) is type(v) and config[key] == v for v in allowed):
        refuse(key, config[key], " or ".join(map(repr, allowed)))


def count(config: dict[str, Any], key: str) -> int:
    """A positive whole number."""
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= 2**30:
        refuse(key, value, "a positive whole number")
    return value


def flag(config: dict[str, Any], key: str, default: bool) -> bool:
    """True or false; `default` where the key is absent."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        refuse(key, value, "true or false")
    return value


def positive(config: dict[str, Any], key: str) -> float:
    """A positive number, exactly."""
    value = config.get(key)
    # The float of an integer beyond 2^53 may be another number.
    whole = type(value) is int and 0 < value <= 2**53
    if not whole and not (isinstance(value, float) and math.isfinite(value) and value > 0):
        refuse(key, value, "a positive number")
    assert value is not None  # by the above
    return float(value)
