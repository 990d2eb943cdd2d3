"""Writes problem files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from examples.training.grammar import Example
from sae_verify.problem import Clamp


def write_problem(
    path: Path,
    title: str,
    sae: str,
    hook: str,
    clamp: Clamp,
    examples: Sequence[Example],
    *,
    radius: float,
    held: str = "code",
    at: str = "x",
    features: Sequence[int] | None = None,
) -> None:
    """Write one problem in the format of `sae_verify.problem_file`; the model is in the file's own directory."""
    lines = [
        f"title = {json.dumps(title)}",
        "",
        "[model]",
        'path = "."',
        "",
        "[sae]",
        f'path = "{sae}"',
        f'hook = "{hook}"',
        "",
        "[clamp]",
        f'kind = "{clamp.kind}"',
        f"features = {list(clamp.features)}",
        f"value = {clamp.values[0]}",
        f'positions = "{clamp.positions}"',
        "",
        "[threat]",
        f'held = "{held}"',
        f'at = "{at}"',
        *([f"features = {list(features)}"] if features else []),
        f"radius = {radius}",
        'relative_to = "h"',
        "",
        "[claim]",
        "at_most = 0.0",
    ]
    for example in examples:
        readout = f'kind = "logit-difference", positive = "{example.positive}", negative = "{example.negative}"'
        lines += ["", "[[prompt]]", f"text = {json.dumps(example.prompt)}", f"readout = {{ {readout} }}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
