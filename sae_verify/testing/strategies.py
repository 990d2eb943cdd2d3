"""Hypothesis strategies: SAEs of every architecture with hard shapes, what they are tested at, and tiny transformers.

Everything is small by default and shrinks towards few, plain features. Needs hypothesis, which nothing else here does.

    @given(cases())
    def test_mine(case):
        assert my_bound(case.sae, case.x) >= my_attack(case.sae, case.x)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from sae_verify.geometry.held_cell import Array
from sae_verify.model import Model
from sae_verify.problem import At, Clamp, ClampKind, ErrorBall, Held
from sae_verify.sae.base import SAE
from sae_verify.testing.hard import ARCHITECTURES, TRAITS, HardCase, hard_case
from sae_verify.testing.inputs import READOUTS, RESIDUALS, clamp, readout, residual
from sae_verify.testing.models import FAMILIES, tiny_model

SEEDS = st.integers(0, 2**32 - 1)
LINEAR = (1.0, 0.5, 2.0, 3e-3)
"""Constant input scales."""


def input_scales() -> st.SearchStrategy[float]:
    """Constant factors on the input, 1 first."""
    return st.sampled_from(LINEAR)


@st.composite
def cases(
    draw: st.DrawFn,
    architectures: Sequence[str] = ARCHITECTURES,
    *,
    max_d: int = 6,
    max_m: int = 10,
    traits: Sequence[str] = tuple(TRAITS),
    dtypes: Sequence[torch.dtype] = (torch.float64, torch.float32),
) -> HardCase:
    """An SAE and a residual at which its ties are; see `hard.TRAITS` for what is combined.

    Args:
        draw: hypothesis's.
        architectures: that are drawn from.
        max_d: largest width, from 1: more dimensions than features, and one feature, are drawn often.
        max_m: largest number of features.
        traits: that may be combined.
        dtypes: of the weights.
    """
    architecture = draw(st.sampled_from(list(architectures)))
    d, m = draw(st.integers(1, max_d)), draw(st.integers(1, max_m))
    chosen = draw(st.lists(st.sampled_from(list(traits)), max_size=3, unique=True)) if traits else []
    return hard_case(
        architecture,
        d,
        m,
        tuple(chosen),
        draw(SEEDS),
        k=draw(st.integers(1, m)),
        scale=draw(input_scales()),
        subtract=draw(st.booleans()),
        dtype=draw(st.sampled_from(list(dtypes))),
    )


def saes(architectures: Sequence[str] = ARCHITECTURES, *, max_d: int = 6, max_m: int = 10) -> st.SearchStrategy[SAE]:
    """SAEs alone."""
    return cases(architectures, max_d=max_d, max_m=max_m).map(lambda case: case.sae)


def residuals(sae: SAE, kinds: Sequence[str] = tuple(dict.fromkeys(RESIDUALS))) -> st.SearchStrategy[Array]:
    """Residuals of an SAE, (d,): on thresholds, at corners of cells, at zero, huge, tiny, and sums of decoder rows."""
    return st.builds(
        lambda kind, seed: residual(sae, kind, np.random.default_rng(seed)), st.sampled_from(list(kinds)), SEEDS
    )


def readouts(sae: SAE, x: Array, kinds: Sequence[str] = READOUTS) -> st.SearchStrategy[Array]:
    """Readout directions, (d,): random, in the span of active columns, orthogonal to them, along a family, zero."""
    return st.builds(
        lambda kind, seed: readout(sae, x, np.random.default_rng(seed), kind), st.sampled_from(list(kinds)), SEEDS
    )


def clamps(
    sae: SAE, x: Array, kinds: Sequence[ClampKind] = ("set", "scale", "set-if-active", "add", "drop-error")
) -> st.SearchStrategy[Clamp]:
    """Clamps of every kind on a few features, those active at x first."""
    return st.builds(lambda seed: clamp(sae, x, np.random.default_rng(seed), kinds), SEEDS)


@st.composite
def threats(
    draw: st.DrawFn,
    sae: SAE,
    held: Sequence[Held] = ("free", "preactivations", "defended", "code", "unreachable"),
    at: Sequence[At] = ("x", "h", "both"),
) -> ErrorBall:
    """Threat models for an SAE: every held set, with features where it takes some, and radii of all sizes."""
    chosen = draw(st.sampled_from(list(held)))
    features = None
    if chosen in ("preactivations", "defended", "unreachable"):
        some = st.lists(st.integers(0, sae.d_sae - 1), min_size=1, max_size=min(sae.d_sae, 4), unique=True)
        features = tuple(sorted(draw(some)))
        if chosen == "unreachable" and draw(st.booleans()):
            features = None
    radius = draw(st.sampled_from([0.1, 0.0, 1.0, 1e-6, 1e3]))
    relative = draw(st.sampled_from(["absolute", "h", "e"]))
    return ErrorBall(radius, relative, chosen, draw(st.sampled_from(list(at))), features)  # type: ignore[arg-type]


def models(families: Sequence[str] = FAMILIES, *, widths: Sequence[int] = (8, 16)) -> st.SearchStrategy[Model]:
    """Tiny random transformers of one or two blocks, tied or not; each is made once a process. Needs transformers.

    An SAE for one: `hard_case(architecture, model.d_model, m)`.
    """
    return st.builds(
        tiny_model,
        st.sampled_from(list(families)),
        d=st.sampled_from(list(widths)),
        layers=st.integers(1, 2),
        seed=st.integers(0, 2),
        tied=st.sampled_from([None, False, True]),
    )


def prompts(model: Model, *, most: int = 4, longest: int = 8) -> st.SearchStrategy[list[list[int]]]:
    """Prompts of token ids, of different lengths."""
    one = st.lists(st.integers(0, model.d_vocab - 1), min_size=1, max_size=min(longest, model.max_length))
    return st.lists(one, min_size=1, max_size=most)
