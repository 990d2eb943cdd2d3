"""The question as data: which clamp, against which perturbations, judged by which readout.

Everything here is frozen and validated once, at construction. Nothing here needs torch: features and tokens are
checked against a loaded SAE and model when a `Problem` is made.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sae_verify.errors import FeatureError, InputError, PromptError, ShapeError, ThreatError, UnsupportedError

if TYPE_CHECKING:
    from sae_verify.model import HookPoint, Model
    from sae_verify.sae import SAE

ClampKind = Literal["set", "scale", "set-if-active", "add", "drop-error"]
Held = Literal["free", "preactivations", "defended", "code", "unreachable", "drift"]
At = Literal["x", "h", "both"]
RelativeTo = Literal["absolute", "h", "e"]
Positions = Literal["all", "last"] | tuple[int, ...]

DEFAULT_AT: dict[str, At] = {held: "x" if held in ("code", "unreachable") else "h" for held in get_args(Held)}
"""Where a held set is evaluated unless the threat says otherwise: the code before the clamp (only the error term
differs), everything else on the re-encoded defended state, as in the published attack."""


LARGEST = 1e12
"""Radii, clamp values and thresholds beyond this are refused: they overflow somewhere, and mean nothing."""


def _finite(value: float, what: str) -> float:
    bad = isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    if bad or abs(value) > LARGEST:
        raise InputError(
            f"{what} is {value!r}", rule=f"it must be a number up to {LARGEST:g}", remedy="give a real number"
        )
    return float(value)


def _plain(feature: Any) -> Any:
    """numpy and torch integers as int; anything else as it is."""
    if isinstance(feature, bool):
        return feature
    try:
        return operator.index(feature)
    except TypeError:
        return feature


def _features(features: Iterable[int], what: str) -> tuple[int, ...]:
    result = tuple(_plain(feature) for feature in features)
    for feature in result:
        if isinstance(feature, bool) or not isinstance(feature, int) or feature < 0:
            raise FeatureError(
                f"{what} contains {feature!r}", rule="features are integers from 0", remedy="give indices into W_dec"
            )
    if len(set(result)) != len(result):
        repeated = sorted({f for f in result if result.count(f) > 1})
        raise FeatureError(
            f"{what} repeats {repeated}", rule="each feature may occur once", remedy="remove the repetition"
        )
    return result


def _positions(positions: object) -> Positions:
    if positions in ("all", "last"):
        return positions  # type: ignore[return-value]
    if isinstance(positions, Sequence) and not isinstance(positions, str):
        result = tuple(positions)
        if result and all(isinstance(p, int) and not isinstance(p, bool) and p >= 0 for p in result):
            if len(set(result)) != len(result):
                raise InputError(f"positions repeat in {result}", rule="each position may occur once")
            return result
    raise InputError(
        f"positions is {positions!r}",
        rule="it must be 'all', 'last' or a non-empty list of integers from 0",
        remedy="use positions='all'",
    )


@dataclass(frozen=True)
class Clamp:
    """What is written into the code `z` at the hook: `z'`; the residual becomes `h = x + (z' - z) W_dec`.

    Kinds: `set` (z' = v), `scale` (z' = v z), `set-if-active` (z' = v where z != 0), `add` (z' = z + v) and
    `drop-error` (z' = v, and the reconstruction D(z') goes on without the error term). Use the constructors.

    Attributes:
        kind: one of the five kinds.
        features: clamped features, in the order of `values`.
        values: one number a feature, in the units of the SAE's code.
        positions: `all`, `last` (the readout position) or explicit token positions.

    """

    kind: ClampKind
    features: tuple[int, ...]
    values: tuple[float, ...]
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if self.kind not in get_args(ClampKind):
            raise InputError(f"clamp kind is {self.kind!r}", rule=f"it must be one of {', '.join(get_args(ClampKind))}")
        object.__setattr__(self, "features", _features(self.features, "the clamp"))
        object.__setattr__(self, "values", tuple(_finite(v, "a clamp value") for v in self.values))
        object.__setattr__(self, "positions", _positions(self.positions))
        if len(self.features) != len(self.values):
            raise InputError(
                f"the clamp has {len(self.features)} features and {len(self.values)} values",
                rule="there must be one value a feature",
            )
        if not self.features and self.kind != "drop-error":
            raise FeatureError("the clamp has no feature", rule="a clamp changes at least one feature")

    @staticmethod
    def _make(kind: ClampKind, values: Mapping[int, float], positions: object) -> Clamp:
        return Clamp(kind, tuple(values), tuple(values.values()), positions)  # type: ignore[arg-type]

    @classmethod
    def set(cls, values: Mapping[int, float], positions: object = "all") -> Clamp:
        """Every listed feature takes its value: z'_i = v_i."""
        return cls._make("set", values, positions)

    @classmethod
    def scale(cls, factors: Mapping[int, float], positions: object = "all") -> Clamp:
        """Every listed feature is multiplied: z'_i = v_i z_i."""
        return cls._make("scale", factors, positions)

    @classmethod
    def set_if_active(cls, values: Mapping[int, float], positions: object = "all") -> Clamp:
        """Listed features that are on take their value; the others stay off."""
        return cls._make("set-if-active", values, positions)

    @classmethod
    def add(cls, values: Mapping[int, float], positions: object = "all") -> Clamp:
        """Steering: z'_i = z_i + v_i, hence h = x + v_i d_i."""
        return cls._make("add", values, positions)

    @classmethod
    def drop_error(cls, values: Mapping[int, float] | None = None, positions: object = "all") -> Clamp:
        """Listed features are set, and the reconstruction replaces the residual: h = D(z')."""
        return cls._make("drop-error", values or {}, positions)


