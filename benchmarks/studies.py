"""Measures all four recovery studies on the bundled models: process time and where it goes, and side by side.

Process time is that of one process with one thread; side by side, `sae-verify study all` has two processes. Its wall
time is compared with the floor of two cores, half of the process time of the four.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sae_verify.cli.study import SMALL as SMALL_SETTINGS
from sae_verify.cli.study import STUDIES
from sae_verify.study import bundled_plan, run_studies, run_study
from sae_verify.study.plan import Sweep

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {**SMALL_SETTINGS, "sweep": Sweep(), "also": ()}
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


def side_by_side() -> float:
    """Wall time of all four in two processes, in seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        run_studies({study: bundled_plan(study, EXAMPLES) for study in STUDIES}, Path(out), jobs=2)
    return time.monotonic() - start


def main() -> None:
    """Print every study's process time, whole and small, their sums, and the time of all side by side."""
    total = 0.0
    for name, changes in (("small", SMALL), ("whole", {})):
        total = 0.0
        for study in STUDIES:
            seconds, spent, summary = measure(study, **changes)
            total += seconds
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in spent.items())
            print(f"{name} {study}: {seconds:.1f} s ({stages}); {summary['studied']} prompts", flush=True)
        print(f"{name}, all four: {total:.1f} s of process time", flush=True)
    wall = side_by_side()
    print(f"two side by side: {wall:.1f} s, {wall / (total / 2):.2f} times the floor of two cores", flush=True)


if __name__ == "__main__":
    sys.exit(main())
