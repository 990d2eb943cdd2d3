"""The slack is exact: a step just inside keeps a feature off, a step just outside turns it on."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_verify.sae import SAE, GatedSAE, Identity, InputScale, JumpReLUSAE, ReLUSAE, TopKSAE

f64 = torch.float64
N = 5


@st.composite
def problems(draw: st.DrawFn, architectures: tuple[str, ...]) -> tuple[SAE, torch.Tensor, float]:
    """Encoder columns along the axes, so that one feature moves alone; entries are multiples of a power of two."""
    entry = st.integers(-4, 4)
    unit = 2.0 ** draw(st.sampled_from([0, 0, -100, 100, -30]))  # of activations
    gain = 2.0 ** draw(st.sampled_from([0, 0, -60, 60]))  # of the encoder

    def vector(scale: float) -> torch.Tensor:
        return torch.tensor(draw(st.lists(entry, min_size=N, max_size=N)), dtype=f64) * scale

    common: dict[str, Any] = {
        "W_enc": torch.diag(vector(gain)),  # zero columns happen
        "W_dec": torch.eye(N, dtype=f64) * 2.0 ** draw(st.integers(-2, 2)),
        "b_dec": vector(unit),
        "subtract_b_dec": draw(st.booleans()),
        "normalization": draw(st.sampled_from([Identity(), InputScale(0.25)])),
    }
    architecture = draw(st.sampled_from(architectures))
    bias = unit * gain
    if architecture == "gated":
        r_mag = torch.tensor(draw(st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=N, max_size=N)), dtype=f64)
        sae: SAE = GatedSAE(**common, b_gate=vector(bias), b_mag=vector(bias), r_mag=r_mag)
    elif architecture == "topk":
        k, rescale = draw(st.integers(1, N)), draw(st.booleans())
        sae = TopKSAE(**common, b_enc=vector(bias), k=k, rescale_by_decoder_norm=rescale)
    elif architecture == "jumprelu":
        sae = JumpReLUSAE(**common, b_enc=vector(bias), threshold=vector(bias))
    else:
        sae = ReLUSAE(**common, b_enc=vector(bias))
    return sae, vector(unit), 1e-6 * bias  # the last: a small step of a pre-activation, which float64 resolves


def stepped(sae: SAE, x: torch.Tensor, j: int, amount: float) -> torch.Tensor:
    """x moved so that w_j . delta = amount, and no other feature moves."""
    moved = x.clone()
    moved[j] += amount / float(sae.W_enc[j, j])
    return moved


@given(problems(("relu", "jumprelu", "gated", "topk")))
@settings(max_examples=250, deadline=None)
def test_slack_is_the_exact_distance_to_turning_on(problem):
    sae, x, step = problem
    z, slack = sae.encode(x), sae.slack(x)
    assert (slack >= 0).all()
    assert (slack[z != 0] == 0).all()
    for j in range(N):
        if z[j] != 0 or sae.W_enc[j, j] == 0:
            continue
        t = float(slack[j])
        if t > 2 * step:
            assert torch.equal(sae.encode(stepped(sae, x, j, t - step)), z)
        assert sae.encode(stepped(sae, x, j, t + step))[j] > 0
        assert torch.equal(sae.encode(stepped(sae, x, j, -step))[j], z[j])


@given(problems(("relu", "jumprelu", "gated", "topk")))
@settings(max_examples=100, deadline=None)
def test_zero_columns_never_turn_on(problem):
    sae, x, _ = problem
    for j in torch.nonzero(sae.W_enc.diagonal() == 0).flatten().tolist():
        moved = x.clone()
        moved[j] += 1e6 * (1 + x.abs().max())
        assert torch.equal(sae.encode(moved), sae.encode(x))
