"""Tables and JSON of `sae-verify discover`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Interval = tuple[float, float]


def show(view: RenderableType, facts: dict[str, Any], *, as_json: bool) -> None:
    """Print the table, or everything as one JSON object."""
    if as_json:
        click.echo(json.dumps(plain(facts)))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(view)


def plain(value: Any) -> Any:
    """JSON-ready: dataclasses as objects, arrays as lists, numbers that are not finite as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(title: str, *columns: str, rows: Sequence[Sequence[str]], note: str = "") -> RenderableType:
    """A table whose first column is left-aligned; a note below it."""
    view = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        view.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        view.add_row(*(Text(cell) for cell in row))
    return Group(view, Text(" ".join(note.split()), style="dim")) if note else view


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.0%}"


def interval(value: Interval) -> str:
    """[low, high]; nothing where the sample says nothing."""
    return "" if any(math.isnan(v) for v in value) else f"[{value[0]:.3g}, {value[1]:.3g}]"


def contrast(rows: Sequence[Any]) -> RenderableType:
    """Rows of `Contrast.top`."""
    cells = [
        [
            str(r.feature),
            number(r.first),
            number(r.second),
            f"{share(r.first_firing)} / {share(r.second_firing)}",
            f"{number(r.difference)} {interval(r.difference_interval)}",
            f"{number(r.auroc)} {interval(r.auroc_interval)}",
            f"{number(r.effect)} {interval(r.effect_interval)}",
            "yes" if r.beyond_chance else "no",
        ]
        for r in rows
    ]
    note = """Intervals are 95%, for one feature named beforehand. Beyond chance: the AUROC is further from 1/2 than
    that of the best of all features when the prompts are shuffled, 95 times in 100."""
    names = ("feature", "first", "second", "on", "difference", "AUROC", "effect size", "beyond chance")
    return table("features by contrast", *names, rows=cells, note=note)


def attribution(facts: dict[str, Any]) -> RenderableType:
    """Rows of `FeatureAttribution.top`."""
    cells = [[str(r.feature), number(r.score), share(r.share), number(r.ablated)] for r in facts["features"]]
    note = f"""Mean readout {facts["readout"]:.3g}, without any feature {facts["without_features"]:.3g}; the scores of
    all features miss the difference by {facts["gap"]:.2g}. Ablated: what the real model loses without the feature."""
    return table("features by attribution", "feature", "score", "on", "ablated", rows=cells, note=note)


def alignment(facts: dict[str, Any]) -> RenderableType:
    """Rows of `aligned`, or of `promoted` in both directions."""
    if "features" in facts:
        cells = [[str(r.feature), number(r.cosine), number(r.standard)] for r in facts["features"]]
        return table("features by alignment", "feature", "cosine", "standard score", rows=cells)
    both = zip(facts["promoted"], facts["suppressed"], strict=True)
    cells = [[a.word, number(a.logit), b.word, number(b.logit)] for a, b in both]
    title = f"what feature {facts['feature']} writes towards"
    return table(title, "promoted", "logit", "suppressed", "logit", rows=cells)


def explanation(facts: dict[str, Any]) -> RenderableType:
    """Explanations, one table a pair, and the features that recur."""
    views: list[RenderableType] = []
    for i, one in enumerate(facts["pairs"], start=1):
        cells = [
            [str(c.feature), side, number(c.base), number(c.jailbroken), number(c.written), number(c.effect)]
            for side, changed in (("suppressed", one.suppressed), ("activated", one.activated))
            for c in changed
        ]
        note = f"""Readout {one.base:.3g} and jailbroken {one.jailbroken:.3g}; the last {one.positions} positions
        compared. Effect: share of that change which patching back undoes. All suppressed {one.all_suppressed:.2f}, all
        activated {one.all_activated:.2f}, all features {one.all_features:.2f}, the error term alone {one.error:.2f},
        everything {one.everything:.2f}."""
        names = ("feature", "side", "base", "jailbroken", "written", "effect")
        views.append(table(f"pair {i}", *names, rows=cells, note=note))
    if len(facts["pairs"]) > 1:
        cells = [[str(r.feature), str(r.suppressed), str(r.activated), number(r.effect)] for r in facts["recurring"]]
        views.append(table("recurring", "feature", "suppressed in", "activated in", "mean effect", rows=cells))
    return Group(*views)


