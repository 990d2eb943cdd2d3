"""A code that reaches a vector up to a residual.

Theorem: cone-membership (a). The code is exactly admissible as it stands; only the residual is bounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import Ball, combine, norm, total
from ..reader import Reader
from .cone import read_codes, read_target
from .subject import Kind, Subject, need


def _prove(subject: Subject, step: Reader) -> tuple[str, dict[str, Any]]:
    codes, x = read_codes(subject, step), read_target(subject, step)
    features, f = subject.features(step), step.numbers("values")
    residual = step.number("residual")
    if len(features) != len(f):
        raise step.fail("values", "must be one a feature")
    place = np.full(subject.m, -1)
    place[codes.names] = np.arange(len(codes.names))
    at = place[features]
    need((at >= 0).all(), "the code uses a feature that is not among the rows")
    need((f >= 0).all() and (f <= codes.upper[at]).all(), "an entry of the code is negative or above its bound")
    positive = int((f > 0).sum())
    need(codes.active is None or positive <= codes.active, f"{positive} features are active")
    if codes.total is not None and positive:
        need(total(Ball.exact(f)).high <= codes.total, "the sum of the code is not proven to be within its bound")
    rest = norm(x - combine(Ball.exact(f), Ball.exact(codes.rows[at])))
    need(rest.high <= residual, f"the residual is only proven to be at most {float(rest.high):.9g}")
    text = f"a code with {positive} active features ({codes}) comes within {residual!r} of the vector"
    return text, {"residual": residual, "active": positive}


KIND = Kind(
    theorem="cone-membership",
    keys=("rows", "point", "vector", "upper", "total", "active", "features", "values", "residual"),
    prove=_prove,
)
