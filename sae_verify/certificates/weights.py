"""Where a problem's weights lie, and their digests, computed by the checker's own readers from the files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_verify.checker.model import load_head
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.problem import Problem
from sae_verify.sae import SAE, GatedSAE, JumpReLUSAE, ReLUSAE, TopKSAE
from sae_verify.sae.formats.registry import FORMATS, format_of
from sae_verify.sae.normalization import InputScale

CERTIFIED = (ReLUSAE, JumpReLUSAE, TopKSAE, GatedSAE)
"""Architectures whose held sets the checker computes."""


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
        UnsupportedError: the checker does not know its architecture, or does not read files in its format.
        checker.Rejected: the files are not what the checker reads in this format.
    """
    if sae.source.path is None:
        raise _no_files("SAE")
    if type(sae) not in CERTIFIED:
        raise UnsupportedError(
            f"a certificate about an SAE of type {type(sae).__name__}",
            rule=f"the checker computes {', '.join(kind.__name__ for kind in CERTIFIED)}",
            remedy="use an SAE of one of these",
        )
    checked = [known.name for known in FORMATS if known.checked]
    if sae.source.format not in checked or format_of(sae.source.path)[0].name != sae.source.format:
        raise UnsupportedError(
            f"a certificate about {sae.source.path}, whose format is {sae.source.format!r}",
            rule=f"the checker reads weights itself, in the formats {', '.join(checked)}, and tells them by names",
            remedy="write it with save_sae(sae, directory), which is exact, and load that",
        )
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
        UnsupportedError: as `locate_sae`.
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
