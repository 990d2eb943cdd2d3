"""Claim: the checker proved in Coq decides a linear worst case at d = 768 with 2,000 columns in about a second.

So it does a quadratic bound of that order. Beside it, in the same run, the Python checker on the same step. Wall time:
the verified one is a program of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.linear_worst_case import checker_sae
from sae_verify.certificates.quadratic import quadratic_evidence
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.check import prove
from sae_verify.checker.statements.quadratic import Quadratic, dual_value
from sae_verify.checker.verified import BINARY, check_verified, check_verified_quadratic
from sae_verify.testing import synthetic


def main() -> None:
    """Print both times for 200 and 2,000 columns, and for quadratic bounds of three orders."""
    if not BINARY.is_file():
        print(f"not built: {BINARY}; make verified-checker builds it")
        return
    made = synthetic(768, 4096, 1)
    subject = Subject(checker_sae(made), made.x, BINARY.parent)
    rng = np.random.default_rng(0)
    for count in (200, 2000):
        features = rng.permutation(4096)[:count].tolist()
        step: dict[str, Any] = {
            "kind": "linear-worst-case",
            "theorem": "linear-dual",
            "point": 0,
            "held": "preactivations",
            "features": features,
            "ball": {"norm": "l2", "radius": 1.0, "factor": None},
            "direction": made.g[0].tolist(),
            "upper": 1e9,
            "multipliers": {
                "x": {
                    "equal": {"features": features, "values": rng.normal(size=count).tolist()},
                    "upper": {"features": [], "values": []},
                    "decoder": {"features": [], "values": []},
                }
            },
            "lower": None,
            "delta": None,
        }
        verified = _seconds(lambda: check_verified(subject, step))  # noqa: B023
        python = _seconds(lambda: prove(subject, step, "step"))  # noqa: B023
        print(
            f"{count} columns: verified {verified:.2f} s (writing the integers included), "
            f"{verified / python:.0f} times the Python checker's {python * 1e3:.1f} ms"
        )

    for order in (64, 256, 768):
        _quadratic(order, rng)


def _quadratic(order: int, rng: np.random.Generator) -> None:
    """Print the times of one quadratic bound over a ball and 64 half-spaces."""
    a = rng.normal(size=(order, order))
    question = Quadratic(
        matrix=(a + a.T) / np.sqrt(8 * order),
        linear=rng.normal(size=order),
        constant=0.0,
        radius=1.0,
        normals=rng.normal(size=(64, order)) / np.sqrt(order),
        levels=0.1 * rng.exponential(size=64),
        equal=np.zeros(64, dtype=bool),
    )
    start = time.perf_counter()
    evidence = quadratic_evidence(question)
    searched = time.perf_counter() - start
    upper = dual_value(question, evidence).rounded_up()
    verified = _seconds(lambda: check_verified_quadratic(question, evidence, upper))
    python = _seconds(lambda: dual_value(question, evidence))
    print(
        f"quadratic bound of order {order}: verified {verified:.2f} s (writing the integers included), "
        f"{verified / python:.1f} times the Python checker's {python * 1e3:.0f} ms; the search took {searched:.2f} s"
    )


def _seconds(work: Callable[[], Any]) -> float:
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
