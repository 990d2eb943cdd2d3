"""describe: what the files of an SAE hold, without loading them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from sae_verify.cli.group import main


@main.command()
@click.argument("sae")
@click.option("--id", "identifier", help="Subfolder of a release.")
@click.option("--format", "form", help="Name of the format; default: found from the files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def describe(sae: str, identifier: str | None, form: str | None, *, as_json: bool) -> None:
    """Say what format and architecture an SAE has, its sizes, dtypes and conventions.

    Files are mapped and read in blocks: peak memory stays near their size, whatever that is.
    """
    from sae_verify.sae import describe as read

    facts = dataclasses.asdict(read(sae, identifier, format=form))
    facts["path"] = str(facts["path"])
    if as_json:
        click.echo(json.dumps(facts))
        return
    table = Table(title=str(facts.pop("path")), show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    Console().print(table)


def _shown(value: Any) -> str:
    """For people: one line an entry."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {entry}" for key, entry in value.items()) or "-"
    if isinstance(value, (tuple, list)):
        texts = [f"{entry:.6g}" if isinstance(entry, float) else str(entry) for entry in value]
        return ("\n" if any(" " in text for text in texts) else " to ").join(texts) or "-"
    return "-" if value is None else str(value)
