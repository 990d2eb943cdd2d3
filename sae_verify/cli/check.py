"""check: certificates and statement files, re-verified."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from sae_verify.cli.group import main


@main.command()
@click.argument("certificates", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--sae", type=click.Path(exists=True, path_type=Path), help="The SAE's files (default: as recorded).")
@click.option(
    "--model", type=click.Path(exists=True, path_type=Path), help="The model's directory (default: as recorded)."
)
@click.option(
    "--replay", "again", is_flag=True, help="Also recompute residuals and witnesses on the real model (needs torch)."
)
@click.option(
    "--beside",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --replay: layers.toml with clamps that act at other layers, as a study with --also writes it.",
)
@click.option(
    "--verified",
    is_flag=True,
    help="Also decide linear worst cases and quadratic bounds of statement files by the checker proved in Coq.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a certificate.")
def check(
    certificates: tuple[Path, ...],
    sae: Path | None,
    model: Path | None,
    beside: Path | None,
    *,
    again: bool,
    verified: bool,
    as_json: bool,
) -> None:
    """Re-verify CERTIFICATES against your own weights. No torch, no solver."""
    from sae_verify import checker

    if beside and not again:
        raise click.UsageError("--beside says how to replay; give --replay, too")
    rejected = certified = False
    for path in certificates:
        if checker.is_statement_file(path):
            if again:
                click.echo(f"{path}: a statement file speaks of no model; there is nothing to replay", err=True)
            rejected |= not _check_statements(path, sae, verified=verified, as_json=as_json)
            continue
        if verified:
            click.echo(f"{path}: the verified checker decides statement files only", err=True)
        certified = True
        row: dict[str, Any] = {"certificate": str(path)}
        proven = ""
        try:
            report = checker.check(path, sae=sae, model=model)
            if again:
                from sae_verify.certificates.replay import replay_certificate

                row["replay"] = replay_certificate(path, sae=sae, model=model, beside=beside)
        except checker.Rejected as reason:
            rejected = True
            row |= {"accepted": False, "reason": str(reason)}
        else:
            proven = _proven(report)
            upper = report.upper if report.upper < float("inf") else None
            row |= {"accepted": True, "verdict": report.verdict, "at_most": report.at_most, "upper": upper}
            row |= {"radius": report.radius, "digest": report.digest, "assumptions": list(checker.ASSUMPTIONS)}
        if as_json:
            click.echo(json.dumps(row))
        elif row["accepted"]:
            note = f"; {row['replay']}" if again else ""
            click.echo(f"accepted  {path}: {row['verdict']}; {proven} at radius {row['radius']:.6g}{note}")
        else:
            click.echo(f"rejected  {path}: {row['reason']}")
    if not as_json and not rejected and certified:
        click.echo("An accepted certificate still rests on: " + "; ".join(checker.ASSUMPTIONS) + ".", err=True)
    sys.exit(4 if rejected else 0)


def _check_statements(path: Path, sae: Path | None, *, verified: bool, as_json: bool) -> bool:
    """Check one statement file and print what it proves; whether it is accepted."""
    from sae_verify import checker

    row: dict[str, Any] = {"certificate": str(path)}
    try:
        accepted = checker.check_statements(path, sae=sae)
        if verified:
            from sae_verify.checker.verified import verify_file

            count, steps = verify_file(path, sae)
            row["verified"] = count
            click.echo(f"{path}: the verified checker decided {count} of {steps} statements", err=True)
    except checker.Rejected as reason:
        click.echo(
            json.dumps(row | {"accepted": False, "reason": str(reason)}) if as_json else f"rejected  {path}: {reason}"
        )
        return False
    if as_json:
        proven = [{"kind": s.kind, "theorem": s.theorem, "text": s.text, **s.values} for s in accepted.statements]
        click.echo(json.dumps(row | {"accepted": True, "statements": proven}))
    else:
        for statement in accepted.statements:
            click.echo(f"accepted  {path}: {statement.text}")
    return True


def _proven(report: Any) -> str:
    """What a checked certificate proves, in a few words."""
    if report.verdict.startswith("refuted"):
        best = max(w.replay if w.readout is None else w.readout for w in report.witnesses if w.within)
        return f"a witness reaches {best:.9g} > {report.at_most:g}"
    if report.upper < float("inf"):
        return f"readout <= {report.upper:.9g}"
    return "no bound"
