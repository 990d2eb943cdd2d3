"""inspect: what an SAE is, what it reaches, and what a model's residuals see of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sae_verify.cli.group import bar, main


@main.command()
@click.argument("sae")
@click.option("--id", "identifier", help="Subfolder of a release.")
@click.option("--input-scale", type=float, help="For normalize_activations=expected_average_only_in.")
@click.option("--model", help="Directory or hub id of the language model: adds what its residuals see.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Text file, one prompt a line; needs --model.")
@click.option("--hook", help="Hook point; default: the SAE's metadata.")
@click.option("--ball", type=click.Choice(["l2", "linf", "ellipsoid"]), default="l2", show_default=True)
@click.option("--radius", type=float, default=0.05, show_default=True, help="Of the worst cases, see below.")
@click.option("--clamp", multiple=True, metavar="FEATURE=VALUE", help="Set a feature to a value; may be repeated.")
@click.option("--readout", nargs=2, metavar="TOKEN TOKEN", help="Logit difference; default: the model's first two.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write and check a statement file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def inspect(
    sae: str, identifier: str | None, input_scale: float | None, out: Path | None, *, as_json: bool, **asked: Any
) -> None:
    """Say what an SAE is, what its decoder reaches, and what a model's residuals see of it.

    What is shown comes from floats. With -o the checker proves ranks, singular values, the cone, and for
    each prompt the worst case with the code held, the inner radius and whether the cell ends; `sae-verify
    check` proves them again. (For an ellipsoid its factor is written beside the file.) The radius is in
    units of ||x|| (l2), of ||x|| / sqrt(d) (linf), or of the typical error term (ellipsoid of the error at
    all positions of the prompts).
    """
    from sae_verify.geometry.inspect import inspect_sae
    from sae_verify.sae import load_sae

    if (asked["model"] is None) != (asked["prompts"] is None):
        raise click.UsageError("--model and --prompts go together")
    if (asked["clamp"] or asked["readout"]) and asked["model"] is None:
        raise click.UsageError("--clamp and --readout need --model and --prompts")
    if out is not None:
        _writable(out)
    with bar("inspect") as progress:
        loaded = load_sae(sae, identifier, input_scale=input_scale)
        progress("weights", 0.1)
        facts = inspect_sae(loaded)
        tokens = [] if asked["model"] is None else list(_inspect_tokens(loaded, asked, progress))
        proven = None
        if out is not None:
            from sae_verify.certificates.inspection import certify_inspection

            progress("proofs", 0.8)
            proven = certify_inspection(loaded, tokens, out)
    _print_inspection(facts, tokens, proven, as_json=as_json)


def _writable(out: Path) -> None:
    """A statement file may be written here: nothing but an older one is replaced."""
    from sae_verify.checker import is_statement_file

    place = next((p for p in out.absolute().parents if p.exists()), Path("/"))
    if not out.name or out.is_dir() or (out.exists() and not is_statement_file(out)):
        raise click.UsageError(f"{out} exists and is no statement file; give another name")
    if not place.is_dir() or not os.access(place, os.W_OK) or (out.exists() and not os.access(out, os.W_OK)):
        raise click.UsageError(f"{out} cannot be written")


def _inspect_tokens(sae: Any, asked: dict[str, Any], progress: Any) -> Iterator[Any]:
    """Reports of the prompts of a file, with progress."""
    from sae_verify.geometry.inspect_tokens import inspect_tokens
    from sae_verify.model import load_model
    from sae_verify.problem import Clamp, LogitDifference

    try:
        lines = asked["prompts"].read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{asked['prompts']} cannot be read: {error}") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise click.UsageError(f"{asked['prompts']} has no prompts")
    settings = [_setting(text) for text in asked["clamp"]]
    if len(dict(settings)) != len(settings):
        raise click.UsageError("--clamp names a feature twice")
    clamp = Clamp.set(dict(settings)) if settings else None
    readout = LogitDifference(*asked["readout"]) if asked["readout"] else None
    model = load_model(asked["model"])
    reports = inspect_tokens(
        sae, model, prompts, hook=asked["hook"], clamp=clamp, readout=readout, ball=asked["ball"], share=asked["radius"]
    )
    for i, report in enumerate(reports, start=1):
        progress("prompts", 0.2 + 0.6 * i / len(prompts))
        yield report


def _setting(text: str) -> tuple[int, float]:
    """FEATURE=VALUE."""
    feature, _, value = text.partition("=")
    try:
        return int(feature), float(value)
    except ValueError:
        raise click.UsageError(f"--clamp {text!r} is not FEATURE=VALUE, for example 1024=0") from None


def _print_inspection(facts: dict[str, Any], tokens: list[Any], proven: Any, *, as_json: bool) -> None:
    from sae_verify.report import inspection as report

    if as_json:
        row: dict[str, Any] = facts | {"prompts": [report.token_json(token) for token in tokens]}
        if proven is not None:
            texts = [statement.text for statement in proven.accepted.statements]
            row |= {"certificate": str(proven.path), "proven": texts, "not_proven": list(proven.missing)}
        click.echo(json.dumps(row))
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(report.screen(facts, tokens, wide=console.width >= 130))
    if proven is not None:
        click.echo(f"the checker proved {len(proven.accepted.statements)} statements, in {proven.path}:")
        for statement in proven.accepted.statements:
            click.echo(f"  {statement.text}")
        for reason in proven.missing:
            click.echo(f"  not proved: {reason}")