def patching(found: Any, top: int) -> RenderableType:
    """Effects by layer, and the strongest components."""
    layers = len(found.grid("attention"))
    heads = found.grid("head") if any(c.kind == "head" for c in found.components) else np.zeros((layers, 0))
    attention, mlp = found.grid("attention"), found.grid("mlp")
    cells = [
        [str(layer), f"{attention[layer]:.2f}", f"{mlp[layer]:.2f}", *(f"{effect:.2f}" for effect in heads[layer])]
        for layer in range(layers)
    ]
    strongest = ", ".join(f"{component} {effect:.2f}" for component, effect in found.top(top))
    note = f"""Mean over {len(found.clean)} pairs: 0 leaves the corrupt readout, 1 restores the clean one. Strongest:
    {strongest}."""
    names = ("layer", "attention", "mlp", *(f"head {h}" for h in range(heads.shape[1])))
    return table("normalised effect of patching", *names, rows=cells, note=note)


def triggers(rows: Sequence[Any]) -> RenderableType:
    """Rows of `triggers`."""
    cells = [
        [
            str(r.feature),
            f"{share(r.triggered)} {interval(r.triggered_interval)}",
            f"{share(r.clean)} {interval(r.clean_interval)}",
            share(r.decoy),
            number(r.activation),
            "yes" if r.beyond_chance else "no",
            number(r.effect),
        ]
        for r in rows
    ]
    names = ("feature", "triggered", "clean", "decoy", "activation", "beyond chance", "effect")
    note = "Firing rates with exact 95% intervals. Beyond chance: apart also when every feature is looked at."
    return table("trigger-only features", *names, rows=cells, note=note)


def sleepers(rows: Sequence[Any]) -> RenderableType:
    """Rows of `sleepers`."""
    cells = [[str(r.feature), number(r.cosine), number(r.effect), share(r.flipped)] for r in rows]
    return table("silent features", "feature", "cosine", "effect when on", "prompts flipped", rows=cells)


def monitor(facts: dict[str, Any]) -> RenderableType:
    """How each detector did on the attack and on evading perturbations."""
    cells = [
        [
            a.name,
            f"{share(a.false_alarms)} {interval(a.false_alarms_interval)}",
            f"{number(a.auroc)} {interval(a.auroc_interval)}",
            share(a.detected),
            f"{number(b.auroc)} {interval(b.auroc_interval)}",
            share(b.detected),
        ]
        for a, b in zip(facts["attacked"], facts["evading"], strict=True)
    ]
    note = f"""{facts["recovered"]} of {facts["prompts"]} prompts recovered; {facts["evaded"]} of these also by a
    perturbation below every threshold, replayed on the real model."""
    names = ("detector", "false alarms", "AUROC", "detected", "AUROC, evading", "detected, evading")
    return table("monitor", *names, rows=cells, note=note)


def tradeoff(facts: dict[str, Any]) -> RenderableType:
    """Behaviour against capability."""
    cells = [
        [
            name,
            f"{share(p.behaviour)} {interval(p.behaviour_interval)}",
            f"{share(p.capability)} {interval(p.capability_interval)}",
            number(p.divergence),
            share(p.acted),
        ]
        for name, p in (("plain", facts["plain"]), *((f"{p.strength:g}", p) for p in facts["points"]))
    ]
    names = ("clamp value", "behaviour", "capability", "divergence", "acted on benign")
    return table("what the clamp costs", *names, rows=cells)


def parts(facts: dict[str, Any]) -> RenderableType:
    """How often parts of recoveries recover alone, and how often they are not needed."""
    rows = facts["prompts"]
    cells = [
        [
            s.name,
            number(float(np.mean([one.part(s.name).share for one in rows])), 2),
            f"{s.alone} / {s.of}",
            f"{s.alone_matched} / {s.alone_matched_of}",
            f"{s.without} / {s.of}",
            f"{s.without_matched} / {s.without_matched_of}",
        ]
        for s in facts["shares"]
    ]
    warned = [one for one in rows if one.warning]
    note = "Recoveries by the part alone, and by the perturbation without it; matched: scaled to the same length."
    if warned:
        note += f" Prompt {warned[0].prompt} and {len(warned) - 1} others: {warned[0].warning}."
    names = ("part", "length", "alone", "alone, matched", "without", "without, matched")
    return table("parts of the recoveries", *names, rows=cells, note=note)
