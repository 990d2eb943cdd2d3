"""Certified radii of probes: the checker accepts a linear worst case over the held cell (theorem: linear-dual)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from sae_verify.certificates.linear import Ball, linear_step
from sae_verify.certificates.statements import write_statements
from sae_verify.checker.arithmetic import Ball as Enclosure
from sae_verify.checker.arithmetic import dot
from sae_verify.checker.statements import Subject, check_statements
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import held_cell
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.least_norm import least_norm
from sae_verify.geometry.worst_case import worst_case
from sae_verify.study.certified import Radius, check_sandwich
from sae_verify.study.probe_rows import LARGEST, Question
from sae_verify.study.store import Row

SHORTER = 1 - 1e-7
"""Times the radius where the linear program meets the threshold: what is proved, so that rounding does not spoil it."""


def prove_radius(question: Question, batch: Batch, threat: str, out: Path, attacked: float | None) -> Row:
    """Prove score(h + delta) <= 0 for every admissible delta up to a radius, and have the checker accept it.

    x and h count as the float64 numbers that the run gave; the score at h is enclosed by the checker's arithmetic.

    Raises:
        SoundnessError: a recovery lies within the certified radius.

    """
    instance = batch.instances[0]
    plain = dot(Enclosure.exact(question.weight), Enclosure.exact(instance.h)) + Enclosure.exact(question.bias)
    level = -float(plain.high)
    threat_at = batch.problem.threat
    if not level > 0:
        return _row(Radius(None, "", trivial=False, why_not="the score at h is not provably below zero"))
    # A statement speaks of one point and calls it x, whether it is the residual before the clamp or after it.
    point = instance.x if threat_at.at == "x" else instance.h
    held = dataclasses.replace(threat_at, at="x")
    cell = held_cell(batch.sae, held, batch.problem.held_features, point, point, "outer")
    shortest = least_norm(cell, question.weight, level, LARGEST * instance.norm_h)
    radius = LARGEST * instance.norm_h if shortest is None else float(np.linalg.norm(shortest)) * SHORTER
    features = None
    if threat in ("preactivations", "defended"):
        features = tuple(batch.problem.held_features)
    asked = dataclasses.replace(threat_at, features=features)
    path = out / "certificates" / f"probe-{question.item.name}-{threat}.cert"
    subject = Subject(question.exact.weights, point[None], path.parent)
    found = worst_case(cell, question.weight, radius)
    try:
        step = linear_step(subject, 0, asked, question.weight, Ball("l2", radius), cell, found)
    except InputError as reason:
        return _row(Radius(None, "", trivial=False, why_not=str(reason)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_statements(batch.problem.sae, [step], path, point[None])
    upper = max(float(one.values["upper"]) for one in check_statements(path).statements)
    if upper > level:
        return _row(Radius(None, "", trivial=False, why_not=f"the bound {upper:.6g} exceeds the margin {level:.6g}"))
    proved = Radius(radius, threat, trivial=cell.trivial, why_not="")
    check_sandwich(threat, proved, attacked)
    return _row(proved)


def _row(radius: Radius) -> Row:
    return {
        "certified_radius": radius.value,
        "certified_by": radius.by,
        "certificate_trivial": radius.trivial,
        "why_not_certified": radius.why_not,
    }
