"""Evidence in the checker's format: the problem, the weights' digests, the bounds and the witnesses of one prompt.

The format belongs to the checker (theory/certificate_format.md); digests are computed by its own readers from the files
on disk, so that what is certified is what a user has, not what happens to be in memory.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_verify.bounds import Bound
from sae_verify.certificates.multipliers import sparse_multipliers
from sae_verify.certificates.question import question
from sae_verify.certificates.weights import Weights
from sae_verify.checker.files import digest_json
from sae_verify.checker.format import FORMAT, SEMANTICS, VERSION
from sae_verify.checker.tail.proof import write_node
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.instance import Instance
from sae_verify.problem import Problem
from sae_verify.version import __version__


@dataclass(frozen=True, eq=False)
class Witness:
    """A perturbation, (positions d,), with what its replay on the real model gave."""

    delta: Array
    replay: float
    dtype: str


def certificate(
    problem: Problem,
    instance: Instance,
    weights: Weights,
    bounds: Sequence[Bound],
    witnesses: Sequence[Witness],
    directory: Path,
) -> dict[str, Any]:
    """The certificate as JSON data, stamped; paths are recorded relative to `directory`."""
    asked = question(problem, instance)
    x = instance.x.tolist()
    # Nothing of the earlier positions matters when no block follows and they are not perturbed.
    context = instance.context.tolist() if instance.blocks_after or instance.earlier else []
    identity = {
        "problem": asked,
        "x": x,
        "context": context,
        "sae": weights.sae_digest,
        "input_scale": weights.input_scale,
        "model": weights.model_digest,
    }
    content = {
        "format": FORMAT,
        "version": VERSION,
        "tool": __version__,
        "semantics": SEMANTICS,
        "weights": {
            "sae": {
                "path": relative(weights.sae_path, directory),
                "sha256": weights.sae_digest,
                "input_scale": weights.input_scale,
            },
            "model": {"path": relative(weights.model_path, directory), "sha256": weights.model_digest},
        },
        "problem": asked,
        "x": x,
        "context": context,
        "bounds": [_bound(bound, instance.outer) for bound in bounds],
        "witnesses": [{"delta": w.delta.tolist(), "replay": w.replay, "dtype": w.dtype} for w in witnesses],
        "digest": digest_json(identity),
    }
    return {**content, "sha256": digest_json(content)}


def relative(path: Path, directory: Path) -> str:
    """The path as recorded in a file of this directory."""
    return Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix()


def _bound(bound: Bound, cell: HeldCell) -> dict[str, Any]:
    return {
        "method": bound.method,
        "theorem": bound.theorem,
        "radius": bound.radius,
        "value": bound.value,
        "against": bound.against,
        "multipliers": {} if bound.multipliers is None else sparse_multipliers(bound.multipliers, cell),
        "tangent": None if bound.tangent is None else bound.tangent.tolist(),
        "secant": bound.secant,
        "mean": bound.mean,
        "regions": None if bound.regions is None else write_node(bound.regions),
        **({"weight": bound.weight} if bound.weight else {}),
    }


def write_certificate(content: dict[str, Any], path: Path) -> None:
    """Write a certificate; either the whole file is there or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(content, file, allow_nan=False)
        Path(temporary).chmod(0o644)  # meant to be handed on
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
