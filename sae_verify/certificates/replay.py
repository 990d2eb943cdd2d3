"""A certificate replayed: the residual recomputed by the real model, and each witness run through it again.

This is what the checker, which has no torch, has to take from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_verify.attacks import Replay, replay
from sae_verify.checker import Rejected
from sae_verify.checker.format import Certificate, read_certificate
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.model import load_model
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem, TokenAgainstAll
from sae_verify.sae import load_sae

DRIFT = 2.0**-14
"""Largest relative difference between the recorded and the recomputed residual: float32 runs of another batch shape,
thread count or machine differ by their rounding (seen: below 2e-6); a different prompt or model differs by far more."""


@dataclass(frozen=True)
class Replayed:
    """What the real model gave now.

    Attributes:
        residual: relative difference ||x - x_recorded|| / ||x||.
        witnesses: a replay for each witness of the certificate.

    """

    residual: float
    witnesses: tuple[Replay, ...]

    def __str__(self) -> str:
        values = ", ".join(f"{w.value:.6g}" for w in self.witnesses) or "none"
        return f"residual recomputed to {self.residual:.1e}; witnesses replayed: {values}"


def problem_of(certificate: Certificate, sae: Path, model: Path) -> Problem:
    """The certificate's question with weights loaded from disk."""
    question = certificate.problem
    clamp, threat, readout = question.clamp, question.threat, question.readout
    return Problem(
        model=load_model(model),
        sae=load_sae(sae, input_scale=certificate.input_scale),
        prompts=[list(question.tokens)],
        clamp=Clamp(clamp.kind, clamp.features, clamp.values, clamp.positions),  # type: ignore[arg-type]
        threat=ErrorBall(threat.radius, threat.relative_to, threat.held, threat.at, threat.features),  # type: ignore[arg-type]
        readout=TokenAgainstAll(readout.positive)
        if readout.negative is None
        else LogitDifference(readout.positive, readout.negative),
        claim=AtMost(question.at_most),
        hook=question.hook,
        title="replay",
    )


def replay_certificate(path: Path, *, sae: Path | None = None, model: Path | None = None) -> Replayed:
    """Recompute what a certificate takes from the real model.

    Raises:
        Rejected: the residual is another one, or a witness that broke the claim no longer does.

    """
    certificate = read_certificate(path)
    problem = problem_of(
        certificate, sae or path.parent / certificate.sae_path, model or path.parent / certificate.model_path
    )
    batch: Batch = prepare(problem)
    x = batch.instances[0].x
    difference = float(np.linalg.norm(x - certificate.x) / np.linalg.norm(x))
    if not difference <= DRIFT:
        raise Rejected(
            f"the residual is not what the model computes for this prompt: {difference:.3g} relative difference"
        )
    witnesses = []
    for step in certificate.witnesses:
        (found,) = replay(batch, step.delta[None])
        if not found.held:
            raise Rejected(f"a witness moves what is held by {found.drift:.3g}; rounding explains {found.allowed:.3g}")
        if step.replay > certificate.problem.at_most >= found.value:
            raise Rejected(f"a witness reaches {found.value:.6g} when replayed, not {step.replay:.6g}")
        witnesses.append(found)
    return Replayed(difference, tuple(witnesses))
