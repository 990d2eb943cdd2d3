"""problem.toml: a problem as a file. Every key is checked; errors name the key, the value and the rule."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_verify.errors import InputError, ProblemFileError, SaeVerifyError
from sae_verify.model import Model, load_model
from sae_verify.problem import (
    AtMost,
    Clamp,
    ErrorBall,
    LogitDifference,
    Problem,
    Readout,
    TokenAgainstAll,
)
from sae_verify.sae import SAE, load_sae


@dataclass(frozen=True)
class _Table:
    """One TOML table: typed access, and a check that nothing else is there."""

    values: dict[str, Any]
    name: str

    def fail(self, key: str, rule: str) -> ProblemFileError:
        shown = repr(self.values[key])[:80] if key in self.values else "missing"
        return ProblemFileError(
            f"{self.name}{key} is {shown}", rule=rule, remedy="the keys are listed by `sae-verify certify --help`"
        )

    def only(self, *keys: str) -> None:
        for key in self.values:
            if key not in keys:
                raise self.fail(key, f"it is not a key here; known are {', '.join(keys)}")

    def table(self, key: str) -> _Table:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.fail(key, "it must be a table")
        return _Table(value, f"{self.name}{key}.")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.fail(key, "it must be a non-empty string")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(key, "it must be a number")
        return float(value)

    def items(self, key: str, kinds: tuple[type, ...], rule: str) -> list[Any]:
        value = self.values.get(key)
        if not isinstance(value, list) or any(isinstance(v, bool) or not isinstance(v, kinds) for v in value):
            raise self.fail(key, rule)
        return value


def load_problem(path: Path | str) -> Problem:
    """Read problem.toml and load its model and SAE; paths are relative to the file.

    Raises:
        ProblemFileError: the file is missing, is not TOML, or a key is unknown, missing or has a wrong value.
        InputError and its kinds: what it refers to is missing or does not fit.

    """
    path = Path(path)
    top = _Table(_read(path, "a problem is a TOML file"), "")
    top.only("title", "model", "sae", "clamp", "threat", "claim", "prompt")
    clamp, threat = _clamp(top.table("clamp")), _threat(top.table("threat"))
    claim = top.table("claim")
    claim.only("at_most")
    prompts, readouts = _prompts(top)
    sae, model = top.table("sae"), top.table("model")
    model.only("path")
    return Problem(
        model=_model(path.parent, model.text("path")),
        sae=_sae(path.parent, sae),
        prompts=prompts,
        clamp=clamp,
        threat=threat,
        readout=readouts,
        claim=AtMost(claim.number("at_most")),
        hook=sae.text("hook") if "hook" in sae.values else None,
        title=top.text("title", path.stem),
    )


def load_layers(path: Path | str, problem: Problem) -> tuple[Problem, ...]:
    """Read layers.toml: clamps that act beside the problem's own, each as the problem with its SAE, clamp and hook.

    Raises:
        ProblemFileError and other kinds of InputError, as `load_problem`.

    """
    path = Path(path)
    top = _Table(_read(path, "layers are listed in a TOML file"), "")
    top.only("layer")
    entries = top.items("layer", (dict,), "it must be one or more [[layer]] tables")
    layers = []
    for index, entry in enumerate(entries):
        table = _Table(entry, f"layer[{index}].")
        table.only("sae", "clamp")
        sae, clamp = table.table("sae"), _clamp(table.table("clamp"))
        changes = {"clamp": clamp, "threat": ErrorBall(0.0, held="free"), "hook": sae.text("hook")}
        layers.append(dataclasses.replace(problem, sae=_sae(path.parent, sae), **changes))
    return tuple(layers)


def _read(path: Path, rule: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProblemFileError(
            f"{path} cannot be read ({error})", rule=rule, remedy="start from examples/cases"
        ) from error


def _sae(base: Path, table: _Table) -> SAE:
    table.only("path", "id", "hook", "input_scale")
    scale = table.number("input_scale") if "input_scale" in table.values else None
    identifier = table.text("id") if "id" in table.values else None
    return load_sae(_located(base, table.text("path")), identifier, input_scale=scale)


def _located(base: Path, name: str) -> Path | str:
    """A path relative to the problem file when it exists there; otherwise the name itself, for the hub."""
    return base / name if (base / name).exists() else name


def _model(base: Path, name: str) -> Model:
    return load_model(_located(base, name))


def _rephrased(table: _Table, error: InputError) -> ProblemFileError:
    return ProblemFileError(f"in [{table.name.rstrip('.')}]: {error.problem}", rule=error.rule, remedy=error.remedy)


def _clamp(table: _Table) -> Clamp:
    table.only("kind", "features", "value", "values", "positions")
    features = (
        table.items("features", (int,), "it must be a list of feature indices") if "features" in table.values else []
    )
    if ("value" in table.values) == ("values" in table.values) and features:
        raise table.fail("value", "give either value (one for all) or values (one a feature)")
    if "values" in table.values:
        values = table.items("values", (int, float), "it must be a list of numbers")
    else:
        values = [table.number("value")] * len(features) if features else []
    positions = table.values.get("positions", "all")
    try:
        return Clamp(table.text("kind").replace("_", "-"), tuple(features), tuple(values), positions)  # type: ignore[arg-type]
    except SaeVerifyError as error:
        raise _rephrased(table, error) from error  # type: ignore[arg-type]


def _threat(table: _Table) -> ErrorBall:
    table.only("held", "at", "radius", "relative_to", "features", "drift", "positions")
    features = None
    if "features" in table.values:
        features = tuple(table.items("features", (int,), "it must be a list of feature indices"))
    try:
        return ErrorBall(
            radius=table.number("radius"),
            relative_to=table.text("relative_to", "h"),  # type: ignore[arg-type]
            held=table.text("held", "code"),  # type: ignore[arg-type]
            at=table.text("at") if "at" in table.values else None,  # type: ignore[arg-type]
            features=features,
            drift=table.number("drift") if "drift" in table.values else None,
            positions=table.values.get("positions", 1),
        )
    except ProblemFileError:
        raise
    except InputError as error:
        raise _rephrased(table, error) from error


def _prompts(top: _Table) -> tuple[list[str | list[int]], list[Readout]]:
    entries = top.values.get("prompt")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise top.fail("prompt", "it must be one or more [[prompt]] tables")
    prompts: list[str | list[int]] = []
    readouts: list[Readout] = []
    for index, entry in enumerate(entries):
        table = _Table(entry, f"prompt[{index}].")
        table.only("text", "tokens", "readout")
        if ("text" in entry) == ("tokens" in entry):
            raise table.fail("text", "give either text or tokens")
        prompts.append(
            table.text("text") if "text" in entry else table.items("tokens", (int,), "it must be a list of token ids")
        )
        readouts.append(_readout(table.table("readout")))
    return prompts, readouts


def _readout(table: _Table) -> Readout:
    def token(key: str) -> str | int:
        value = table.values.get(key)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise table.fail(key, "it must be a token's text or id")
        return value

    kind = table.text("kind", "logit-difference")
    if kind == LogitDifference.kind:
        table.only("kind", "positive", "negative")
        return LogitDifference(token("positive"), token("negative"))
    if kind == TokenAgainstAll.kind:
        table.only("kind", "token")
        return TokenAgainstAll(token("token"))
    raise table.fail("kind", f"it must be {LogitDifference.kind} or {TokenAgainstAll.kind}")
