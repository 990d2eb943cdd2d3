"""The strategies reach every hard shape, are small, and nothing else needs hypothesis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theorems.exact import refutation

from sae_verify.errors import InputError
from sae_verify.model import Model, encode_prompts, make_tail
from sae_verify.problem import At, ClampKind, Held
from sae_verify.sae import SAE, TopKSAE
from sae_verify.testing import (
    ARCHITECTURES,
    FAMILIES,
    PROPERTIES,
    TRAITS,
    HardCase,
    falsify,
    hard_case,
    prompt_residuals,
    residual,
    tiny_model,
)
from sae_verify.testing.inputs import READOUTS
from sae_verify.testing.strategies import cases, clamps, models, prompts, readouts, residuals, saes, threats


def at_threshold(case: HardCase) -> bool:
    """Some feature is exactly where it switches: its slack is zero, and its pre-activation is not its bias's doing."""
    sae = case.sae.to(torch.float64)
    x = torch.from_numpy(case.x)
    active, slack = sae.active_and_slack(x)
    return bool(((slack == 0) & ~active & sae.W_enc.any(dim=0)).any())


SHAPES: dict[str, Callable[[HardCase], bool]] = {
    "tied": lambda c: c.sae.d_sae > 1 and torch.equal(c.sae.W_enc.T, c.sae.W_dec),
    "duplicate columns": lambda c: len(torch.unique(c.sae.W_enc.T, dim=0)) < c.sae.d_sae - 1,
    "a zero column": lambda c: bool((~c.sae.W_enc.any(dim=0)).any()) and "integers" not in c.traits,
    "a zero row": lambda c: bool((~c.sae.W_dec.any(dim=1)).any()) and "integers" not in c.traits,
    "huge columns": lambda c: float(c.sae.W_enc.abs().max()) > 1e10,
    "tiny columns": lambda c: float(c.sae.W_enc.norm(dim=0).min()) < 1e-10 and bool(c.sae.W_enc.any(dim=0).all()),
    "thresholds exactly at activations": at_threshold,
    "more dimensions than features": lambda c: c.sae.d_in > c.sae.d_sae > 1,
    "one feature": lambda c: c.sae.d_sae == 1,
    "one dimension": lambda c: c.sae.d_in == 1,
    "every feature on": lambda c: bool(c.sae.active(torch.from_numpy(c.x).to(c.sae.dtype)).all()),
    "float32": lambda c: c.sae.dtype == torch.float32,
    "an input scale": lambda c: c.sae.normalization.linear_scale("a test") != 1.0,
    "k = m": lambda c: isinstance(c.sae, TopKSAE) and c.sae.k == c.sae.d_sae > 2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_cases_reach(shape: str) -> None:
    refutation(cases(), SHAPES[shape], 3000)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_with_every_architecture(architecture: str, trait: str) -> None:
    for seed, (d, m) in enumerate([(1, 1), (4, 9), (6, 3)]):
        case = hard_case(architecture, d, m, (trait,), seed)
        assert (case.sae.d_in, case.sae.d_sae) == (d, m)
        assert torch.isfinite(case.sae.encode(torch.from_numpy(case.x))).all()
        again = hard_case(architecture, d, m, (trait,), seed)
        assert all(
            torch.equal(a, b) for a, b in zip(case.sae.tensors().values(), again.sae.tensors().values(), strict=True)
        )


def test_unknown_traits_are_refused() -> None:
    with pytest.raises(InputError, match="sparse"):
        hard_case("relu", 2, 2, ("sparse",))
    with pytest.raises(InputError, match="vanilla"):
        hard_case("vanilla", 2, 2)


@given(saes(max_d=3, max_m=4), st.data())
@settings(max_examples=40)
def test_inputs_fit(sae: SAE, data: st.DataObject) -> None:
    assert sae.d_in <= 3
    assert sae.d_sae <= 4
    x = data.draw(residuals(sae))
    assert x.shape == (sae.d_in,)
    assert np.isfinite(x).all()
    g = data.draw(readouts(sae, x))
    assert g.shape == (sae.d_in,)
    assert np.isfinite(g).all()
    clamp = data.draw(clamps(sae, x))
    assert max(clamp.features) < sae.d_sae
    threat = data.draw(threats(sae))
    assert threat.features is None or max(threat.features) < sae.d_sae


@pytest.mark.parametrize("kind", get_args(ClampKind))
def test_every_kind_of_clamp(kind: ClampKind) -> None:
    case = hard_case("relu", 3, 5)
    refutation(clamps(case.sae, case.x), lambda clamp: clamp.kind == kind)


@pytest.mark.parametrize("held", [held for held in get_args(Held) if held != "drift"])  # which is not drawn
@pytest.mark.parametrize("at", get_args(At))
def test_every_threat(held: Held, at: At) -> None:
    refutation(threats(hard_case("relu", 3, 5).sae), lambda threat: (threat.held, threat.at) == (held, at))


def test_readouts_are_where_they_say() -> None:
    case = hard_case("relu", 5, 6, (), 2)
    sae, rng = case.sae, np.random.default_rng(0)
    x = residual(sae, "rows", rng)
    active = sae.W_enc.numpy().T[sae.active(torch.from_numpy(x)).numpy()]
    assert 0 < len(active) < 5
    from sae_verify.testing import readout
    from sae_verify.testing.rounding import span

    inside, across = readout(sae, x, rng, "in the span"), readout(sae, x, rng, "orthogonal")
    assert np.linalg.norm(span(active).rest(inside)) <= 1e-12 * np.linalg.norm(inside)
    assert np.abs(active @ across).max() <= 1e-12
    assert not readout(sae, x, rng, "zero").any()
    assert set(READOUTS) == {"random", "in the span", "orthogonal", "along the family", "zero"}


@given(models(), st.data())
@settings(max_examples=25)
def test_models_run_and_agree_with_their_tail(model: Model, data: st.DataObject) -> None:
    """make_tail compares itself with the real model, and raises where they differ; theorems hold at its residuals."""
    batch = data.draw(prompts(model))
    hook = f"blocks.{model.n_layers - 1}.hook_resid_post"
    sae = hard_case("jumprelu", model.d_model, 12, (), 3).sae
    points = prompt_residuals(sae, model, batch, np.random.default_rng(0), hook=hook)
    assert points.shape == (min(sum(map(len, batch)), 64), model.d_model)
    tail, seen = make_tail(model, encode_prompts(model, batch), model.hook_point(hook))
    assert tail.agreement is not None
    last = seen.resid[torch.arange(len(batch)), torch.tensor([len(p) - 1 for p in batch])]
    assert {tuple(p) for p in last.double().tolist()} <= {tuple(p) for p in points.tolist()}
    findings = falsify(sae, points, attempts=1, properties=PROPERTIES[:5])
    assert all(f.outcome == "held" for f in findings), [(f.name, f.outcome, f.reason) for f in findings]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_models(family: str) -> None:
    refutation(models(), lambda m: m.family == family and m.d_model == 16 and m.n_layers == 2)
    model = tiny_model(family)
    assert tiny_model(family) is model
    assert (model.path / "config.json").is_file()
    for bad in ({"family": "bert"}, {"family": family, "d": 6}):
        with pytest.raises(InputError, match="multiple of 4"):
            tiny_model(**bad)  # type: ignore[arg-type]


def test_nothing_but_the_strategies_needs_hypothesis_or_pytest() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = sys.modules['pytest'] = None\n"
        "import sae_verify.testing, sae_verify.cli.falsify\n"
        "try:\n    import sae_verify.testing.strategies\nexcept ImportError:\n    print('only the strategies')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "only the strategies"
