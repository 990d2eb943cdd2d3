"""Measures process time of all four recovery studies on the bundled models, whole and small, and where it goes.

Process time of one process with one thread. A study uses one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sae_verify.study import bundled_plan, run_study
from sae_verify.study.plan import BUNDLED, Sweep

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {"limit": 1, "steps": 8, "budgets": (0.1, 0.8), "suffix": 1, "soft": 0, "sweep": Sweep(), "also": ()}
"""What `sae-verify study --small` changes."""


def measure(study: str, **changes: object) -> tuple[float, dict[str, float], dict]:
    """Process time of a study in seconds, the same by stage, and the study's summary."""
    spent: dict[str, float] = defaultdict(float)
    now = ["loading", time.process_time()]

    def told(stage: str, _fraction: float) -> None:
        spent[str(now[0])] += time.process_time() - float(now[1])
        now[:] = stage.split()[0].rstrip(","), time.process_time()  # "attacks", "prompt", "sweep", "tables"

    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        summary = run_study(bundled_plan(study, EXAMPLES, **changes), Path(out), told)  # type: ignore[arg-type]
    told("end", 1.0)
    return time.process_time() - start, dict(spent), summary


def main() -> None:
    """Print every study's process time, whole and small, and their sums."""
    for name, changes in (("small", SMALL), ("whole", {})):
        total = 0.0
        for study in BUNDLED:
            seconds, spent, summary = measure(study, **changes)
            total += seconds
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in spent.items())
            print(f"{name} {study}: {seconds:.1f} s ({stages}); {summary['studied']} prompts", flush=True)
        print(f"{name}, all four: {total:.1f} s of process time", flush=True)


if __name__ == "__main__":
    sys.exit(main())
