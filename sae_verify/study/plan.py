"""What a study does, as frozen data: model, SAE, prompts, clamp, budgets, threats; and the four published types."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sae_verify.errors import InputError
from sae_verify.problem import ClampKind

Study = Literal["probe", "unlearning", "indirect-object", "refusal"]
Find = Literal["promotes", "contrast", "opposes"]
"""How clamped features are found: attribution to the readout; larger on the behaviour's prompts; smaller there."""
Threat = Literal["free", "preactivations", "defended", "code", "drift"]
THREATS: tuple[Threat, ...] = get_args(Threat)


@dataclass(frozen=True)
class Sweep:
    """Values tried one at a time beside the base configuration; empty for none.

    Attributes:
        strength: values written by the clamp. features: sizes K of the clamped set. sparsity: k of SAEs trained on the
            study's own prompts.

    """

    strength: tuple[float, ...] = ()
    features: tuple[int, ...] = ()
    sparsity: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """One study.

    Attributes:
        study: which of the four.
        model, sae: directories or hub ids. hook: None takes the SAE's metadata.
        prompts: a prompt file, see `items`.
        also: SAEs at later layers, in order, that are clamped at the same time in a configuration of its own.
        kind, value: of the clamp. features: what it clamps; None finds `count` of them by `find`.
        budgets: radii in units of ||h||.
        threats: rungs of the ladder. drift: t of drift(t).
        certify: threats whose radius is certified for each prompt. None certifies each of them where no block follows
            the hook, and elsewhere `free` alone, which speaks for all stricter ones.
        effort: passes through the blocks for each bound.
        limit: valid flips that are studied at most.
        steps: gradient steps of the attacks.
        suffix: longest suffix of the input-only threat; 0 leaves it out. soft: tokens of the soft prompt.
        generate: tokens of greedy generation; 0 leaves it out. stop: text that ends what is compared.
        controls, attribution: whether they are measured.
        sweep: other configurations, attacked only.
        seed: of everything drawn.
        keep_text: whether prompts and generations are stored in the outputs.

    """

    study: Study
    model: str
    sae: str
    prompts: str
    also: tuple[str, ...] = ()
    hook: str | None = None
    kind: ClampKind = "set"
    value: float = 0.0
    features: tuple[int, ...] | None = None
    count: int = 8
    find: Find = "promotes"
    budgets: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    threats: tuple[Threat, ...] = THREATS
    drift: float = 0.131
    certify: tuple[Threat, ...] | None = None
    effort: int = 1
    limit: int = 10
    steps: int = 24
    suffix: int = 2
    soft: int = 1
    generate: int = 0
    stop: str = ""
    controls: bool = True
    attribution: bool = True
    sweep: Sweep = field(default_factory=Sweep)
    seed: int = 0
    keep_text: bool = False

    def __post_init__(self) -> None:
        def need(good: bool, what: str, rule: str) -> None:
            if not good:
                raise InputError(f"{what}", rule=rule, remedy="see `sae-verify study --help`")

        need(self.study in get_args(Study), f"study is {self.study!r}", f"it is one of {', '.join(get_args(Study))}")
        need(self.find in get_args(Find), f"find is {self.find!r}", f"it is one of {', '.join(get_args(Find))}")
        budgets = self.budgets
        good = bool(budgets) and all(0 < b < 100 for b in budgets) and len(set(budgets)) == len(budgets)
        need(good, f"budgets are {budgets}", "they are different positive numbers, in units of ||h||")
        for what, names in (("threats", self.threats), ("certify", self.certify or ())):
            need(set(names) <= set(THREATS), f"{what} are {names}", f"they are among {', '.join(THREATS)}")
        need(bool(self.threats), "there are no threats", "a study has at least one")
        need(not self.also or self.study != "probe", f"also is {self.also}", "a probe reads one layer, the clamped one")
        need(
            self.study != "probe" or "drift" not in (self.certify or ()),
            "certify names drift",
            "drift(t) has no certificate for a probe; use free",
        )
        need(0 < self.drift < 10, f"drift is {self.drift}", "t is a positive share of the code's length")
        for name in ("effort", "limit", "count", "steps"):
            need(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}", "it is at least 1")
        for name in ("suffix", "soft", "generate", "seed"):
            need(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "it is at least 0")
        object.__setattr__(self, "budgets", tuple(sorted(float(b) for b in budgets)))

    def header(self) -> dict[str, Any]:
        """What tells this study from another: every setting, and the prompt file's digest."""
        settings = dataclasses.asdict(self)
        settings["prompts"] = {"file": Path(self.prompts).name, "sha256": _digest(Path(self.prompts))}
        settings["model"], settings["sae"] = (Path(place).name for place in (self.model, self.sae))
        settings["also"] = [Path(place).name for place in self.also]
        return settings


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", rule="prompts are a file of JSON lines") from None


