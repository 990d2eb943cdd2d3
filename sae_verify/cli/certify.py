"""certify, attack and demo: the main job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sae_verify.cli.group import EXIT, bar, bars, cores, main


def _worst(names: Iterable[str]) -> int:
    """One exit code for many prompts: refuted before unsupported before undecided before certified."""
    found = set(names)
    return next((EXIT[name] for name in ("refuted", "unsupported", "undecided") if name in found), 0)


def _print(results: list[Any], title: str, *, as_json: bool) -> None:
    from sae_verify.report import table as report

    if as_json:
        for result in results:
            click.echo(json.dumps(report.as_json(result)))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(report.table(title, results, wide=console.width >= 130))


_Decided = tuple[str, list[Any]]

DEMO_EFFORT = 1
"""Of the demo: enough to show certified radii, and few minutes in all."""


def _certify(path: Path, out: Path | None, effort: int | None, seconds: float | None, jobs: int) -> _Decided:
    """What a problem asks, and the results of its prompts, which are shared out among so many processes."""
    name = f"{path.parent.name}/{path.stem}"
    if jobs == 1:
        with bar(name) as progress:
            return decide(path, out, effort, seconds, 0, 1, progress)
    from sae_verify.side_by_side import side_by_side

    titles = [f"{name}, {share + 1} of {jobs}" for share in range(jobs)]
    pieces = {title: partial(decide, path, out, effort, seconds, share, jobs) for share, title in enumerate(titles)}
    with bars(titles) as told:
        parts = side_by_side(pieces, jobs, told)
    found: list[Any] = [None] * sum(len(results) for _, results in parts.values())
    for share, title in enumerate(titles):
        found[share::jobs] = parts[title][1]
    return parts[titles[0]][0], found


def decide(
    path: Path, out: Path | None, effort: int | None, seconds: float | None, share: int, of: int, progress: Any
) -> _Decided:
    """The same for every `of`-th prompt from `share` on; in a process of its own it loads the problem itself."""
    from sae_verify.pipeline import EFFORT, certify
    from sae_verify.problem_file import load_problem

    problem = load_problem(path)
    mine = range(share, len(problem.prompts), of)
    effort = EFFORT if effort is None else effort
    results = certify(problem, out=out, effort=effort, seconds=seconds, progress=progress, only=mine) if mine else ()
    threat = problem.threat
    unit = {"absolute": "", "h": " ‖h‖", "e": " ‖e‖"}[threat.relative_to]
    claim = f"claim: readout <= {problem.claim.tau:g}"
    about = f"{problem.title} · {problem.hook_point} · ‖delta‖ <= {threat.radius:g}{unit} · {claim}"
    return about, list(results)


@main.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory for the certificates.")
@click.option(
    "--effort",
    type=click.IntRange(min=1),
    help="Passes through the blocks for each bound and radius tried (default: 12); more is slower and tighter.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Time for each prompt's certified radius through blocks: rounds of growing effort, the best proof counts.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the prompts out, with one thread each; each loads the model.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a prompt.")
def certify(
    problem: Path, out: Path | None, effort: int | None, seconds: float | None, *, jobs: int, as_json: bool
) -> None:
    """Decide every prompt of PROBLEM (a problem.toml): bounds, attacks, replay, evidence, verdict.

    \b
    Keys of a problem file (paths are relative to it):
      title                 for tables and file names
      [model] path          directory or hub id
      [sae] path, id        file, directory or hub id; id: subfolder
            hook            default: the SAE's metadata
            input_scale     for expected_average_only_in
      [clamp] kind          set | scale | set-if-active | add | drop-error
              features      list of indices
              value, values one for all, or one a feature
              positions     "all" (default), "last" or a list
      [threat] held         free | preactivations | defended | code (default) | unreachable | drift
               at           x | h | both
               radius       number
               relative_to  absolute | h (default) | e
               features     defended features; default: the clamped ones
               drift        of drift: by what share of its length their code may move
               positions    how many at the prompt's end are perturbed; default 1
      [claim] at_most       the readout must not exceed it
      [[prompt]] text, tokens   one of the two
                 readout    { kind = "logit-difference", positive, negative }
                            or { kind = "token-against-all", token }
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with a backspace
    title, results = _certify(problem, out, effort, seconds, jobs)
    _print(results, title, as_json=as_json)
    sys.exit(_worst(result.verdict.name for result in results))


