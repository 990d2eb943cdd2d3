"""Claim: the checker proved in Coq decides a linear worst case at d = 768 with 2,000 columns in about a second.

Beside it, in the same run, the Python checker on the same step. Wall time: the verified one is a program of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.linear_worst_case import checker_sae
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.check import prove
from sae_verify.checker.verified import BINARY, check_verified
from sae_verify.testing import synthetic


def main() -> None:
    """Print both times for 200 and 2,000 columns."""
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


def _seconds(work: Callable[[], Any]) -> float:
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
