"""From rows to what a reader wants to know: rates with intervals, radii, controls, parts, cost of each threat."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from sae_verify.study.metrics import rate
from sae_verify.study.plan import Plan
from sae_verify.study.store import Row
from sae_verify.version import __version__

RATES = (
    *("recovered", "strict", "zero_reactivation", "non_refusal", "base_like"),
    *("non_refusal_every_position", "base_like_every_position"),
)
"""Flags that are counted; those of a recovery are counted among recoveries and all rows alike: a flag implies it."""
MEANS = ("relative_drift", "activation_drift", "floor_violation", "reactivated", "relative_norm")


def summarise(plan: Plan, found: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """The summary, JSON-ready: numbers that do not exist are null."""
    attacks = [row for row in rows if row["kind"] == "attack"]
    return {
        "study": plan.study,
        "tool": __version__,
        "seed": plan.seed,
        "budgets": list(plan.budgets),
        **found,
        "rates": _rates(attacks, plan.seed),
        "groups": _groups(attacks),
        "radii": _radii(attacks),
        "ratio_code_to_defended": _ratio(attacks, "code", "defended"),
        "ratio_code_to_preactivations": _ratio(attacks, "code", "preactivations"),
        "layers": _layers(attacks),
        "controls": _controls(rows),
        "inputs": _inputs(rows, plan.seed),
        "replay": _replay(rows, plan.seed),
        "sweep": [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == "sweep"],
        "seconds": round(sum({row["prompt"]: row["seconds"] for row in attacks if "seconds" in row}.values()), 1),
    }


def _keyed(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return groups


def _interval(flags: list[bool], rows: list[Row], seed: int) -> Row:
    found = rate(flags, [row["group"] for row in rows], seed)
    low, high = found.cluster or (None, None)
    return {
        "successes": found.successes,
        "count": found.count,
        "share": found.share if found.count else None,
        "wilson_low": found.low,
        "wilson_high": found.high,
        "cluster_low": low,
        "cluster_high": high,
    }


def _rates(attacks: list[Row], seed: int) -> list[Row]:
    result = []
    for (config, threat, budget), rows in _keyed(attacks, "config", "threat", "budget").items():
        entry: Row = {"config": config, "threat": threat, "budget": budget}
        for name in RATES:
            if any(name in row for row in rows):
                flags = [bool(row.get("recovered")) and bool(row.get(name)) for row in rows]
                entry[name] = _interval(flags, rows, seed)
        recovered = [row for row in rows if row["recovered"]]
        for name in MEANS:
            values = [row[name] for row in recovered if row.get(name) is not None]
            entry[f"mean_{name}"] = statistics.fmean(values) if values else None
        result.append(entry)
    return result


def _groups(attacks: list[Row]) -> list[Row]:
    """Questions all of whose studied rows recover: for multiple choice, right again in every order that flipped."""
    result = []
    for (config, threat, budget), rows in _keyed(attacks, "config", "threat", "budget").items():
        groups = _keyed(rows, "group")
        if len(groups) < len(rows):
            whole = sum(all(row["recovered"] for row in some) for some in groups.values())
            result.append({"config": config, "threat": threat, "budget": budget, "whole": whole, "groups": len(groups)})
    return result


def _radii(attacks: list[Row]) -> list[Row]:
    """Attacked and certified radii in units of ||h||: medians, and their ratio prompt by prompt."""
    shortest = [row for row in attacks if row["budget"] == "shortest"]
    result = []
    for (config, threat), rows in _keyed(shortest, "config", "threat").items():
        attacked = [row["attacked_radius"] / row["norm_h"] for row in rows if row.get("attacked_radius")]
        certified = [row["certified_radius"] / row["norm_h"] for row in rows if row.get("certified_radius")]
        both = [
            row["certified_radius"] / row["attacked_radius"]
            for row in rows
            if row.get("certified_radius") and row.get("attacked_radius")
        ]
        reasons = sorted({row["why_not_certified"] for row in rows if row.get("why_not_certified")})
        result.append(
            {
                "config": config,
                "threat": threat,
                "prompts": len(rows),
                "attacked": len(attacked),
                "median_attacked": _median(attacked),
                "certified": len(certified),
                "median_certified": _median(certified),
                "median_certified_over_attacked": _median(both),
                "certified_by": sorted({row["certified_by"] for row in rows if row.get("certified_by")}),
                "why_not_certified": reasons,
            }
        )
    return result


def _layers(attacks: list[Row]) -> list[Row]:
    """Several clamped layers: how well they are held, what that costs, and the radius certified at the last one."""
    shortest = [row for row in attacks if row["budget"] == "shortest"]
    alone = {(row["threat"], row["prompt"]): row for row in shortest if row["config"] == "base"}
    result = []
    several = [row for row in shortest if "last_norm" in row]
    for (config, threat), rows in _keyed(several, "config", "threat").items():
        found = [row for row in rows if row["recovered"]]
        pairs = [(row, alone.get((threat, row["prompt"]), {}).get("attacked_radius")) for row in found]
        moved = [row["last_displacement"] / row["last_norm"] for row in found]
        proved = [row["last_certified"] / row["last_norm"] for row in rows if row["last_certified"]]
        both = [row["last_certified"] / row["last_displacement"] for row in found if row["last_certified"]]
        result.append(
            {
                "config": config,
                "threat": threat,
                "prompts": len(rows),
                "recovered": len(found),
                "largest_violation": max((row["later_violation"] for row in found), default=None),
                "median_free_dimensions": _median([row["free_dimensions"] for row in rows]),
                "median_over_one_layer": _median([row["attacked_radius"] / one for row, one in pairs if one]),
                "median_last_displacement": _median(moved),
                "median_last_certified": _median(proved),
                "median_last_certified_over_displacement": _median(both),
            }
        )
    return result


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _ratio(attacks: list[Row], strict: str, loose: str) -> float | None:
    """Median over prompts of the shortest recovery under one restriction over that under another."""
    base = [row for row in attacks if row["budget"] == "shortest" and row["config"] == "base"]
    by_prompt = {
        threat: {row["prompt"]: row["attacked_radius"] for row in base if row["threat"] == threat}
        for threat in (strict, loose)
    }
    ratios = [
        radius / by_prompt[loose][prompt]
        for prompt, radius in by_prompt[strict].items()
        if radius and by_prompt[loose].get(prompt)
    ]
    return _median(ratios)


def _controls(rows: Sequence[Row]) -> list[Row]:
    controls = [row for row in rows if row["kind"] == "control"]
    result = []
    for (name, threat), some in _keyed(controls, "control", "threat").items():
        shares = [row["share"] for row in some if row.get("share") is not None]
        radii = [row["attacked_radius"] / row["norm_h"] for row in some if row.get("attacked_radius") is not None]
        result.append(
            {
                "control": name,
                "threat": threat,
                "mean_share": statistics.fmean(shares) if shares else None,
                "median_radius": _median(radii),
            }
        )
    return result


def _inputs(rows: Sequence[Row], seed: int) -> list[Row]:
    inputs = [row for row in rows if row["kind"] == "input"]
    return [
        {
            "threat": threat,
            "decided": all(row["decided"] for row in some),
            **_interval([row["recovered"] for row in some], some, seed),
        }
        for (threat,), some in _keyed(inputs, "threat").items()
    ]


def _replay(rows: Sequence[Row], seed: int) -> list[Row]:
    """How often a part of a recovery recovers alone, scaled to full length, and is not needed."""
    replays = [row for row in rows if row["kind"] == "replay"]
    result = []
    for (threat, part), some in _keyed(replays, "threat", "part").items():

        def share(name: str, of: list[Row] = some) -> Row:
            known: list[Row] = [row for row in of if row[name] is not None]
            return _interval([bool(row[name]) for row in known], known, seed)

        result.append(
            {
                "threat": threat,
                "part": part,
                "alone": share("alone"),
                "alone_matched": share("alone_matched"),
                "without": share("without"),
                "median_length_over_delta": _median([row["part_share"] for row in some]),
                "cancelling": sum(row["cancels"] for row in some),
            }
        )
    return result
