"""A study's plots as PNG files. matplotlib is an extra, and is imported when a plot is drawn."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sae_verify.errors import UnsupportedError

Row = dict[str, Any]
COLOURS = {
    "free": "#777777",
    "preactivations": "#1f77b4",
    "defended": "#2ca02c",
    "code": "#d62728",
    "drift": "#9467bd",
}
RADII = ("attacked_radius", "certified_radius")
SIZE = (6.4, 4.2)
DPI = 120


def draw(rows: Sequence[Row], summary: Row, out: Path) -> list[Path]:
    """Draw what the rows allow: recovery against radius, drift against recovery, parts, the trade-off, several layers.

    Raises:
        UnsupportedError: matplotlib is missing.

    """
    try:
        figure = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise UnsupportedError(
            "plots need matplotlib", rule="it is an extra", remedy="pip install 'sae-verify[plots]', or use --no-plots"
        ) from error
    drawn = []
    plots: dict[str, Callable[[Any, Sequence[Row], Row], bool]] = {
        "recovery": _recovery,
        "drift": _drift,
        "replay": _replay,
        "trade_off": _trade_off,
        "layers": _layers,
    }
    for name, plot in plots.items():
        page = figure(figsize=SIZE, dpi=DPI, layout="constrained")
        axes = page.add_subplot()
        if plot(axes, rows, summary):
            drawn.append(_save(page, out / f"{name}.png"))
    return drawn


def _save(page: Any, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        page.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _base(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "attack" and row["config"] == "base"]


def _recovery(axes: Any, rows: Sequence[Row], summary: Row) -> bool:
    """Share of prompts with a recovery up to a radius: attacks from below, certificates from above."""
    shortest = [row for row in _base(rows) if row["budget"] == "shortest"]
    if not shortest:
        return False
    known = [row[name] / row["norm_h"] for row in shortest for name in RADII if row.get(name)]
    limit = 1.2 * min(max(known, default=1.0), 2 * max(summary["budgets"]))
    for threat in dict.fromkeys(row["threat"] for row in shortest):
        some = [row for row in shortest if row["threat"] == threat]
        radii = [row["attacked_radius"] / row["norm_h"] for row in some if row.get("attacked_radius")]
        x, y = _steps(radii, len(some), limit)
        axes.step(x, y, where="post", color=COLOURS[threat], label=threat, **_line(threat))
    proved = "code" if any(row["threat"] == "code" for row in shortest) else shortest[0]["threat"]
    some = [row for row in shortest if row["threat"] == proved]
    certified = [row["certified_radius"] / row["norm_h"] if row.get("certified_radius") else 0.0 for row in some]
    x, y = _steps(certified, len(some), limit)
    axes.fill_between(
        x, y, 1.0, step="post", color=COLOURS[proved], alpha=0.15, linewidth=0, label=f"excluded by proof ({proved})"
    )
    axes.set(xlabel="radius / ‖h‖", ylabel="share of prompts recovered", xlim=(0, limit), ylim=(0, 1.02))
    axes.set_title(f"{summary['study']}: {len(some)} prompts")
    axes.legend(fontsize="small")
    return True


def _line(threat: str) -> Row:
    """Dashes where lines often lie on one another."""
    return {"linestyle": "--" if threat in ("defended", "drift") else "-", "linewidth": 1.6, "markersize": 4}


def _steps(radii: Sequence[float], count: int, limit: float) -> tuple[list[float], list[float]]:
    """The share of `count` with a radius up to x, as a step function from 0 to `limit`."""
    inside = sorted(radius for radius in radii if radius <= limit)
    x, y = [0.0, *inside, limit], [0.0, *((i + 1) / count for i in range(len(inside)))]
    return x, [*y, y[-1]]


def _drift(axes: Any, rows: Sequence[Row], summary: Row) -> bool:
    """How far the defended features moved in recoveries at each budget."""
    shown = False
    for threat in dict.fromkeys(row["threat"] for row in _base(rows)):
        points = [
            (entry["mean_relative_drift"], entry["recovered"]["share"])
            for entry in summary["rates"]
            if entry["config"] == "base"
            and entry["threat"] == threat
            and entry["budget"] != "shortest"
            and entry["mean_relative_drift"] is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS[threat], label=threat, marker="o", **_line(threat))
            shown = True
    axes.set(xlabel="mean relative drift of the defended features in recoveries", ylabel="share recovered")
    axes.set_title(f"{summary['study']}: drift against recovery, one point a budget")
    if shown:
        axes.legend(fontsize="small")
    return shown


def _replay(axes: Any, rows: Sequence[Row], summary: Row) -> bool:
    """Which part of a recovery recovers alone, as it is and scaled to full length; and what is left without it."""
    replay = summary["replay"]
    if not replay:
        return False
    labels = [f"{row['part']}\n({row['threat'][:7]})" for row in replay]
    width = 0.27
    for place, (name, label) in enumerate(
        (("alone", "alone"), ("alone_matched", "alone, scaled to ‖δ‖"), ("without", "knocked out"))
    ):
        shares = [row[name]["share"] or 0.0 for row in replay]
        axes.bar([i + (place - 1) * width for i in range(len(replay))], shares, width, label=label)
    axes.set_xticks(range(len(replay)), labels, fontsize="x-small")
    axes.set(ylabel="share that still recovers", ylim=(0, 1.05), title=f"{summary['study']}: parts of the recovery")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3)
    return True


def _trade_off(axes: Any, rows: Sequence[Row], summary: Row) -> bool:
    """What a stronger or wider clamp buys: share of behaviours it suppresses against the radius that undoes it."""
    radii = {(row["config"], row["threat"]): row["median_attacked"] for row in summary["radii"]}
    share = {"base": summary["valid_flips"] / max(summary["rows_known"], 1)}
    share |= {
        row["config"]: row["valid_flips"] / max(row["rows_known"], 1)
        for row in summary["sweep"]
        if "valid_flips" in row
    }
    shown = False
    for threat, marker in (("preactivations", "o"), ("code", "s")):
        points = [(share[config], radius, config) for (config, t), radius in radii.items() if t == threat and radius]
        if len(points) > 1:
            axes.plot([p[0] for p in points], [p[1] for p in points], marker, color=COLOURS[threat], label=threat)
            if threat == "code":
                for x, y, config in points:
                    axes.annotate(config, (x, y), fontsize="x-small", xytext=(3, 3), textcoords="offset points")
            shown = True
    axes.set(xlabel="share of behaviours suppressed by the clamp", ylabel="median recovering radius / ‖h‖")
    axes.set_title(f"{summary['study']}: clamps compared")
    if shown:
        axes.legend(fontsize="small")
    return shown


def _layers(axes: Any, rows: Sequence[Row], summary: Row) -> bool:
    """What it costs an adversary that later layers are clamped, too: the same prompts, with one clamp and with all."""
    shortest = [row for row in rows if row["kind"] == "attack" and row["budget"] == "shortest"]
    several = [row for row in shortest if row.get("last_norm")]
    if not several:
        return False
    prompts = {row["prompt"] for row in several}
    alone = [row for row in _base(shortest) if row["prompt"] in prompts]
    known = [row["attacked_radius"] / row["norm_h"] for row in (*several, *alone) if row.get("attacked_radius")]
    limit = 1.2 * max(known, default=1.0)
    for threat in dict.fromkeys(row["threat"] for row in several):
        for group, label, dashes in ((alone, "one layer", "-"), (several, several[0]["config"], "--")):
            some = [row for row in group if row["threat"] == threat]
            radii = [row["attacked_radius"] / row["norm_h"] for row in some if row.get("attacked_radius")]
            x, y = _steps(radii, len(prompts), limit)
            axes.step(x, y, where="post", color=COLOURS[threat], linestyle=dashes, label=f"{threat}, {label}")
    axes.set(xlabel="radius at the first layer / ‖h‖", ylabel="share of prompts recovered", ylim=(0, 1.02))
    axes.set(xlim=(0, limit), title=f"{summary['study']}: layers clamped and held at once, {len(prompts)} prompts")
    axes.legend(fontsize="small")
    return True
