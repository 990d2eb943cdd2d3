"""Problems as data: what is ill-formed is refused with the value, the rule and the remedy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from sae_verify.errors import (
    FeatureError,
    InputError,
    PromptError,
    SaeVerifyError,
    ShapeError,
    ThreatError,
    UnsupportedError,
)
from sae_verify.model import HookPoint
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem, TokenAgainstAll


def model(d_model: int = 8) -> SimpleNamespace:
    return SimpleNamespace(d_model=d_model, hook_point=lambda hook: HookPoint.parse(str(hook)))


def sae(d_in: int = 8, d_sae: int = 16, hook: str | None = "blocks.0.hook_resid_post") -> SimpleNamespace:
    return SimpleNamespace(d_in=d_in, d_sae=d_sae, source=SimpleNamespace(hook_name=hook))


def problem(**changes: object) -> Problem:
    arguments: dict = {
        "model": model(),
        "sae": sae(),
        "prompts": ["a"],
        "clamp": Clamp.set({3: 0.0}),
        "threat": ErrorBall(0.1),
        "readout": LogitDifference(1, 2),
    }
    return Problem(**(arguments | changes))


@pytest.mark.parametrize("radius", [-1.0, math.nan, math.inf, True, "0.1"])
def test_radius_must_be_finite_and_not_negative(radius: object) -> None:
    with pytest.raises(ThreatError, match="radius"):
        ErrorBall(radius)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", [(1, 1), (-1,), (1.5,), (True,)])
def test_features_are_distinct_indices(features: tuple) -> None:
    with pytest.raises(FeatureError):
        Clamp("set", features, (0.0,) * len(features))
    with pytest.raises(FeatureError):
        ErrorBall(0.1, held="defended", features=features)


def test_clamps() -> None:
    assert Clamp.set({1: 2.0, 5: -1.0}) == Clamp("set", (1, 5), (2.0, -1.0), "all")
    assert Clamp.drop_error().features == ()
    assert Clamp.add({1: 1.0}, positions=[0, 2]).positions == (0, 2)
    for build in (lambda: Clamp.set({}), lambda: Clamp("set", (1,), ()), lambda: Clamp("rotate", (1,), (0.0,))):  # type: ignore[arg-type]
        with pytest.raises(InputError):
            build()
    for positions in ("first", [], [1, 1], [-1], 3):
        with pytest.raises(InputError, match="position"):
            Clamp.set({1: 0.0}, positions=positions)
    with pytest.raises(InputError, match="nan"):
        Clamp.set({1: math.nan})


def test_held_defaults() -> None:
    assert ErrorBall(0.1).at == "x"
    assert ErrorBall(0.1, held="preactivations").at == "h"
    assert ErrorBall(0.1, held="defended", at="both").at == "both"
    with pytest.raises(ThreatError, match="'code' holds all"):
        ErrorBall(0.1, held="code", features=(1,))
    with pytest.raises(ThreatError, match="empty"):
        ErrorBall(0.1, held="defended", features=())
    with pytest.raises(ThreatError, match="held is 'everything'"):
        ErrorBall(0.1, held="everything")  # type: ignore[arg-type]


def test_problem_checks_what_it_is_made_of() -> None:
    assert problem().readouts == (LogitDifference(1, 2),)
    with pytest.raises(FeatureError, match="features 0 to 15"):
        problem(clamp=Clamp.set({16: 0.0}))
    with pytest.raises(FeatureError, match="the held set"):
        problem(threat=ErrorBall(0.1, held="defended", features=(99,)))
    with pytest.raises(ShapeError, match="8 dimensions and the model's residual stream has 9"):
        problem(model=model(9))
    with pytest.raises(PromptError):
        problem(prompts=[])
    with pytest.raises(PromptError):
        problem(prompts="one text is not a list")
    with pytest.raises(InputError, match="2 readouts for 1 prompts"):
        problem(readout=[TokenAgainstAll(1)] * 2)
    with pytest.raises(InputError, match="no hook point"):
        problem(sae=sae(hook=None))
    with pytest.raises(UnsupportedError, match="drop-error"):
        problem(clamp=Clamp.drop_error({1: 0.0}))
    problem(clamp=Clamp.drop_error({1: 0.0}), threat=ErrorBall(0.1, held="defended", at="h"))


def test_defended_features_default_to_the_clamped_ones() -> None:
    assert problem(clamp=Clamp.scale({3: 2.0, 5: 2.0})).held_features == (3, 5)
    assert problem(threat=ErrorBall(0.1, held="defended", features=(7,))).held_features == (7,)


def test_claims_are_finite() -> None:
    with pytest.raises(InputError, match="inf"):
        AtMost(math.inf)


def test_messages_show_value_rule_and_remedy() -> None:
    error = SaeVerifyError("radius is -1", rule="it must be positive", remedy="use 0.1")
    assert str(error) == "radius is -1. it must be positive. use 0.1."


def test_an_sae_is_used_where_it_was_trained() -> None:
    same = problem(hook="blocks.1.hook_resid_pre")  # the state that blocks.0.hook_resid_post names
    assert str(same.hook) == "blocks.1.hook_resid_pre"
    with pytest.raises(InputError, match="the SAE's metadata says"):
        problem(hook="blocks.2.hook_resid_post")
