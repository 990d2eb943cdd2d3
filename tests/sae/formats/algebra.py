"""The published algebra of each source, restated in plain numpy and float64 from the tensors as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Result(NamedTuple):
    """Code (n, d_sae) and output (n, d_out)."""

    code: Array
    output: Array


Reference = Callable[[Array], Result]


def relu(a: Array) -> Array:
    return np.maximum(a, 0.0)


def jump(a: Array, threshold: Array | float) -> Array:
    return np.where(a > threshold, relu(a), 0.0)


def top(score: Array, k: int) -> NDArray[np.bool_]:
    """The k largest of each row, which has no two equal values."""
    return score >= np.partition(score, -k, axis=1)[:, -k, None]


def topk(a: Array, k: int) -> Array:
    return np.where(top(a, k), relu(a), 0.0)


def abstopk(a: Array, k: int) -> Array:
    return np.where(top(np.abs(a), k), a, 0.0)


def groupmax(a: Array, k: int) -> Array:
    groups = a.reshape(len(a), k, -1)
    best = groups.argmax(axis=2, keepdims=True)
    code = np.zeros_like(groups)
    np.put_along_axis(code, best, relu(np.take_along_axis(groups, best, axis=2)), axis=2)
    return code.reshape(a.shape)


def layer_norm(x: Array) -> tuple[Array, Array, Array]:
    """Normalised, mean, deviation; unbiased, with 1e-5 beside the deviation on the way in alone."""
    mean = x.mean(axis=1, keepdims=True)
    deviation = x.std(axis=1, ddof=1, keepdims=True)
    return (x - mean) / (deviation + 1e-5), mean, deviation


def matching_pursuit(x: Array, decoder: Array, threshold: float, steps: int, *, stop_on_duplicate: bool) -> Array:
    code = np.zeros((len(x), len(decoder)))
    for row, z in zip(x, code, strict=True):
        left = row.copy()
        for _ in range(steps):
            best = int(np.argmax(relu(decoder @ left)))
            value = max(float(decoder[best] @ left), 0.0)
            before = z != 0
            z[best] += value
            left -= value * decoder[best]
            if stop_on_duplicate and ((z != 0) == before).all():
                break
            if threshold > 0 and np.linalg.norm(left) < threshold:
                break
    return code
