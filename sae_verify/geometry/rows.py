"""Which rows a question is about: rows of the decoder, columns of the encoder, or a plain matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sae_verify.errors import FeatureError, InputError, ShapeError, WeightsError
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.sae.base import SAE

Matrix = Literal["decoder", "encoder"]
Rows = NDArray[np.floating]
Source = SAE | Rows
"""An SAE, or (n, d) rows of float32 or float64."""
Features = Sequence[int] | Indices | None
"""Indices of rows, none repeated; None takes all of them."""

BLOCK = 1024
"""Rows that are widened to float64 at a time: large enough for matrix products, small beside the weights."""


def select(source: Source, features: Features = None, matrix: Matrix = "decoder") -> Rows:
    """The rows in question, (n, d), in the dtype they are stored in; a view unless features are given.

    Row j is W_dec[j] for the decoder and column j of W_enc for the encoder, as stored. `matrix` plays no part for
    plain rows.

    Raises:
        ShapeError, WeightsError, InputError: plain rows are no (n, d) matrix of finite float32 or float64.
        FeatureError: a feature is out of range, repeated, or no integer.

    """
    if isinstance(source, SAE):
        if matrix not in ("decoder", "encoder"):
            raise InputError(f"matrix is {matrix!r}", rule="it must be 'decoder' or 'encoder'")
        rows = source.W_dec.numpy() if matrix == "decoder" else source.W_enc.numpy().T
    else:
        rows = _plain(source)
    if features is None:
        return rows
    return rows[checked_features(features, len(rows))]


def _plain(rows: Any) -> Rows:
    if not isinstance(rows, np.ndarray) or rows.dtype not in (np.float32, np.float64):
        kind = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
        raise InputError(f"the rows are {kind}", rule="they must be a numpy array of float32 or float64")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ShapeError(f"the rows have shape {rows.shape}", rule="it must be (n, d) with d at least 1")
    if not all(np.isfinite(rows[s : s + BLOCK]).all() for s in range(0, len(rows), BLOCK)):
        raise WeightsError("some entries are NaN or infinite", rule="rows must be finite")
    return rows


def checked_features(features: Sequence[int] | Indices, count: int) -> Indices:
    """Indices below `count`, none repeated, (n,); raises FeatureError."""
    chosen = np.asarray(features)
    if chosen.size == 0:
        return np.zeros(0, dtype=np.intp)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise FeatureError(f"features of type {chosen.dtype}", rule="features are a list of integers")
    if chosen.min() < 0 or chosen.max() >= count:
        raise FeatureError(f"features from {chosen.min()} to {chosen.max()}", rule=f"they go from 0 to {count - 1}")
    if len(np.unique(chosen)) != len(chosen):
        raise FeatureError(f"{len(chosen)} features, {len(np.unique(chosen))} of them different", rule="none repeats")
    return chosen.astype(np.intp)


def active_features(sae: SAE, x: Array | torch.Tensor) -> Indices:
    """Features that are on at one residual x, (d,): indices, rising. Computed in the SAE's dtype."""
    at = torch.as_tensor(x)
    if at.ndim != 1:
        raise ShapeError(f"x has shape {tuple(at.shape)}", rule="it must be one residual, (d_in,)")
    return np.flatnonzero(sae.active(at.to(sae.dtype)).numpy())


def named(features: Features, matrix: Matrix) -> dict[str, Any]:
    """How a statement names the rows, see theory/statement_format.md."""
    return {"matrix": matrix, "features": None if features is None else [int(f) for f in features]}


def largest(rows: Rows) -> float:
    """The largest absolute entry, 0 for no rows; without a copy of the rows."""
    return max(float(rows.max()), -float(rows.min())) if rows.size else 0.0


def blocks(rows: Rows, scale: float = 1.0, size: int = BLOCK) -> Iterator[Array]:
    """The rows in float64, times a power of two, a few at a time: (<= size, d), row-major."""
    for start in range(0, len(rows), size):
        block = np.ascontiguousarray(rows[start : start + size], dtype=np.float64)
        yield block if scale == 1.0 else block * scale
