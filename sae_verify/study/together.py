"""Several studies side by side, each in a process and a directory of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sae_verify.side_by_side import Told, side_by_side
from sae_verify.study.plan import Plan
from sae_verify.study.run import run_study


def run_studies(
    plans: Mapping[str, Plan], out: Path, jobs: int, progress: Told = lambda name, stage, fraction: None
) -> dict[str, dict[str, Any]]:
    """Run each study in `out/<name>`, `jobs` at a time with one thread each; what is finished there is kept.

    A study that cannot be run does not end the others.

    Args:
        plans: by name, begun in this order: the longest first ends soonest.
        out: directory.
        jobs: processes, at least 1.
        progress: told a study's name, its stage and the fraction done.

    Returns:
        The summaries by name.

    Raises:
        SaeVerifyError: of the first study that could not be run, after the others have ended.

    """
    return side_by_side({name: partial(run_study, plan, out / name) for name, plan in plans.items()}, jobs, progress)
