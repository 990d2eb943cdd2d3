"""An inspection as one terminal screen and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sae_verify.geometry.inspect_tokens import ClampReport, TokenReport

SHORT = {True: 22, False: 12}
"""Characters of a prompt that are shown on a wide and on a narrow screen: its end, which is what is read."""


def token_json(token: TokenReport) -> dict[str, Any]:
    """One prompt, JSON-ready; lengths are absolute, infinities null."""
    return {
        "prompt": token.prompt,
        "readout": token.readout,
        "readout_base": token.base,
        "norm_x": float(np.linalg.norm(token.x)),
        "active_features": token.active,
        "error_share": token.error_share,
        "free_dimensions": token.free_dimensions,
        "unreachable_dimensions": token.unreachable_dimensions,
        "gradient_share_free": token.gradient_free,
        "gradient_share_unreachable": token.gradient_unreachable,
        "inner_radius": token.distances[0] if token.distances else None,
        "nearest_features": list(token.nearest),
        "nearest_distances": list(token.distances),
        "cell": token.recession.verdict,
        "outer_radius": token.recession.radius,
        "ball": token.shape.norm,
        "radius": token.radius,
        "worst_first_order_change": token.worst,
        "thresholds_that_bind": sum(len(features) for features, _ in token.optimum.upper),
        "clamp": None if token.clamp is None else _clamp_json(token.clamp),
    }


def _clamp_json(clamp: ClampReport) -> dict[str, Any]:
    back = clamp.restore
    return {
        "effect": clamp.effect.norm,
        "norm_h": clamp.effect.norm_h,
        "norm_e": clamp.effect.norm_e,
        "readout_clamped": clamp.clamped,
        "first_order_readout_change": clamp.counterable.readout,
        "undo_admissible": clamp.undo.admissible,
        "undo_remaining_share": clamp.undo.remaining_share,
        "counterable_share": clamp.counterable.vector,
        "counterable_readout_share": clamp.counterable.along,
        "first_order_restore_radius": None if back is None else back.norm,
        "first_order_restore_radius_at_least": None if back is None or math.isinf(back.lower) else back.lower,
        "first_order_restore_impossible": back is not None and math.isinf(back.lower),
        "closing_features": clamp.closing.features.tolist(),
        "closing_shares": clamp.closing.shares.tolist(),
        "closing_at_least": clamp.closing.at_least,
        "closed": clamp.closing.closed,
    }


def screen(facts: dict[str, Any], tokens: Sequence[TokenReport], *, wide: bool = True) -> RenderableType:
    """Everything on one screen; the narrow form, for less than 130 columns, leaves some columns out."""
    parts: list[RenderableType] = [_facts(facts)]
    if tokens:
        parts.append(_tokens(tokens, wide=wide))
    if any(token.clamp for token in tokens):
        parts.append(_clamps(tokens, wide=wide))
    if tokens:
        notes = [LEGEND, *([CLAMP_LEGEND] if any(token.clamp for token in tokens) else [])]
        parts += [Text(" ".join(note.split()), style="dim") for note in notes]
    return Group(*parts)


def _facts(facts: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    low, high = facts["decoder_row_norms"]
    kind = facts["architecture"] + (f" (k={facts['k']})" if "k" in facts else "")
    size = f"{facts['features']} features in {facts['width']} dimensions"
    place = f"{facts['path']} at {facts['hook']} of {facts['model']}"
    meaning = "no setting of features produces or cancels"
    cone = _cone(facts["non_negative_codes_reach_everything"], facts["code_sum_a_unit_length"])
    rows = [
        ("SAE", f"{kind}, {size}, {facts['format']}, normalisation {facts['normalisation']}"),
        ("", place),
        ("rows", f"decoder row norms {low:.4g} to {high:.4g}, {facts['zero_features']} of them zero"),
        ("decoder", _spectrum(facts["decoder"], facts["width"], "unreachable", meaning)),
        ("encoder", _spectrum(facts["encoder"], facts["width"], "unseen", "the features do not see")),
        ("cone", cone),
    ]
    if "angles_unreachable_to_unseen" in facts:
        first, last = facts["angles_unreachable_to_unseen"]
        rows.append(("angles", f"unreachable to unseen dimensions: {first:.1f} to {last:.1f} degrees"))
    for name, text in rows:
        grid.add_row(name, Text(text))
    return grid


def _cone(whole: bool | None, total: float | None) -> str:
    if whole is None:
        return "undecided in floats whether non-negative codes reach every vector"
    if not whole:
        return "some vectors are no non-negative code's reconstruction"
    cost = "" if total is None else f", with a code sum of at most {total:.4g} a unit of length"
    return f"every vector is a non-negative code's reconstruction{cost}"


def _spectrum(matrix: dict[str, Any], width: int, name: str, meaning: str) -> str:
    missing = matrix[f"{name}_dimensions"]
    head = f"rank {matrix['rank']} of {width}, effective rank {matrix['effective_rank']:.1f}, "
    kept = matrix["smallest_singular_value_kept"]
    head += f"singular values {matrix['largest_singular_value']:.4g} to {kept:.4g}" if kept is not None else "all zero"
    if not missing:
        return f"{head}; nothing is {name}"
    return f"{head}; {missing} {name} dimensions, which {meaning} (<= {matrix['largest_singular_value_dropped']:.2g})"


def _tokens(tokens: Sequence[TokenReport], *, wide: bool) -> Table:
    share = tokens[0].radius / (float(np.linalg.norm(tokens[0].x)) or 1.0)
    within = {"l2": f"{share:.3g}", "linf": "the box", "ellipsoid": "the error's ellipsoid"}[tokens[0].shape.norm]
    title = f"code held at the last position (radii in ‖x‖); last three: worst first-order change within {within}"
    start = ("readout", "on", "‖e‖/‖x‖", "free dims", "∇ free", "∇ unreach.", "inner r", "first") if wide else ()
    names = (*(start or ("on", "e/x", "dims", "inner r")), "outer r", "none", "pre-acts", "code")
    table = _table(title, names)
    for token in tokens:
        size = float(np.linalg.norm(token.x)) or 1.0
        outer, worst = token.recession.radius, token.worst
        inner = f"{token.distances[0] / size:.2g}" if token.distances else "∞"
        first = ", ".join(map(str, token.nearest[:2])) or "–"
        cell = {"bounded": "", "unbounded": "∞", "undecided": "?"}[token.recession.verdict]
        cell = cell if outer is None else f"{outer / size:.3g}"
        shares = (f"{token.gradient_free:.2f}", f"{token.gradient_unreachable:.2f}")
        table.add_row(
            _short(token.prompt, wide=wide),
            *((Text(token.readout),) if wide else ()),
            str(token.active),
            f"{token.error_share:.2f}",
            str(token.free_dimensions),
            *(shares if wide else ()),
            inner,
            *((first,) if wide else ()),
            cell,
            *(f"{worst[held]:.3g}" for held in ("free", "preactivations", "code")),
        )
    return table


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("prompt", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _clamps(tokens: Sequence[TokenReport], *, wide: bool) -> Table:
    names = ("‖h - x‖", "base", "clamped", "1st order", "counter.", "undo", "restore ≈", "closing set")
    if not wide:
        names = ("base", "clamped", "counter.", "undo", "restore≈", "closing")
    table = _table("the clamp, with the code held; to first order but for the readouts base and clamped", names)
    for token in tokens:
        clamp = token.clamp
        assert clamp is not None
        size = float(np.linalg.norm(token.x)) or 1.0
        change = (f"{clamp.counterable.readout:+.3g}",)
        table.add_row(
            _short(token.prompt, wide=wide),
            *((f"{clamp.effect.norm / size:.3f}",) if wide else ()),
            f"{token.base:.3g}",
            f"{clamp.clamped:.3g}",
            *(change if wide else ()),
            f"{clamp.counterable.vector:.2f}" if clamp.effect.norm else "no effect",
            "possible" if clamp.undo.admissible else f"{clamp.undo.remaining_share:.0%} stays",
            _restore(clamp),
            _closing(clamp, wide=wide),
        )
    return table


LEGEND = """\
on: active features. dims: what their pre-activations leave free; ∇ free, ∇ unreach.: share of the readout's
gradient (at h, or at x without a clamp) in these, and orthogonal to the active decoder rows. inner r: nearest
threshold, of the features `first`; outer r: of a ball that contains the cell (∞: it never ends). none, pre-acts
, code: largest first-order change of the readout with that held. effective rank: exp of the entropy of
the singular values."""
CLAMP_LEGEND = """\
base, clamped: the readout as the model ran. counter.: share of h - x that no held pre-activation protects.
undo: how much of h - x stays after the best admissible perturbation. restore: radius that raises the linear
readout by base - clamped; the model may need less: see `certify`. closing set: features that would have to be
held as well, and the share of the first-order effect they leave (greedy; at most 8)."""


def _restore(clamp: ClampReport) -> str:
    back = clamp.restore
    if back is None:
        return "not lowered"
    if back.norm is None:
        return "never" if math.isinf(back.lower) else f"> {back.lower / clamp.effect.norm_h:.3g} ‖h‖"
    return f"{back.in_h:.3g} ‖h‖"


def _closing(clamp: ClampReport, *, wide: bool) -> str:
    features, left = clamp.closing.features.tolist(), float(clamp.closing.shares[-1])
    named = " ".join(map(str, features[:3])) + ("…" if len(features) > 3 else "")
    count = str(len(features))
    if clamp.closing.closed:
        many = count if clamp.closing.smallest else f"{clamp.closing.at_least} to {count}"
    else:
        many = f"{count} leave {left:.0%}"
    return f"{named}: {many}" if wide and features else many


def _short(prompt: str, *, wide: bool) -> Text:
    line, most = " ".join(prompt.split()), SHORT[wide]
    return Text(line if len(line) <= most else "…" + line[1 - most :])
