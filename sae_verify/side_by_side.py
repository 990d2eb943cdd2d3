"""Independent pieces of work side by side, each in a process with one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Manager
from queue import Queue
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config

from sae_verify.errors import InputError, SaeVerifyError

T = TypeVar("T")
Progress = Callable[[str, float], None]
"""A callback of a stage and the fraction done."""
Told = Callable[[str, str, float], None]
"""The same with the name of the work before them."""


def side_by_side(
    work: Mapping[str, Callable[[Progress], T]],
    jobs: int,
    told: Told = lambda name, stage, fraction: None,
) -> dict[str, T]:
    """Do all the work, `jobs` pieces at a time; one that cannot be done does not end the others.

    Args:
        work: by name, begun in this order: the longest first ends soonest. Each is called with a callback for its
            progress, in a process of its own, so it must be picklable (`functools.partial`, not a lambda).
        jobs: processes, at least 1.
        told: told a name, its stage and the fraction done.

    Returns:
        What each returned, by name.

    Raises:
        SaeVerifyError: of the first that raised one, after the others have ended.

    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}", rule="at least one process runs", remedy="give --jobs 1 or more")
    with _relayed(told) as queue, parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        ended: Any = Parallel()(delayed(_done)(name, piece, queue) for name, piece in work.items())
    for found in ended:
        if isinstance(found, SaeVerifyError):
            raise found
    return dict(zip(work, ended, strict=True))


def _done(name: str, piece: Callable[[Progress], T], queue: Queue[Any]) -> T | SaeVerifyError:
    """One piece of work; a typed error is returned, so that the others go on."""
    try:
        return piece(lambda stage, fraction: queue.put((name, stage, fraction)))
    except SaeVerifyError as error:
        queue.put((name, "cannot be done", 1.0))
        return error


@contextmanager
def _relayed(told: Told) -> Iterator[Queue[Any]]:
    """A queue that other processes can write to; what comes is told to the callback."""
    with Manager() as manager:
        queue: Queue[Any] = manager.Queue()

        def relay() -> None:
            for what in iter(queue.get, None):
                told(*what)

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        try:
            yield queue
        finally:
            queue.put(None)
            thread.join()
