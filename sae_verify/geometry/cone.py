"""What a dictionary reaches with non-negative features, with certificates for both answers.

    minimise ||x - f @ W||   subject to   f >= 0,  f <= u,  sum(f) <= total,  f zero outside chosen features

The code found proves that x is reached up to its residual; the residual's direction proves a distance that no
admissible code undercuts (theorem: cone-membership). Where the cone contains a line and nothing else bounds the codes,
the distance may be proven only for codes up to some huge sum: see `cone_separation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sae_verify.geometry.codes import (
    Member,
    Question,
    Separation,
    ask,
    distance_step,
    member,
    member_step,
)
from sae_verify.geometry.cone_separation import separate
from sae_verify.geometry.cone_solver import nearest
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.rows import Features, Matrix, Source


@dataclass(frozen=True, eq=False)
class Reach:
    """The answer about one vector: its best code (primal) and, unless it is reached, a separation (dual)."""

    question: Question
    member: Member
    separation: Separation | None

    @property
    def residual(self) -> float:
        """Primal value: some admissible code comes this near."""
        return self.member.residual

    @property
    def distance(self) -> float:
        """Dual value: no admissible code comes nearer.

        0 if nothing is proven for all of them; the separation may then still speak of those with a lower sum.
        """
        return self.separation.distance if self.separation and self.separation.total == self.question.total else 0.0

    @property
    def gap(self) -> float:
        """Residual minus distance."""
        return self.residual - self.distance

    def steps(self, point: int | None = None) -> list[dict[str, Any]]:
        """Evidence for the checker: kind cone-member, and cone-distance where there is a separation."""
        steps = [member_step(self.question, self.member, point)]
        return steps if self.separation is None else [*steps, distance_step(self.question, self.separation, point)]


def reach(
    source: Source,
    x: Array,
    features: Features = None,
    *,
    matrix: Matrix = "decoder",
    upper: float | Array | None = None,
    total: float | None = None,
) -> Reach:
    """The admissible code whose f @ W is nearest to x, with a lower bound for all of them.

    Args:
        source: an SAE (W is W_dec as stored, or W_enc's columns), or (m, d) rows.
        x: (d,) vector, finite.
        features: the support that f may use; None for all.
        matrix: which rows of an SAE.
        upper: bound of every entry of f, or one a row of W restricted to `features`; inf or None for none.
        total: bound of the sum of f; None for none.

    Raises:
        ShapeError, InputError, FeatureError: x, bounds, rows or features do not fit.

    """
    question = ask(source, x, features, matrix=matrix, upper=upper, total=total)
    return answer(question, question.upper, None if not total else np.full(len(question.names), 1.0 / total))


def answer(question: Question, upper: Array, cost: Array | None) -> Reach:
    """The nearest point under `upper` and cost . f <= 1, which may relax the question, and its proofs."""
    rows, x = question.rows, question.x
    nothing = question.total == 0 or not x.any() or not ((rows.length > 0) & (upper > 0)).any()
    if nothing:
        return Reach(question, member(question, np.zeros(0, np.intp), np.zeros(0)), separate(question, x))
    found = nearest(rows, x, upper, cost)
    return Reach(question, member(question, found.features, found.values), separate(question, found.direction))
