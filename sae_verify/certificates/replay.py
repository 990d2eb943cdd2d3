"""A certificate replayed: the residuals recomputed by the real model, and each witness run through it again.

This is what the checker, which has no torch, has to take from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_verify.attacks import Replay, replay
from sae_verify.attacks.joint import clamps_at
from sae_verify.checker import Rejected
from sae_verify.checker.format import Certificate, read_certificate
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, Instance, prepare
from sae_verify.model import load_model
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem, TokenAgainstAll
from sae_verify.problem_file import load_layers
from sae_verify.sae import load_sae

DRIFT = 2.0**-14
"""Largest relative difference between a recorded and the recomputed residual, at any position: float32 runs of another
batch shape, thread count or machine differ by their rounding (seen: below 2e-6); another prompt or model by more."""


@dataclass(frozen=True)
class Replayed:
    """What the real model gave now.

    Attributes:
        residual: relative difference ||x - x_recorded|| / ||x||; the largest one, where earlier positions are recorded.
        positions: how many residuals were recomputed.
        witnesses: a replay for each witness of the certificate.

    """

    residual: float
    positions: int
    witnesses: tuple[Replay, ...]

    def __str__(self) -> str:
        values = ", ".join(f"{w.value:.6g}" for w in self.witnesses) or "none"
        what = "residual" if self.positions == 1 else f"residuals at {self.positions} positions"
        return f"{what} recomputed to {self.residual:.1e}; witnesses replayed: {values}"


def problem_of(certificate: Certificate, sae: Path, model: Path) -> Problem:
    """The certificate's question with weights loaded from disk."""
    question = certificate.problem
    clamp, threat, readout = question.clamp, question.threat, question.readout
    return Problem(
        model=load_model(model),
        sae=load_sae(sae, input_scale=certificate.input_scale),
        prompts=[list(question.tokens)],
        clamp=Clamp(clamp.kind, clamp.features, clamp.values, clamp.positions),  # type: ignore[arg-type]
        threat=ErrorBall(
            threat.radius,
            threat.relative_to,  # type: ignore[arg-type]
            threat.held,  # type: ignore[arg-type]
            threat.at,  # type: ignore[arg-type]
            threat.features,
            drift=threat.drift,
            positions=threat.positions,
        ),
        readout=TokenAgainstAll(readout.positive)
        if readout.negative is None
        else LogitDifference(readout.positive, readout.negative),
        claim=AtMost(question.at_most),
        hook=question.hook,
        title="replay",
    )


def replay_certificate(
    path: Path, *, sae: Path | None = None, model: Path | None = None, beside: Path | None = None
) -> Replayed:
    """Recompute what a certificate takes from the real model.

    Args:
        path: the certificate.
        sae: its files, where they are not those that the certificate names.
        model: likewise.
        beside: layers.toml with clamps that act at other layers all the while.

    Raises:
        InputError and its kinds: a file is missing or does not fit.
        Rejected: a residual is another one, or a witness that broke the claim no longer does.

    """
    certificate = read_certificate(path)
    problem = problem_of(
        certificate, sae or path.parent / certificate.sae_path, model or path.parent / certificate.model_path
    )
    with clamps_at(load_layers(beside, problem) if beside else ()):
        return _replayed(certificate, prepare(problem))


def _replayed(certificate: Certificate, batch: Batch) -> Replayed:
    recorded, computed = _residuals(certificate, batch.instances[0])
    differences = np.linalg.norm(computed - recorded, axis=1) / np.linalg.norm(computed, axis=1)
    if not bool((differences <= DRIFT).all()):
        worst = int(differences.argmax()) + len(certificate.problem.tokens) - len(differences)
        raise Rejected(
            f"the residual at position {worst} is not what the model computes for this prompt: "
            f"{differences.max():.3g} relative difference (clamps at other layers, if there were any, go with --beside)"
        )
    witnesses = []
    for step in certificate.witnesses:
        (found,) = replay(batch, step.delta[None])
        if not found.held:
            raise Rejected(f"a witness moves what is held by {found.drift:.3g}; rounding explains {found.allowed:.3g}")
        if step.replay > certificate.problem.at_most >= found.value:
            raise Rejected(f"a witness reaches {found.value:.6g} when replayed, not {step.replay:.6g}")
        witnesses.append(found)
    return Replayed(float(differences.max()), len(differences), tuple(witnesses))


def _residuals(certificate: Certificate, instance: Instance) -> tuple[Array, Array]:
    """What was recorded and what the model gives: (1, d), or (T, d) with the earlier positions first."""
    x, context = certificate.x[None], certificate.context
    if not len(context):
        return x, instance.x[None]
    if context.shape != instance.context.shape:
        raise Rejected(f"residuals of {len(context)} earlier positions are recorded, of {len(instance.context)}")
    return np.concatenate([context, x]), np.concatenate([instance.context, instance.x[None]])
