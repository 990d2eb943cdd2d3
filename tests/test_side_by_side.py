"""Work side by side: what comes back, what is told, and one piece that cannot be done does not end the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sae_verify.errors import InputError
from sae_verify.side_by_side import side_by_side


def square(value: int, folder: Path, progress: Callable[[str, float], None]) -> tuple[int, int, str | None]:
    progress("begun", 0.0)
    if value < 0:
        raise InputError(f"{value} is negative", rule="values are positive", remedy="give another")
    (folder / str(value)).write_text("done")
    progress("squared", 1.0)
    return value**2, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def test_results_by_name_from_other_processes_with_one_thread(tmp_path: Path) -> None:
    told: dict[str, list[tuple[str, float]]] = {"a": [], "b": []}
    work = {"a": partial(square, 3, tmp_path), "b": partial(square, 4, tmp_path)}
    found = side_by_side(work, 2, lambda name, stage, fraction: told[name].append((stage, fraction)))
    assert list(found) == ["a", "b"]
    assert [value for value, _, _ in found.values()] == [9, 16]
    assert all(pid != os.getpid() and threads == "1" for _, pid, threads in found.values())
    assert all(what == [("begun", 0.0), ("squared", 1.0)] for what in told.values())


def test_one_that_cannot_be_done_does_not_end_the_others(tmp_path: Path) -> None:
    told: list[tuple[str, str, float]] = []
    work = {"bad": partial(square, -1, tmp_path), "good": partial(square, 2, tmp_path)}
    with pytest.raises(InputError, match="-1 is negative") as raised:
        side_by_side(work, 1, lambda *what: told.append(what))
    assert raised.value.remedy == "give another"
    assert (tmp_path / "2").exists()
    assert ("bad", "cannot be done", 1.0) in told


def test_at_least_one_process() -> None:
    with pytest.raises(InputError, match="jobs is 0"):
        side_by_side({}, 0)


def test_no_work() -> None:
    assert side_by_side({}, 2) == {}
