"""A statement file: read strictly, matched with the user's weights, every step proved.

Specified in theory/statement_format.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arithmetic import Array
from ..errors import Rejected
from ..files import digest_json, regular, strict_json
from ..reader import Reader
from ..weights import load_weights
from . import (
    cell_bounded,
    cell_size,
    cell_unbounded,
    cone_distance,
    cone_member,
    linear,
    quadratic,
    rank,
    singular,
    sparse_distance,
    whole_cone,
)
from .subject import Kind, Statement, Subject

FORMAT = "sae_verify statements"
VERSION = 1
SEMANTICS = "exact real arithmetic on the stored weights and the recorded residuals"
MAX_BYTES = 256 * 2**20
"""A larger file is refused unread."""
HEAD = 200
"""Bytes in which a file names its format."""
MAX_STEPS = 4096
MAX_POINTS = 4096

KINDS: dict[str, Kind] = {
    "linear-worst-case": linear.KIND,
    "quadratic": quadratic.KIND,
    "rank": rank.KIND,
    "singular-values": singular.KIND,
    "cone-member": cone_member.KIND,
    "cone-distance": cone_distance.KIND,
    "sparse-distance": sparse_distance.KIND,
    "whole-cone": whole_cone.KIND,
    "cell-inner-radius": cell_size.KIND,
    "cell-bounded": cell_bounded.KIND,
    "cell-unbounded": cell_unbounded.KIND,
}
"""Every kind of step; one file of this package each."""


@dataclass(frozen=True)
class Accepted:
    """An accepted file: what is proved, of which weights (by digest)."""

    sae: str
    statements: tuple[Statement, ...]


def is_statement_file(path: Path | str) -> bool:
    """Whether a file presents itself as statements rather than as a certificate; either is then read strictly."""
    try:
        with regular(Path(path)).open("rb") as file:
            return FORMAT.encode() in file.read(HEAD)
    except (OSError, Rejected):
        return False


def check_statements(path: Path | str, *, sae: Path | str | None = None) -> Accepted:
    """Check one statement file against weights on disk.

    Args:
        path: the file.
        sae: the SAE's files; None takes the path recorded in the file, relative to it.

    Raises:
        Rejected: the file, the weights or any step of it is not accepted.

    """
    try:
        digest, subject, steps = read_statements(Path(path), None if sae is None else Path(sae))
        return Accepted(digest, tuple(prove(subject, step, f"steps[{i}]") for i, step in enumerate(steps)))
    except Rejected:
        raise
    except Exception as error:  # hostile bytes find ways that nobody thought of; none of them is acceptance
        raise Rejected(f"cannot be checked ({type(error).__name__}: {str(error)[:200]})") from error


def read_statements(path: Path, sae: Path | None) -> tuple[str, Subject, list[Any]]:
    """The weights' digest, what the steps speak of, and the steps as parsed, none of them proved yet."""
    with regular(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Rejected(f"more than the {MAX_BYTES} bytes a statement file may have")
    content = strict_json(data, path.name)
    top = Reader(content, "file", ("format", "version", "tool", "semantics", "sae", "points", "steps", "sha256"))
    if top.raw("format") != FORMAT or top.raw("version") != VERSION or isinstance(top.raw("version"), bool):
        raise Rejected(f"the format and version are not {FORMAT!r} {VERSION}")
    if top.raw("semantics") != SEMANTICS:
        raise Rejected("the semantics are not those of this version")
    if top.text("sha256") != digest_json({key: value for key, value in content.items() if key != "sha256"}):
        raise Rejected("the file was edited: its SHA-256 does not match its content")
    named = Reader(top.raw("sae"), "sae", ("path", "sha256", "input_scale"))
    scale = None if named.raw("input_scale") is None else named.number("input_scale")
    place = path.parent / named.text("path") if sae is None else sae
    if not place.exists():
        raise Rejected(f"the SAE is not at {str(place)[:300]}; say where it is with --sae")
    weights = load_weights(place, scale)
    if weights.digest != named.text("sha256"):
        raise Rejected(
            f"the SAE's weights are {weights.digest[:16]}, and the file speaks of {named.text('sha256')[:16]}"
        )
    subject = Subject(weights, _points(top, weights.W_enc.shape[0]), path.parent)
    steps = top.raw("steps")
    if not isinstance(steps, list) or not 0 < len(steps) <= MAX_STEPS:
        raise top.fail("steps", f"must be a list of 1 to {MAX_STEPS}")
    if len({digest_json(step) for step in steps}) != len(steps):  # each may cost a pass over the weights, or d^3
        raise Rejected("a step is repeated")
    return weights.digest, subject, steps


def _points(top: Reader, d: int) -> Array:
    if isinstance(top.raw("points"), list) and len(top.raw("points")) > MAX_POINTS:
        raise Rejected(f"more than the {MAX_POINTS} points a statement file may have")
    return top.matrix("points", d)


def prove(subject: Subject, step: Any, where: str) -> Statement:
    """Prove one step, or say why not."""
    name = step.get("kind") if isinstance(step, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Rejected(f"{where}: the kind {str(name)[:40]!r} is not known")
    reader = Reader(step, where, ("kind", "theorem", *kind.keys))
    if reader.text("theorem") != kind.theorem:
        raise reader.fail("theorem", f"must be {kind.theorem}")
    with np.errstate(all="ignore"):  # overflow and NaN end in a comparison that rejects
        text, values = kind.prove(subject, reader)
    return Statement(str(name), kind.theorem, text, values)
