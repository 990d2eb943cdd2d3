"""What the files of an SAE hold, without loading it: shape, dtype, architecture, conventions, basics of the weights.

Files are mapped and read in blocks, so that peak memory stays near the file's own size whatever its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_verify.sae.base import check_finite
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.load import find_stored

BLOCK = 2**20
"""Values that are widened at a time."""


@dataclass(frozen=True)
class Description:
    """Facts about an SAE's files, from its config and one pass over its weights.

    Attributes:
        format: by name.
        path: what was read.
        architecture: by SAELens name; `transcoder` says whether it is one.
        d_in, d_sae, d_out: its sizes.
        dtypes: of each tensor, as stored.
        stored_bytes: of all tensors.
        settings: k, and whatever else the architecture has.
        subtract_b_dec: whether b_dec is subtracted from the input.
        normalization: by class name.
        hook_name, model_name: as the format spells them, where it says.
        decoder_row_norms: least and largest.
        encoder_column_norms: the same.
        notes: conventions that were taken.

    """

    format: str
    path: Path
    architecture: str
    transcoder: bool
    d_in: int
    d_sae: int
    d_out: int
    dtypes: dict[str, str]
    stored_bytes: int
    settings: dict[str, Any]
    subtract_b_dec: bool
    normalization: str
    hook_name: str | None
    model_name: str | None
    decoder_row_norms: tuple[float, float]
    encoder_column_norms: tuple[float, float]
    notes: tuple[str, ...]


def describe(
    path_or_release: str | Path,
    sae_id: str | None = None,
    *,
    input_scale: float | None = None,
    format: str | Format | None = None,  # noqa: A002 (what it is called everywhere)
) -> Description:
    """Describe the SAE or transcoder at a path; arguments and errors as `load_sae`.

    Cost: one pass over the file, and memory for a block beside it.
    """
    stored = find_stored(path_or_release, sae_id, input_scale, format)
    source = stored.source
    assert source.path is not None
    for name, tensor in stored.tensors.items():
        check_finite(f"{name} in {source.path}", tensor)
    encoder, decoder = stored.tensors["W_enc"], stored.tensors["W_dec"]
    return Description(
        format=source.format,
        path=source.path,
        architecture=source.architecture or stored.architecture,
        transcoder=stored.transcoder,
        d_in=stored.d_in,
        d_sae=stored.d_sae,
        d_out=decoder.shape[1],
        dtypes={name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.tensors.items()},
        stored_bytes=sum(t.numel() * t.element_size() for t in stored.tensors.values()),
        settings=dict(stored.settings),
        subtract_b_dec=stored.subtract_b_dec,
        normalization=type(stored.normalization).__name__,
        hook_name=source.hook_name,
        model_name=source.model_name,
        decoder_row_norms=_norms(decoder),
        encoder_column_norms=_norms(encoder.T),
        notes=source.notes,
    )


def _norms(rows: Tensor) -> tuple[float, float]:
    """Least and largest norm of the rows of a matrix, in whichever order its memory lies."""
    squares = torch.zeros(rows.shape[0])
    if rows.stride(1) <= rows.stride(0):
        step = max(1, BLOCK // rows.shape[1])
        for start in range(0, rows.shape[0], step):
            block = rows[start : start + step].float()
            squares[start : start + step] = torch.linalg.vector_norm(block, dim=1).square()
    else:
        step = max(1, BLOCK // rows.shape[0])
        for start in range(0, rows.shape[1], step):
            squares += torch.linalg.vector_norm(rows[:, start : start + step].float(), dim=1).square()
    return float(squares.min().sqrt()), float(squares.max().sqrt())
