"""The command group: typed errors become one line and an exit code; progress goes to stderr."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sae_verify.errors import SaeVerifyError
from sae_verify.version import __version__

EXIT = {"certified": 0, "refuted": 1, "undecided": 3, "unsupported": 5}


class _Group(click.Group):
    """Turns the package's typed errors into one line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SaeVerifyError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # must not look like a verdict
            traceback.print_exc()
            click.echo("This is a defect of sae-verify; please report it with the problem file.", err=True)
            sys.exit(70)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sae-verify")
def main() -> None:
    """Can a clamp on SAE features be bypassed through the error term? Certified, refuted or undecided."""


def cores() -> int:
    """How many processes this one may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def bar(title: str) -> Iterator[Any]:
    """A progress bar on stderr; yields a callback (stage, fraction)."""
    with bars([title]) as update:
        yield lambda stage, fraction: update(title, stage, fraction)


@contextmanager
def bars(titles: Sequence[str]) -> Iterator[Any]:
    """Progress bars on stderr, one for each title; yields a callback (title, stage, fraction)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {title: progress.add_task(title, total=1.0, stage="loading") for title in titles}

        def update(title: str, stage: str, fraction: float) -> None:
            progress.update(tasks[title], completed=fraction, stage=stage)

        yield update
