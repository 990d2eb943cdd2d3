"""Several studies side by side, each in a process and a directory of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Manager
from pathlib import Path
from queue import Queue
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config

from sae_verify.errors import InputError, SaeVerifyError
from sae_verify.study.plan import Plan
from sae_verify.study.run import run_study

Told = Callable[[str, str, float], None]
"""A callback of a study's name, its stage and the fraction done."""


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
    if jobs < 1:
        raise InputError(f"jobs is {jobs}", rule="at least one process runs", remedy="give --jobs 1 or more")
    with _relayed(progress) as queue, parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        ended: Any = Parallel()(delayed(_run)(name, plan, out / name, queue) for name, plan in plans.items())
    for summary in ended:
        if isinstance(summary, SaeVerifyError):
            raise summary
    return dict(zip(plans, ended, strict=True))


def _run(name: str, plan: Plan, out: Path, queue: Queue[Any]) -> dict[str, Any] | SaeVerifyError:
    """One study, in a process of its own; a typed error is returned, so that the others go on."""
    torch.set_num_threads(1)
    try:
        return run_study(plan, out, lambda stage, fraction: queue.put((name, stage, fraction)))
    except SaeVerifyError as error:
        queue.put((name, "cannot be run", 1.0))
        return error


@contextmanager
def _relayed(progress: Told) -> Iterator[Queue[Any]]:
    """A queue that other processes can write to; what comes is told to the callback."""
    with Manager() as manager:
        queue: Queue[Any] = manager.Queue()

        def relay() -> None:
            for told in iter(queue.get, None):
                progress(*told)

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        try:
            yield queue
        finally:
            queue.put(None)
            thread.join()
