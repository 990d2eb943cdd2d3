"""The certificate file, version 2: a strict reader into frozen data. Specified in theory/certificate_format.md.

Unknown or missing keys, wrong types, non-finite numbers and repeated features are rejections. Reading checks shape,
not truth: what the numbers prove is decided in the other files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arithmetic import Array
from .errors import Rejected
from .files import digest_json, regular, strict_json
from .multipliers import Multipliers, read_multipliers
from .reader import Reader

FORMAT = "sae_verify certificate"
VERSION = 2
MAX_BYTES = 32 * 2**20
"""A larger certificate is refused unread."""
MAX_STEPS = 32
"""Bounds, and witnesses, that one certificate may have; each costs about one pass over the weights."""

SEMANTICS = "exact real arithmetic on the stored weights and the recorded residuals"


@dataclass(frozen=True)
class Clamp:
    """What is written into the code."""

    kind: str
    features: tuple[int, ...]
    values: tuple[float, ...]
    positions: str | tuple[int, ...]

    def here(self, length: int) -> bool:
        """Whether the clamp acts at the last of `length` positions."""
        return self.positions in ("all", "last") or length - 1 in self.positions  # type: ignore[operator]


@dataclass(frozen=True)
class Threat:
    """Which perturbations are admissible."""

    radius: float
    relative_to: str
    held: str
    at: str
    features: tuple[int, ...] | None
    drift: float | None = None
    positions: int = 1


@dataclass(frozen=True)
class Readout:
    """`logit-difference` of positive and negative, or `token-against-all` of positive (negative is None)."""

    kind: str
    positive: int
    negative: int | None


@dataclass(frozen=True)
class Problem:
    """The claim and everything it depends on, except the weights."""

    hook: str
    layer: int
    site: str
    tokens: tuple[int, ...]
    clamp: Clamp
    threat: Threat
    readout: Readout
    at_most: float


@dataclass(frozen=True, eq=False)
class BoundStep:
    """One claimed bound: readout <= value for every admissible delta within `radius` (absolute; None: every radius).

    `regions` is a tree as JSON data, read when it is checked, or None. `weight` is that of a drift, or None.
    """

    method: str
    theorem: str
    radius: float | None
    value: float
    against: int | None
    multipliers: Multipliers
    tangent: Array | None
    secant: float | None
    mean: float | None
    regions: Any
    weight: float | None = None


@dataclass(frozen=True, eq=False)
class WitnessStep:
    """A perturbation, one position after another, and what a run of the real model gave with it."""

    delta: Array
    replay: float
    dtype: str


@dataclass(frozen=True, eq=False)
class Certificate:
    """A parsed certificate file; `context` (T - 1, d) has the residuals of the earlier positions, or no rows."""

    tool: str
    sae_path: str
    sae_digest: str
    input_scale: float | None
    model_path: str
    model_digest: str
    problem: Problem
    x: Array
    context: Array
    bounds: tuple[BoundStep, ...]
    witnesses: tuple[WitnessStep, ...]
    digest: str


def read_certificate(path: Path) -> Certificate:
    """Parse and validate one file.

    Raises:
        Rejected: the file is not a well-formed certificate of this version, or was edited after it was written.

    """
    try:
        with regular(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Rejected(f"cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise Rejected(f"more than the {MAX_BYTES} bytes a certificate may have")
    return parse_certificate(strict_json(data, path.name))


def parse_certificate(content: Any) -> Certificate:
    """The same from parsed JSON."""
    keys = (
        "format",
        "version",
        "tool",
        "semantics",
        "weights",
        "problem",
        "x",
        "context",
        "bounds",
        "witnesses",
        "digest",
        "sha256",
    )
    top = Reader(content, "certificate", keys)
    if top.raw("format") != FORMAT or top.raw("version") != VERSION or isinstance(top.raw("version"), bool):
        raise Rejected(f"the format and version are not {FORMAT!r} {VERSION}")
    if top.raw("semantics") != SEMANTICS:
        raise Rejected("the semantics are not those of this version")
    unsigned = {key: value for key, value in content.items() if key != "sha256"}
    if top.text("sha256") != digest_json(unsigned):
        raise Rejected("the file was edited: its SHA-256 does not match its content")
    weights = Reader(top.raw("weights"), "weights", ("sae", "model"))
    sae = Reader(weights.raw("sae"), "weights.sae", ("path", "sha256", "input_scale"))
    model = Reader(weights.raw("model"), "weights.model", ("path", "sha256"))
    identity = {
        "problem": content["problem"],
        "x": content["x"],
        "context": content["context"],
        "sae": sae.text("sha256"),
        "input_scale": sae.raw("input_scale"),
        "model": model.text("sha256"),
    }
    if top.text("digest") != digest_json(identity):
        raise Rejected("the digest does not belong to this problem and these weights")
    for name in ("bounds", "witnesses"):
        if not isinstance(top.raw(name), list) or len(top.raw(name)) > MAX_STEPS:
            raise top.fail(name, f"must be a list of at most {MAX_STEPS}")
    return Certificate(
        tool=top.text("tool"),
        sae_path=sae.text("path"),
        sae_digest=sae.text("sha256"),
        input_scale=None if sae.raw("input_scale") is None else sae.number("input_scale"),
        model_path=model.text("path"),
        model_digest=model.text("sha256"),
        problem=_problem(top.raw("problem")),
        x=top.numbers("x"),
        context=_context(top),
        bounds=tuple(_bound(value, f"bounds[{i}]") for i, value in enumerate(top.raw("bounds"))),
        witnesses=tuple(_witness(value, f"witnesses[{i}]") for i, value in enumerate(top.raw("witnesses"))),
        digest=top.text("digest"),
    )


def _problem(value: Any) -> Problem:
    top = Reader(value, "problem", ("hook", "tokens", "text", "clamp", "threat", "readout", "at_most"))
    top.text("text")
    hook = re.fullmatch(r"blocks\.(0|[1-9][0-9]{0,5})\.hook_(resid_pre|resid_post)", top.text("hook"))
    if hook is None:
        raise top.fail("hook", "must name a residual stream")
    clamp = Reader(top.raw("clamp"), "problem.clamp", ("kind", "features", "values", "positions"))
    positions = clamp.raw("positions")
    parsed = Clamp(
        kind=clamp.text("kind", ("set", "scale", "set-if-active", "add", "drop-error")),
        features=clamp.features("features"),
        values=tuple(clamp.numbers("values").tolist()),
        positions=positions if positions in ("all", "last") else clamp.integers("positions"),
    )
    if len(parsed.features) != len(parsed.values):
        raise clamp.fail("values", "must be one a feature")
    if not parsed.features and parsed.kind != "drop-error":
        raise clamp.fail("features", "must not be empty")
    if isinstance(parsed.positions, tuple) and not 0 < len(parsed.positions) == len(set(parsed.positions)):
        raise clamp.fail("positions", "must not be empty or repeat a position")
    given = top.raw("threat") if isinstance(top.raw("threat"), dict) else {}
    drifts, several = "drift" in given, "positions" in given
    optional = [key for key in ("drift", "positions") if key in given]
    keys = ("radius", "relative_to", "held", "at", "features", *optional)
    threat = Reader(top.raw("threat"), "problem.threat", keys)
    radius = threat.number("radius")
    if radius < 0:
        raise threat.fail("radius", "must not be negative")
    held = threat.text("held", ("free", "preactivations", "defended", "code", "unreachable", "drift"))
    if drifts != (held == "drift") or (drifts and (several or threat.number("drift") < 0)):
        raise threat.fail("held", "goes with a drift that is not negative, at one position, or with none")
    chosen = None if threat.raw("features") is None else threat.features("features")
    if chosen is not None and (held in ("free", "code") or not chosen):
        raise threat.fail("features", f"must be null, or for held={held!r} name what is held")
    readout = Reader(top.raw("readout"), "problem.readout", ("kind", "positive", "negative"))
    kind = readout.text("kind", ("logit-difference", "token-against-all"))
    tokens = top.integers("tokens")
    if not tokens:
        raise top.fail("tokens", "must not be empty")
    if several and not 2 <= threat.integer("positions") <= len(tokens):
        raise threat.fail("positions", f"must be left out or an integer from 2 to the {len(tokens)} of the prompt")
    return Problem(
        hook=top.text("hook"),
        layer=int(hook[1]),
        site=hook[2],
        tokens=tokens,
        clamp=parsed,
        threat=Threat(
            radius=radius,
            relative_to=threat.text("relative_to", ("absolute", "h", "e")),
            held=held,
            at=threat.text("at", ("x", "h", "both")),
            features=chosen,
            drift=threat.number("drift") if drifts else None,
            positions=threat.integer("positions") if several else 1,
        ),
        readout=Readout(
            kind=kind,
            positive=readout.integer("positive"),
            negative=readout.integer("negative") if kind == "logit-difference" else _null(readout, "negative"),
        ),
        at_most=top.number("at_most"),
    )


def _context(top: Reader) -> Array:
    """One row an earlier position, each as long as x; or no rows at all."""
    rows, width = top.raw("context"), len(top.numbers("x"))
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == width for row in rows):
        raise top.fail("context", f"must be a list of rows of {width} numbers")
    flat = [number for row in rows for number in row]
    return Reader({"context": flat}, "certificate", ("context",)).numbers("context").reshape(len(rows), width)


def _null(reader: Reader, key: str) -> None:
    if reader.raw(key) is not None:
        raise reader.fail(key, "must be null")


def _bound(value: Any, where: str) -> BoundStep:
    keys = ("method", "theorem", "radius", "value", "against", "multipliers", "tangent", "secant", "mean", "regions")
    weighs = isinstance(value, dict) and "weight" in value
    step = Reader(value, where, (*keys, "weight") if weighs else keys)
    if weighs and step.number("weight") < 0:
        raise step.fail("weight", "must not be negative")
    radius = None if step.raw("radius") is None else step.number("radius")
    if radius is not None and radius < 0:
        raise step.fail("radius", "must not be negative")
    return BoundStep(
        method=step.text("method"),
        theorem=step.text("theorem"),
        radius=radius,
        value=step.number("value"),
        against=None if step.raw("against") is None else step.integer("against"),
        multipliers=read_multipliers(step.raw("multipliers"), f"{where}.multipliers"),
        tangent=None if step.raw("tangent") is None else step.numbers("tangent"),
        secant=None if step.raw("secant") is None else step.number("secant"),
        mean=None if step.raw("mean") is None else step.number("mean"),
        regions=step.raw("regions"),
        weight=step.number("weight") if weighs else None,
    )


def _witness(value: Any, where: str) -> WitnessStep:
    step = Reader(value, where, ("delta", "replay", "dtype"))
    return WitnessStep(delta=step.numbers("delta"), replay=step.number("replay"), dtype=step.text("dtype"))
