"""falsify: every theorem attacked on an SAE of your own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_verify.cli.group import bar, main

SHOWN = 6
"""Entries of a list in a witness that are printed; --json prints all of them."""
STYLES = {"held": "green", "FALSIFIED": "bold red", "crashed": "bold red", "not applicable": "dim"}


@main.command()
@click.argument("sae")
@click.option("--id", "identifier", help="Subfolder of a release.")
@click.option("--input-scale", type=float, help="For normalize_activations=expected_average_only_in.")
@click.option("--model", help="Directory or hub id of the language model: attack at residuals of its prompts.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Text file, one prompt a line; needs --model.")
@click.option("--hook", help="Hook point; default: the SAE's metadata.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, witnesses included.")
def falsify(
    sae: str,
    identifier: str | None,
    input_scale: float | None,
    seconds: float,
    seed: int,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Search for a counter-example to every theorem on SAE.

    Without --model the residuals are synthetic: sums of decoder rows with noise, points at thresholds and at corners of
    held cells, zero, huge and tiny ones. `margin` is 1 - found / allowed for the strongest candidate: 0 or less is a
    counter-example, and near 0 is as it should be where a bound is attained. Every theorem is attacked at least once,
    which can take longer than --seconds.

    Exit codes: 0 all held, 1 a counter-example, 2 the files or arguments are refused, 70 the package crashed.
    """
    from sae_verify import testing
    from sae_verify.sae import load_sae

    if (asked["model"] is None) != (asked["prompts"] is None):
        raise click.UsageError("--model and --prompts go together")
    if asked["hook"] is not None and asked["model"] is None:
        raise click.UsageError("--hook needs --model and --prompts")
    with bar("falsify") as progress:
        loaded = load_sae(sae, identifier, input_scale=input_scale)
        residuals = None if asked["model"] is None else _residuals(loaded, asked, seed)
        findings = testing.falsify(loaded, residuals, seconds=seconds, seed=seed, progress=progress)
    outcomes = {finding.outcome for finding in findings}
    if as_json:
        rows = [_row(finding) for finding in findings]
        click.echo(json.dumps({"sae": sae, "seed": seed, "seconds": seconds, "theorems": rows}))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        console.print(_table(repr(loaded), findings, wide=console.width >= 130))
        for finding in findings:
            if finding.outcome in ("FALSIFIED", "crashed"):
                click.echo(_report(finding, seed))
    sys.exit(1 if "FALSIFIED" in outcomes else 70 if "crashed" in outcomes else 0)


def _residuals(sae: Any, asked: dict[str, Any], seed: int) -> Any:
    """Residuals of the prompts of a file, (n, d)."""
    import numpy as np

    from sae_verify.model import load_model
    from sae_verify.testing import prompt_residuals

    try:
        lines = asked["prompts"].read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{asked['prompts']} cannot be read: {error}") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise click.UsageError(f"{asked['prompts']} has no prompts")
    return prompt_residuals(sae, load_model(asked["model"]), prompts, np.random.default_rng(seed), hook=asked["hook"])


def _row(finding: Any) -> dict[str, Any]:
    return {
        "theorem": finding.name,
        "statement": finding.statement,
        "verdict": finding.outcome,
        "attempts": finding.attempts,
        "candidates": finding.tried,
        "margin": finding.margin if finding.tried else None,
        "margin_is": finding.reads,
        "attempt": finding.attempt,
        "reason": finding.reason,
        "witness": _finite(finding.witness),
    }


def _finite(value: Any) -> Any:
    """Numbers that JSON has no name for as text."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


def _table(title: str, findings: list[Any], *, wide: bool) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("theorem", no_wrap=True)
    for name in ("attempts", "candidates", "margin"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if wide:
        table.add_column("margin: 1 - found / allowed, of")
    for finding in findings:
        tried = finding.tried > 0
        cells = [finding.name, str(finding.attempts), _short(finding.tried), f"{finding.margin:.3g}" if tried else "–"]
        about = Text(finding.reads if tried and finding.outcome != "crashed" else finding.reason)
        verdict = Text(finding.outcome, style=STYLES[finding.outcome])
        table.add_row(*cells, verdict, *([about] if wide else []))
    return table


def _short(count: int) -> str:
    return f"{count:,}" if count < 10**7 else f"{count:.2g}"


def _report(finding: Any, seed: int) -> str:
    """A counter-example, in a few lines."""
    lines = [f"{finding.name} is {finding.outcome}: {finding.statement}."]
    if finding.reason:
        lines.append(f"  {finding.reason}")
    for key, value in finding.witness.items():
        text = json.dumps(_finite(value))
        if isinstance(value, list) and len(value) > SHOWN:
            text = json.dumps(_finite(value[:SHOWN]))[:-1] + f", ...] ({len(value)})"
        lines.append(f"  {key}: {text}")
    lines.append(f"  found by attempt {finding.attempt} of seed {seed}; --json prints all of the witness.")
    lines.append("  Either the theorem, sae-verify or the SAE's own code is wrong. Please report it with this output")
    lines.append("  to the maintainers of sae-verify, with where the SAE's files are from.")
    return "\n".join(lines)
