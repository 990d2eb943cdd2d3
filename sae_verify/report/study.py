"""A study's summary as a terminal table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Summary = dict[str, Any]


def tables(summary: Summary) -> list[Table]:
    """What matters most: recoveries by threat and budget, radii, and the input-only threat."""
    found = [_rates(summary), _radii(summary)]
    found += [_layers(summary)] if summary["layers"] else []
    return found + ([_inputs(summary)] if summary["inputs"] else [])


def _rates(summary: Summary) -> Table:
    counts = f"{summary['studied']} of {summary['valid_flips']} valid flips"
    title = f"{summary['study']} · {counts} · recovered, with Wilson 95% intervals, by budget / ‖h‖"
    view = Table(title=title, title_justify="left", title_style="bold")
    view.add_column("threat", no_wrap=True)
    for budget in summary["budgets"]:
        view.add_column(f"{budget:g}", justify="right")
    base = [row for row in summary["rates"] if row["config"] == "base"]
    for threat in dict.fromkeys(row["threat"] for row in base):
        cells = [_share(row["recovered"]) for row in base if row["threat"] == threat and row["budget"] != "shortest"]
        view.add_row(threat, *cells)
    return view


def _radii(summary: Summary) -> Table:
    title = "shortest recovery and certified radius, medians / ‖h‖"
    view = Table(title=title, title_justify="left", title_style="bold")
    for name in ("threat", "configuration", "attacked", "certified", "certified / attacked", "certificate of"):
        view.add_column(name, no_wrap=True, justify="left" if name in ("threat", "configuration") else "right")
    for row in summary["radii"]:
        proof = ", ".join(row["certified_by"]) or "–"
        view.add_row(
            row["threat"],
            row["config"],
            _number(row["median_attacked"]),
            _number(row["median_certified"]),
            _number(row["median_certified_over_attacked"]),
            proof,
        )
    return view


def _layers(summary: Summary) -> Table:
    title = (
        "several layers clamped and held at once, medians; the last layer's state moves by ‖d‖, in units of its length"
    )
    view = Table(title=title, title_justify="left", title_style="bold")
    names = ("threat", "layers", "recovered", "largest violation", "radius / one layer's", "‖d‖ attacked", "certified")
    for name in names:
        view.add_column(name, no_wrap=True)
    for row in summary["layers"]:
        view.add_row(
            row["threat"],
            row["config"],
            f"{row['recovered']}/{row['prompts']}",
            _number(row["largest_violation"]),
            _number(row["median_over_one_layer"]),
            _number(row["median_last_displacement"]),
            _number(row["median_last_certified"]),
        )
    return view


def _inputs(summary: Summary) -> Table:
    title = "input only: what tokens in the prompt recover, the clamp active"
    view = Table(title=title, title_justify="left", title_style="bold")
    for name in ("threat", "recovered", "decided"):
        view.add_column(name, no_wrap=True)
    for row in summary["inputs"]:
        view.add_row(row["threat"], _share(row), "every token tried" if row["decided"] else "a search")
    return view


def _share(counted: Summary) -> str:
    low, high = counted["wilson_low"], counted["wilson_high"]
    return f"{counted['successes']}/{counted['count']} [{low:.2f}, {high:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
