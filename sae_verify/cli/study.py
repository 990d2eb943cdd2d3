"""study: the published recovery experiments, with radii, certificates and controls."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sae_verify.cli.group import bar, bars, cores, main

STUDIES = ("unlearning", "indirect-object", "refusal", "probe")
"""Longest first, as they are begun side by side."""
ALL = "all"
OF_ONE = ("model", "sae", "also", "prompts", "hook", "clamp", "features", "count", "find", "generate", "stop")
"""Options that speak of one study's model, and do not go with all of them."""
KINDS = ("set", "scale", "set-if-active", "add")
FINDS = ("promotes", "contrast", "opposes")
SMALL = {"limit": 1, "steps": 8, "budgets": (0.1, 0.8), "suffix": 1, "soft": 0}
"""Settings of --small."""


@main.command()
@click.argument("study", type=click.Choice([*STUDIES, ALL]))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Directory for tables and plots.")
@click.option("--model", help="Directory or hub id; default: the bundled one.")
@click.option("--sae", help="Directory or hub id; default: the bundled one.")
@click.option(
    "--also", multiple=True, metavar="SAE", help="One at a later layer, clamped at the same time; repeatable."
)
@click.option("--prompts", type=click.Path(path_type=Path), help="JSON lines, see below; default: the bundled ones.")
@click.option("--hook", help="Hook point; default: the SAE's metadata.")
@click.option("--clamp", metavar="KIND=VALUE", help=f"What is written; KIND is one of {', '.join(KINDS)}.")
@click.option("--features", help="Clamped features, separated by commas; default: they are found.")
@click.option("--count", type=click.IntRange(min=1), help="Features to find.")
@click.option(
    "--find", type=click.Choice(FINDS), help="How: by attribution, or larger / smaller than on contrast rows."
)
@click.option("--budgets", help="Radii in units of ||h||, separated by commas.")
@click.option("--threats", help="Rungs of the ladder, separated by commas; default: all.")
@click.option("--drift", type=float, help="t of the threat drift(t).")
@click.option("--certify", help="Threats to certify, separated by commas; `none` for none.")
@click.option("--effort", type=click.IntRange(min=1), help="Passes through the blocks for each bound.")
@click.option("--limit", type=click.IntRange(min=1), help="Valid flips that are studied.")
@click.option("--suffix", type=click.IntRange(min=0), help="Longest suffix of the input-only threat.")
@click.option("--generate", type=click.IntRange(min=0), help="Tokens of greedy generation.")
@click.option("--stop", help="Text that ends what is compared with the base model's answer.")
@click.option("--seed", type=click.IntRange(min=0), help="Of everything that is drawn.")
@click.option("--sweep/--no-sweep", default=True, show_default=True, help="Other strengths, sizes, sparsities, layers.")
@click.option("--small", is_flag=True, help="One prompt, two budgets, no sweep: a smoke test of less than a minute.")
@click.option("--plots/--no-plots", default=True, show_default=True)
@click.option("--keep-text", is_flag=True, help="Store prompts and generations in the outputs.")
@click.option("--jobs", type=click.IntRange(min=1), help="Of `all`: studies at a time; default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def study(
    study: str, out: Path, *, sweep: bool, small: bool, plots: bool, jobs: int | None, as_json: bool, **asked: Any
) -> None:
    """Run one of the published recovery STUDIES, and write tables and plots to -o.

    `all` runs the four bundled ones side by side, each in a directory of its own in -o.
    A killed run goes on where it ended when it is started again with the same settings.

    \b
    What is written: units.jsonl (finished prompts), table.csv and table.json (tidy: one measurement a row),
    summary.json (rates with intervals, radii, controls), certificates/, and plots as PNG.

    \b
    A prompt file has one JSON object a line:
      text       the prompt; for unlearning with {options} where the answers go
      positive   token that speaks for the behaviour (unlearning: the answer; probe: the label)
      negative   token against it; without it: `positive` against all others
      options    unlearning: the answers; every order of them is a row
      role       test (default), find or contrast: features are found on the latter two
      group      rows that share a question
      closing    end of the prompt that stays last when a suffix is put in
      name       identifier in tables
    """  # noqa: D301 - click keeps the lines of a paragraph that starts with a backspace
    names = STUDIES if study == ALL else (study,)
    if study == ALL:
        _of_all(asked)
    plans = {name: _plan(name, sweep=sweep and not small, small=small, asked=dict(asked)) for name in names}
    homes = {name: out / name if study == ALL else out for name in names}
    summaries = _run(plans, homes, jobs)
    drawn = {name: _draw(summaries[name], homes[name]) if plots else [] for name in names}
    if as_json:
        click.echo(json.dumps(summaries if study == ALL else summaries[study]))
        return
    from sae_verify.report.study import tables

    console = Console(width=None if sys.stdout.isatty() else 150)
    for name, summary in summaries.items():
        for table in tables(summary):
            console.print(table)
        files = ["table.csv", "table.json", "summary.json", *(path.name for path in drawn[name])]
        click.echo(f"{homes[name]}: {', '.join(files)}")


