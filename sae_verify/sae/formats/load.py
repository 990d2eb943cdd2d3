"""One entry for every format: find the files, tell the format, let its own reader do the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from sae_verify.sae.base import SAE
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.hub import locate
from sae_verify.sae.formats.registry import format_of
from sae_verify.sae.formats.stored import Stored
from sae_verify.sae.self_test import self_test
from sae_verify.sae.transcoder import Transcoder


def load_sae(
    path_or_release: str | Path,
    sae_id: str | None = None,
    *,
    input_scale: float | None = None,
    format: str | Format | None = None,  # noqa: A002 (what it is called everywhere)
    reference: Tensor | tuple[Tensor, Tensor] | None = None,
) -> SAE:
    """Load an SAE from disk, or from a Hugging Face repository.

    Args:
        path_or_release: a directory or file in one of the formats of `sae_verify.sae.support()`; or, if no such path
            exists, a repository id `owner/name`, with or without a folder after it, or (with SAELens installed) the
            name of a SAELens release.
        sae_id: folder or file inside that directory or repository; for a release its id there.
        input_scale: constant s with N(x) = s x. Needed for SAELens `expected_average_only_in`, where 1.0 says that
            the scale is folded into the weights already.
        format: name of the format, where files do not tell; or a `Format` of your own.
        reference: activations (n, d_in) of the SAE's hook point, alone or with the reconstruction that the release's
            own code gives for them: what is loaded is then tested (see `self_test`).

    Returns:
        The SAE with its weights as stored, widened exactly to float32 (float64 if one tensor is). Its `source.path`
        is the directory or file that was read, and `source.notes` says which conventions were taken.

    Raises:
        FileFormatError: nothing there, or not in a known format; UnsafeFileError: a pickle that wants to execute code,
            or a link out of the directory.
        MetadataError: a setting that the algebra depends on is missing, or does not fit the reference.
        UnsupportedError: a known format or architecture that is not supported.
        WeightsError, ShapeError: the tensors are not those of one SAE.
        InputError: the repository is not available, or an argument is wrong.

    """
    sae = find_stored(path_or_release, sae_id, input_scale, format).sae()
    if reference is not None:
        activations, reconstruction = reference if isinstance(reference, tuple) else (reference, None)
        self_test(sae, activations, reconstruction)
    return sae


def load_transcoder(
    path_or_release: str | Path,
    sae_id: str | None = None,
    *,
    format: str | Format | None = None,  # noqa: A002 (what it is called everywhere)
) -> Transcoder:
    """Load a transcoder; arguments and errors as `load_sae`."""
    return find_stored(path_or_release, sae_id, None, format).coder()


def read_stored(path: Path, input_scale: float | None = None, name: str | Format | None = None) -> Stored:
    """Read what a local path holds, as stored: nothing is widened, and mapped files are not read."""
    known, place = format_of(path, name)
    return known.read(place, input_scale)


def find_stored(
    path_or_release: str | Path, sae_id: str | None, input_scale: float | None, name: str | Format | None
) -> Stored:
    """Find and read, as stored; arguments and errors as `load_sae`."""
    place, notes = locate(path_or_release, sae_id)
    stored = read_stored(place, input_scale, name)
    if not notes:
        return stored
    source = dataclasses.replace(stored.source, notes=(*stored.source.notes, *notes))
    return dataclasses.replace(stored, source=source)
