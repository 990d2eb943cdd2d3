"""Writing statements about one SAE in the checker's format; see theory/statement_format.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sae_verify.certificates.weights import locate_sae
from sae_verify.certificates.write import relative, write_certificate
from sae_verify.checker.files import digest_json
from sae_verify.checker.statements.check import FORMAT, SEMANTICS, VERSION
from sae_verify.geometry.held_cell import Array
from sae_verify.sae import SAE
from sae_verify.version import __version__


def statements(sae: SAE, steps: Sequence[dict[str, Any]], path: Path, points: Array | None = None) -> dict[str, Any]:
    """The statement file as JSON data, stamped.

    Args:
        sae: loaded from disk: a statement speaks of stored weights.
        steps: evidence, as the geometry's functions give it.
        path: where it will be written; the SAE's path is recorded relative to it.
        points: (n, d) residuals that steps refer to.

    Raises:
        InputError: the SAE was built in memory.
    """
    weights = locate_sae(sae)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "tool": __version__,
        "semantics": SEMANTICS,
        "sae": {
            "path": relative(weights.path, path.parent),
            "sha256": weights.digest,
            "input_scale": weights.input_scale,
        },
        "points": [] if points is None else np.asarray(points, dtype=np.float64).tolist(),
        "steps": list(steps),
    }
    return {**content, "sha256": digest_json(content)}


def write_statements(sae: SAE, steps: Sequence[dict[str, Any]], path: Path, points: Array | None = None) -> Path:
    """Write a statement file; either the whole file is there or none. Returns its path; errors as `statements`."""
    write_certificate(statements(sae, steps, path, points), path)
    return path
