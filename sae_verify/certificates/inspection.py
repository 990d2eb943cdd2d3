"""What `inspect` says, as statements that the checker proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_verify.certificates.cell_size import bounded_step, inner_radius_step, unbounded_step
from sae_verify.certificates.linear import Ball, linear_step, write_factor
from sae_verify.certificates.statements import write_statements
from sae_verify.certificates.weights import locate_sae
from sae_verify.checker.statements import Accepted, Subject, check_statements
from sae_verify.checker.weights import load_weights
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.inspect_tokens import CODE, TokenReport
from sae_verify.geometry.rank import rank_step
from sae_verify.geometry.spectral_gap import singular_values_step
from sae_verify.geometry.whole_cone import whole_cone
from sae_verify.sae.base import SAE


@dataclass(frozen=True)
class Certified:
    """A statement file that the checker accepted.

    Attributes:
        path: of the file.
        accepted: what it proves.
        missing: what could not be proved, and why.
    """

    path: Path
    accepted: Accepted
    missing: tuple[str, ...]


def certify_inspection(sae: SAE, tokens: Sequence[TokenReport], path: Path) -> Certified:
    """Write the evidence of an inspection and have the checker prove it.

    Cost: the proofs about whole matrices take a few d^3 and m d^2 operations in float64.

    Raises:
        InputError: the SAE was built in memory.
        checker.Rejected: the checker does not accept the file: a defect.
    """
    stored = locate_sae(sae)
    points = np.stack([token.x for token in tokens]) if tokens else np.zeros((0, sae.d_in))
    subject = Subject(load_weights(stored.path, stored.input_scale), points, path.parent)
    steps: list[dict[str, Any]] = []
    missing: list[str] = []
    for matrix in ("decoder", "encoder"):
        steps.append(rank_step(sae, matrix=matrix))
        try:
            steps.append(singular_values_step(sae, matrix=matrix))
        except UnsupportedError as reason:
            missing.append(f"{matrix} singular values: {reason}")
    steps += whole_cone(sae).steps()
    factor = tokens[0].shape.factor if tokens else None
    stored_factor = None if factor is None else write_factor(factor, path.with_name(f"{path.stem}.factor.npy"))
    for index, token in enumerate(tokens):
        ball = Ball(token.shape.norm, token.radius, stored_factor)
        steps.append(linear_step(subject, index, CODE, token.g, ball, token.cell, token.optimum))
        try:
            steps.append(inner_radius_step(subject, index, CODE, token.cell))
        except InputError as reason:
            missing.append(f"point {index}, inner radius: {reason}")
        try:
            if token.recession.verdict == "bounded":
                steps.append(bounded_step(subject, index, CODE, token.cell, token.recession))
            elif token.recession.verdict == "unbounded":
                steps.append(unbounded_step(subject, index, CODE, token.recession))
        except InputError as reason:
            missing.append(f"point {index}, bounded or not: {reason}")
    write_statements(sae, steps, path, points)
    return Certified(path, check_statements(path), tuple(missing))
