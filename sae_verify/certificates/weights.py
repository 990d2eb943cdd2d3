"""Where a problem's weights lie, and their digests, computed by the checker's own readers from the files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_verify.checker.model import load_head
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError
from sae_verify.problem import Problem
from sae_verify.sae import SAE
from sae_verify.sae.normalization import InputScale


@dataclass(frozen=True)
class StoredSAE:
    """Where an SAE lies and what the checker's reader makes of it."""

    path: Path
    digest: str
    input_scale: float | None


def locate_sae(sae: SAE) -> StoredSAE:
    """Digest the files of an SAE. Cost: one pass over their bytes.

    Raises:
        InputError: it was built in memory and has no files.
        checker.Rejected: the files are not in a format the checker reads.
    """
    if sae.source.path is None:
        raise _no_files("SAE")
    scale = sae.normalization.scale if isinstance(sae.normalization, InputScale) else None
    return StoredSAE(sae.source.path, load_weights(sae.source.path, scale).digest, scale)


def _no_files(what: str) -> InputError:
    return InputError(
        f"the {what} has no files on disk",
        rule="a certificate speaks of stored weights, which anyone can hash",
        remedy="save it (save_sae, save_pretrained) and load it from there",
    )


@dataclass(frozen=True)
class Weights:
    """Where the weights lie and what the checker's readers make of them."""

    sae_path: Path
    sae_digest: str
    input_scale: float | None
    model_path: Path
    model_digest: str


def locate_weights(problem: Problem) -> Weights:
    """Digest the files of a problem's SAE and model. Cost: one pass over their bytes.

    Raises:
        InputError: the SAE or the model was built in memory and has no files.
        checker.Rejected: the files are not in a format the checker reads.

    """
    model = problem.model.path
    if model is None:
        raise _no_files("model")
    if not problem.model.stored_exactly:
        raise InputError(
            f"the model runs in {problem.model.dtype}, which does not hold every stored weight exactly",
            rule="a certificate speaks of the stored weights",
            remedy="load it in the dtype of its files, or in float32",
        )
    sae = locate_sae(problem.sae)
    return Weights(sae.path, sae.digest, sae.input_scale, model, load_head(model).digest)
