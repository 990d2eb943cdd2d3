"""One run at a time in an output directory. The operating system drops the lock of a process that ends, however."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sae_verify.errors import InputError

NAME = "running.json"
"""Who runs, while the lock is held: for people, and for the message to a second run."""


@contextlib.contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold the directory, which is made if missing, until the end of the context.

    The lock is on the directory itself, so that one left by a killed run does not exist; its `running.json` is stale
    then, and is overwritten.

    Raises:
        InputError: another run holds it, or it cannot be written to.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}", rule="the output is a directory") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run writes to {out}: {_who(out)}",
                rule="one run at a time in a directory",
                remedy="wait for it, end it, or give another directory with -o",
            ) from None
        except OSError as error:  # a file system without locks
            raise InputError(
                f"{out} cannot be locked: {error}", rule="a study locks its directory", remedy="use a local directory"
            ) from error
        with _named(out):
            yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _named(out: Path) -> Iterator[None]:
    """`running.json` while the context lasts; only the holder of the lock writes it."""
    path, temporary = out / NAME, out / f".{NAME}.{os.getpid()}"
    content = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{out} cannot be written: {error}", rule="the output is a directory") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _who(out: Path) -> str:
    try:
        other = json.loads((out / NAME).read_text(encoding="utf-8"))
        return f"process {other['process']} on {other['host']}, since {other['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said who it is yet"