@main.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a prompt.")
def attack(problem: Path, *, as_json: bool) -> None:
    """Only attack PROBLEM: the best replayed perturbation at its radius, and the smallest recovering radius."""
    import numpy as np

    from sae_verify.attacks import Pgd, replay, smallest_radius
    from sae_verify.attacks import attack as search
    from sae_verify.geometry.instance import prepare
    from sae_verify.problem_file import load_problem

    with bar(problem.stem) as progress:
        batch = prepare(load_problem(problem))
        progress("attack", 0.2)
        settings = Pgd()
        found = search(batch, batch.radii, settings)
        progress("radius", 0.5)
        radii, deltas = smallest_radius(batch, settings, np.zeros(len(batch.instances)), found)
        progress("replay", 0.9)
        first, second = replay(batch, found.delta), replay(batch, deltas)
    broken = False
    for instance, here, there, radius in zip(batch.instances, first, second, radii, strict=True):
        recovered = here.held and here.value > instance.tau
        broken |= recovered
        known = there.held and there.value > instance.tau
        row = {
            "case": batch.problem.title,
            "prompt": batch.problem.prompts[instance.index],
            "readout_base": instance.base,
            "readout_defended": instance.defended,
            "replayed": here.value,
            "held": here.held,
            "recovered": recovered,
            "radius": radius if known else None,
            "norm_h": instance.norm_h,
            "norm_e": instance.norm_e,
        }
        if as_json:
            click.echo(json.dumps(row))
        else:
            smallest = f"{radius / instance.norm_h:.4g} ‖h‖" if known else "none found"
            click.echo(
                f"{row['prompt']}\n  base {instance.base:.3f}, clamped {instance.defended:.3f}, "
                f"replayed {here.value:.3f}{' (recovered)' if recovered else ''}; smallest recovering radius {smallest}"
            )
    sys.exit(EXIT["refuted"] if broken else EXIT["undecided"])


@main.command()
@click.option("--cases", type=click.Path(path_type=Path), help="Directory of bundled cases (default: examples/cases).")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
@click.option(
    "--effort",
    type=click.IntRange(min=1),
    default=DEMO_EFFORT,
    show_default=True,
    help="Passes through the blocks for each bound and radius tried.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes that share the prompts out; default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a prompt.")
def demo(cases: Path | None, out: Path, effort: int, jobs: int | None, *, as_json: bool) -> None:
    """Run the main job on the bundled cases: certify, attack, replay, write certificates, check them again."""
    from sae_verify import checker

    started = time.perf_counter()
    cases = cases or _bundled()
    problems = sorted(cases.glob("*/problem_*.toml"))
    if not problems:
        raise click.UsageError(f"there are no problems below {cases}")
    counts: dict[str, int] = {}
    written: list[Path] = []
    for path in problems:
        title, results = _certify(path, out, effort, None, jobs or cores())
        _print(results, title, as_json=as_json)
        for result in results:
            counts[result.verdict.name] = counts.get(result.verdict.name, 0) + 1
            written += [result.certificate] if result.certificate else []
    accepted = 0
    for path in written:
        try:
            checker.check(path)
        except checker.Rejected as reason:
            click.echo(f"rejected  {path}: {reason}", err=True)
        else:
            accepted += 1
    if not as_json:
        verdicts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        seconds = time.perf_counter() - started
        click.echo(
            f"{verdicts}; the checker accepted {accepted} of {len(written)} certificates in {out}; {seconds:.0f} s"
        )
    if accepted < len(written):
        sys.exit(4)


def _bundled() -> Path:
    """The cases beside the package in a checkout, or below the working directory."""
    for base in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (base / "examples" / "cases").is_dir():
            return base / "examples" / "cases"
    raise click.UsageError("the bundled cases are in the repository's examples/cases; give --cases")
