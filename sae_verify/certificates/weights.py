"""Where a problem's weights lie, and their digests, computed by the checker's own readers from the files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_verify.checker.model import load_head
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError
from sae_verify.problem import Problem
from sae_verify.sae.normalization import InputScale


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
    sae, model = problem.sae.source.path, problem.model.path
    if sae is None or model is None:
        raise InputError(
            f"the {'SAE' if sae is None else 'model'} has no files on disk",
            rule="a certificate speaks of stored weights, which anyone can hash",
            remedy="save it (save_sae, save_pretrained) and load it from there",
        )
    if not problem.model.stored_exactly:
        raise InputError(
            f"the model runs in {problem.model.dtype}, which does not hold every stored weight exactly",
            rule="a certificate speaks of the stored weights",
            remedy="load it in the dtype of its files, or in float32",
        )
    normalization = problem.sae.normalization
    scale = normalization.scale if isinstance(normalization, InputScale) else None
    return Weights(sae, load_weights(sae, scale).digest, scale, model, load_head(model).digest)