def _run(plans: dict[str, Any], homes: dict[str, Path], jobs: int | None) -> dict[str, dict[str, Any]]:
    from sae_verify.study import run_studies, run_study

    if len(plans) == 1:
        ((name, plan),) = plans.items()
        with bar(f"study {name}") as progress:
            return {name: run_study(plan, homes[name], progress)}
    with bars(list(plans)) as told:
        return run_studies(plans, homes[next(iter(plans))].parent, jobs or cores(), told)


def _draw(summary: dict[str, Any], home: Path) -> list[Path]:
    from sae_verify.report.study_plots import draw

    return draw(json.loads((home / "table.json").read_text(encoding="utf-8")), summary, home)


def _of_all(asked: dict[str, Any]) -> None:
    given = [f"--{name}" for name in OF_ONE if asked[name] not in (None, ())]
    if given:
        raise click.UsageError(f"{', '.join(given)}: `all` runs the bundled studies; give one study's name")


def _plan(study: Any, *, sweep: bool, small: bool, asked: dict[str, Any]) -> Any:
    from sae_verify.cli.certify import _bundled
    from sae_verify.study import Sweep, bundled_plan, default_plan

    files = [asked.pop(name) for name in ("model", "sae", "prompts")]
    changes: dict[str, Any] = dict(SMALL) if small else {}
    changes |= {key: value for key, value in asked.items() if value is not None and key not in ("clamp", "keep_text")}
    changes["keep_text"] = asked["keep_text"]
    if asked["clamp"]:
        changes["kind"], changes["value"] = _clamp(asked["clamp"])
    for name, kind in (("features", int), ("budgets", float)):
        if isinstance(changes.get(name), str):
            changes[name] = tuple(_number(part, kind, name) for part in changes[name].split(","))
    if not changes.pop("also"):  # otherwise what is bundled, which is a sweep of a kind
        changes |= {} if sweep else {"also": ()}
    else:
        changes["also"] = asked["also"]
    if "threats" in changes:
        changes["threats"] = tuple(changes["threats"].split(","))
    if "certify" in changes:
        changes["certify"] = () if changes["certify"] == "none" else tuple(changes["certify"].split(","))
    if not sweep:
        changes["sweep"] = Sweep()
    if all(file is None for file in files):
        return bundled_plan(study, _bundled().parent, **changes)
    if any(file is None for file in files):
        raise click.UsageError("--model, --sae and --prompts go together")
    return default_plan(study, str(files[0]), str(files[1]), str(files[2]), **changes)


def _clamp(text: str) -> tuple[str, float]:
    kind, _, value = text.partition("=")
    if kind not in KINDS:
        raise click.UsageError(f"--clamp {text!r}: the kind is one of {', '.join(KINDS)}, for example scale=-1")
    return kind, float(_number(value, float, "clamp"))


def _number(text: str, kind: type, name: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise click.UsageError(f"--{name}: {text!r} is no {'integer' if kind is int else 'number'}") from None