DEFAULTS: dict[Study, dict[str, Any]] = {
    # A class's features are ablated, and a linear probe on the residual is to find the class again.
    "probe": {"kind": "set", "value": 0.0, "count": 4, "find": "contrast"},
    # Features of the topic are set to a negative constant where they are on, the dialect of unlearning benchmarks.
    "unlearning": {"kind": "set-if-active", "value": -2.0, "count": 8, "find": "contrast", "limit": 6},
    "indirect-object": {"kind": "set-if-active", "value": -3.0, "count": 8, "find": "promotes"},
    # Features of compliance change their sign, and the model refuses what it would comply with.
    "refusal": {"kind": "scale", "value": -1.0, "count": 2, "generate": 24},
}
"""Settings that differ between the studies."""

BUNDLED: dict[Study, tuple[str, str, str]] = {
    "probe": ("refusal", "sae_early", "probe.jsonl"),
    "unlearning": ("unlearning", "sae_early", "unlearning.jsonl"),
    "indirect-object": ("indirect_object", "sae_early", "indirect_object.jsonl"),
    "refusal": ("refusal", "sae_early", "refusal.jsonl"),
}
"""Case, SAE and prompt file of the bundled examples."""

ALSO: dict[Study, tuple[str, ...]] = {"refusal": ("sae_last",), "indirect-object": ("sae_last",)}
"""SAEs at later layers that the bundled examples clamp at the same time."""

SWEEPS: dict[Study, Sweep] = {
    "probe": Sweep(features=(1, 2, 8, 16), sparsity=(3, 12)),
    "unlearning": Sweep(strength=(-5.0,), features=(4, 16), sparsity=(3,)),
    "indirect-object": Sweep(strength=(-2.0, -5.0), features=(4, 16), sparsity=(3, 12)),
    "refusal": Sweep(strength=(-0.5, -2.0), features=(4, 8), sparsity=(3, 12)),
}
"""Of the bundled examples."""


def default_plan(study: Study, model: str, sae: str, prompts: str, **changes: Any) -> Plan:
    """The plan of a study with what is given in place of its defaults; None leaves a default as it is."""
    settings = DEFAULTS[study] | {key: value for key, value in changes.items() if value is not None}
    return Plan(study, model, sae, prompts, **settings)


def bundled_plan(study: Study, examples: Path, **changes: Any) -> Plan:
    """The plan of a study on the bundled model, whose answers end with a full stop."""
    case, sae, prompts = BUNDLED[study]
    home = examples / "cases" / case
    also = tuple(str(home / place) for place in ALSO.get(study, ()))
    own: dict[str, Any] = {"sweep": SWEEPS[study], "also": also} | (
        {"stop": ".", "generate": 16} if study == "refusal" else {}
    )
    given = {key: value for key, value in changes.items() if value is not None}
    return default_plan(study, str(home), str(home / sae), str(examples / "studies" / prompts), **own | given)
