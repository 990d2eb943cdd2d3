"""Two runs in one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from sae_verify.errors import InputError
from sae_verify.study import run_study
from sae_verify.study.lock import NAME, only_run
from tests.study.conftest import small_plan

HOLD = """
import sys
from pathlib import Path
from sae_verify.study.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the directory until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_and_told_who_runs(tmp_path, other):
    with pytest.raises(InputError, match=f"process {other.pid} on "), only_run(tmp_path):
        pass
    assert json.loads((tmp_path / NAME).read_text())["process"] == other.pid  # the holder's file is left alone
    plan = small_plan("indirect-object", threats=("preactivations",), limit=1)
    with pytest.raises(InputError, match="another run writes to"):
        run_study(plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]


def test_a_lock_left_by_a_killed_run_does_not_block(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / NAME).exists()
    with only_run(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_or_fails_lets_go(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), only_run(tmp_path / "new"):
            raise ZeroDivisionError
    assert not list((tmp_path / "new").iterdir())


def test_the_place_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), only_run(tmp_path / "file"):
        pass
