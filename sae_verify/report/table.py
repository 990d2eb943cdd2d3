"""Results as a terminal table and as JSON objects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from sae_verify.verdict import Result, Undecided, Unsupported

STYLES = {"certified": "green", "refuted": "red", "undecided": "yellow", "unsupported": "magenta"}


def as_json(result: Result) -> dict[str, Any]:
    """One JSON-ready object a result; infinities and missing numbers are null."""
    radius = result.radius
    return {
        "case": result.case,
        "prompt": result.prompt,
        "held": result.held,
        "verdict": result.verdict.name,
        "reason": _reason(result),
        "readout_base": _number(result.readout_base),
        "readout_defended": _number(result.readout_defended),
        "lower": _number(result.lower),
        "upper": _number(result.upper),
        "radius": {
            "certified": _number(radius.certified),
            "certified_every": radius.certified == math.inf,
            "attacked": _number(radius.attacked),
            "norm_h": _number(radius.norm_h),
            "norm_e": _number(radius.norm_e),
        },
        "trivial": result.trivial,
        "certificate": None if result.certificate is None else str(result.certificate),
        "digest": result.digest,
        "run": {"dtype": result.run_dtype, "gap": _number(result.run_gap)},
        "seconds": round(result.seconds, 4),
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _reason(result: Result) -> str:
    verdict = result.verdict
    if isinstance(verdict, (Undecided, Unsupported)):
        return verdict.reason
    if verdict.name == "certified":
        trivial = "; trivial: the held equalities leave only delta = 0" if result.trivial else ""
        return f"the checker accepted a proof that readout <= {verdict.report.upper:.6g}{trivial}"
    if result.readout_defended > verdict.report.at_most:
        return f"the claim fails without any perturbation: the clamped model's readout is {result.readout_defended:.6g}"
    return f"replayed on the real model, an admissible perturbation reaches {result.lower:.6g}"


def table(title: str, results: Iterable[Result], *, wide: bool = True) -> Table:
    """A table of one case; a narrow one leaves out what matters less than the verdict.

    The radius columns bracket the smallest recovering radius: certified up to the first, attacked at the second number.
    """
    results = list(results)
    held = results[0].held if results else ""
    view = Table(title=f"{title} · held: {held}", title_justify="left", title_style="bold")
    prompt = 34 if wide else 9
    view.add_column("prompt", no_wrap=True, width=prompt)
    extra = ("base", "radius / ‖e‖", "s")
    for name in ("base", "clamped", "worst case", "radius / ‖h‖", "radius / ‖e‖", "verdict", "s"):
        if name == "verdict":
            view.add_column(name, no_wrap=True, min_width=9)
        elif wide or name not in extra:
            view.add_column(name, no_wrap=True, justify="right")
    for result in results:
        name = result.verdict.name
        cells = {
            "base": f"{result.readout_base:.2f}",
            "clamped": f"{result.readout_defended:.2f}",
            "worst case": bracket(result.lower, result.upper, 1.0),
            "radius / ‖h‖": bracket(result.radius.certified, result.radius.attacked, result.radius.norm_h),
            "radius / ‖e‖": bracket(result.radius.certified, result.radius.attacked, result.radius.norm_e),
            "verdict": Text(
                name + (" (trivial)" if result.trivial and name == "certified" else ""), style=STYLES[name]
            ),
            "s": f"{result.seconds:.2f}",
        }
        shown = [cell for name, cell in cells.items() if wide or name not in extra]
        view.add_row(_tail_of(result.prompt, prompt), *shown)
    return view


def bracket(low: float | None, high: float | None, unit: float) -> str:
    """`[low, high]` in a unit, four digits; a dash for what is not known."""

    def shown(value: float | None) -> str:
        if value is None or math.isnan(value):
            return "–"
        return "∞" if math.isinf(value) else f"{value / unit:.4g}"

    return f"[{shown(low)}, {shown(high)}]"


def _tail_of(prompt: str, width: int) -> str:
    """The end of a prompt, where the readout is."""
    return prompt if len(prompt) <= width else "…" + prompt[-(width - 1) :]