@dataclass(frozen=True)
class ErrorBall:
    """Threat model: every `delta` at the last positions with `||delta||_2 <= radius * scale` that keeps what is held.

    With more positions than one it is (delta_1, ..., delta_p), of one length together; what is held is held at each.

    Attributes:
        radius: non-negative and finite; `scale` is 1, ||h|| or ||e|| of the last position by `relative_to`.
        relative_to: `absolute`, `h` (norm of the defended state) or `e` (norm of the SAE's own error term).
        held: `free` (nothing), `preactivations` (E_S^T delta = 0), `defended` (the code of S keeps its values),
            `code` (the whole code keeps its values), `unreachable` (delta orthogonal to decoder rows), `drift` (the
            code of S moves by at most `drift` times its length).
        at: where it is held: `x` before the clamp, `h` after it, or `both`; None takes the default of `held`.
        features: S, the defended set. None means the clamped features; for `unreachable`, the active ones.
        drift: t of `drift`, ||E_S(h + delta) - E_S(h)|| <= t ||E_S(h)||; None for anything else.
        positions: how many positions at the end of the prompt are perturbed, the readout's and those before it.

    """

    radius: float
    relative_to: RelativeTo = "h"
    held: Held = "code"
    at: At | None = None
    features: tuple[int, ...] | None = None
    drift: float | None = None
    positions: int = 1

    def __post_init__(self) -> None:
        bad = isinstance(self.radius, bool) or not isinstance(self.radius, (int, float))
        if bad or not 0 <= self.radius <= LARGEST:
            raise ThreatError(
                f"radius is {self.radius!r}",
                rule=f"it must be finite, not negative and at most {LARGEST:g}",
                remedy="use e.g. radius=0.05",
            )
        object.__setattr__(self, "radius", float(self.radius))
        for name, allowed in (("relative_to", RelativeTo), ("held", Held)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ThreatError(f"{name} is {value!r}", rule=f"it must be one of {', '.join(get_args(allowed))}")
        if self.at is None:
            object.__setattr__(self, "at", DEFAULT_AT[self.held])
        if self.at not in get_args(At):
            raise ThreatError(f"at is {self.at!r}", rule=f"it must be one of {', '.join(get_args(At))}")
        if self.features is not None:
            object.__setattr__(self, "features", _features(self.features, "the held set"))
            if self.held in ("free", "code"):
                raise ThreatError(
                    f"features are given for held={self.held!r}",
                    rule="'free' holds no feature and 'code' holds all of them",
                    remedy="leave features out, or use held='defended'",
                )
            if not self.features:
                raise ThreatError("the held set is empty", rule="it names at least one feature", remedy="held='free'")
        self._check_drift()
        if isinstance(self.positions, bool) or not isinstance(self.positions, int) or self.positions < 1:
            raise ThreatError(
                f"positions is {self.positions!r}", rule="it counts positions from the last one, which is perturbed"
            )

    def _check_drift(self) -> None:
        drift = self.drift
        if (drift is None) == (self.held == "drift"):
            raise ThreatError(
                f"drift is {drift!r} and held is {self.held!r}",
                rule="held='drift' says how far the code may move, and nothing else does",
                remedy="use e.g. held='drift', drift=0.1",
            )
        if drift is None:
            return
        if isinstance(drift, bool) or not isinstance(drift, (int, float)) or not 0 <= drift <= LARGEST:
            raise ThreatError(
                f"drift is {drift!r}",
                rule=f"it must be finite, not negative and at most {LARGEST:g}",
                remedy="use e.g. drift=0.1, a share of ||E_S(h)||",
            )
        object.__setattr__(self, "drift", float(drift))
        if self.at == "both":
            raise ThreatError("drift is limited at 'both'", rule="it is limited at one point", remedy="at='h'")
        if self.positions != 1:
            raise ThreatError(
                f"drift at {self.positions!r} positions", rule="it is limited at one position", remedy="positions=1"
            )


Token = str | int
"""A token by text (one token in the model's vocabulary) or by id."""


@dataclass(frozen=True)
class LogitDifference:
    """Readout logit(positive) - logit(negative), before any final soft-cap (strictly increasing: same sign)."""

    positive: Token
    negative: Token

    kind = "logit-difference"


@dataclass(frozen=True)
class TokenAgainstAll:
    """Readout logit(token) - max over all others: positive iff the model would say `token`.

    The family is `min over o of logit(token) - logit(o)`: one member below the claim certifies it.
    """

    token: Token

    kind = "token-against-all"


Readout = LogitDifference | TokenAgainstAll


@dataclass(frozen=True)
class AtMost:
    """The claim to certify: readout <= tau for every admissible perturbation."""

    tau: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", _finite(self.tau, "the claim's threshold tau"))


Prompt = str | Sequence[int]


def trained_hook(model: Model, sae: SAE, hook: HookPoint | str | None) -> HookPoint:
    """The hook point at which an SAE reads a model; None takes the SAE's metadata.

    Raises:
        InputError: there is none, or it is not the one that the SAE was trained at.
        HookPointError: the model has no such hook point.
    """
    named = hook if hook is not None else sae.source.hook_name
    if named is None:
        raise InputError(
            "no hook point is given and the SAE's metadata names none",
            rule="the SAE reads one hook point of the model",
            remedy="pass hook='blocks.6.hook_resid_post'",
        )
    point = model.hook_point(named)
    trained = sae.source.hook_name
    if trained is not None and not model.hook_point(trained).same_state(point):
        raise InputError(
            f"hook is {str(point)!r} and the SAE's metadata says {trained!r}",
            rule="an SAE is used where it was trained",
            remedy="leave hook out, or correct hook_name in the SAE's metadata if that is wrong",
        )
    return point


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch of questions that differ only in prompt and readout.

    Attributes:
        model: from `load_model`.
        sae: from `load_sae`.
        prompts: texts or token ids; the readout is at each prompt's last position, and so is the perturbation.
        clamp: what is written into the code.
        threat: which perturbations are admissible.
        readout: one for all prompts, or one a prompt.
        claim: readout <= tau.
        hook: TransformerLens name; None takes the SAE's own metadata.
        title: a name for tables and file names.

    Raises:
        InputError and its kinds, each naming the value, the rule and the remedy.

    """

    model: Model
    sae: SAE
    prompts: Sequence[Prompt]
    clamp: Clamp
    threat: ErrorBall
    readout: Readout | Sequence[Readout]
    claim: AtMost = field(default_factory=lambda: AtMost(0.0))
    hook: str | HookPoint | None = None
    title: str = "problem"

    def __post_init__(self) -> None:
        if not self.prompts or isinstance(self.prompts, str):
            raise PromptError(
                f"prompts is {self.prompts!r}", rule="it is a non-empty list of prompts", remedy="use prompts=['...']"
            )
        readouts = self.readout if isinstance(self.readout, Sequence) else (self.readout,) * len(self.prompts)
        if len(readouts) != len(self.prompts):
            raise InputError(
                f"{len(readouts)} readouts for {len(self.prompts)} prompts",
                rule="give one readout for all prompts, or one a prompt",
            )
        object.__setattr__(self, "readout", tuple(readouts))
        object.__setattr__(self, "hook", trained_hook(self.model, self.sae, self.hook))
        if self.sae.d_in != self.model.d_model:
            raise ShapeError(
                f"the SAE reads {self.sae.d_in} dimensions and the model's residual stream has {self.model.d_model}",
                rule="they must be equal",
                remedy="load the SAE that was trained on this model",
            )
        for what, features in (("the clamp", self.clamp.features), ("the held set", self.threat.features or ())):
            outside = [f for f in features if f >= self.sae.d_sae]
            if outside:
                raise FeatureError(
                    f"{what} names features {outside}",
                    rule=f"this SAE has features 0 to {self.sae.d_sae - 1}",
                    remedy="check the indices against the SAE that was loaded",
                )
        if self.threat.held in ("preactivations", "defended", "drift") and not self.held_features:
            raise ThreatError(
                f"held={self.threat.held!r} without features, and the clamp names none",
                rule="the defended set has at least one feature",
                remedy="give threat.features, or use held='free'",
            )
        if self.clamp.kind == "drop-error" and self.threat.at != "h" and self.threat.held != "free":
            raise UnsupportedError(
                f"clamp 'drop-error' with features held at {self.threat.at!r}",
                rule="a clamp that drops the error term leaves nothing at x to perturb",
                remedy="hold at 'h', where delta is added to the reconstruction",
            )

    @property
    def readouts(self) -> tuple[Readout, ...]:
        """One readout a prompt."""
        assert isinstance(self.readout, tuple)
        return self.readout

    @property
    def hook_point(self) -> HookPoint:
        """The parsed hook point."""
        assert self.hook is not None
        assert not isinstance(self.hook, str)
        return self.hook

    @property
    def held_features(self) -> tuple[int, ...]:
        """S: the features the threat model keeps, where it names some."""
        return self.clamp.features if self.threat.features is None else self.threat.features
