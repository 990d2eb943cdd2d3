"""Chooses the clamp of a problem, its prompts and its radius, all by measurement on the trained model.

Features are ranked by attribution: activation times the gradient of the readout along the feature's decoder row,
summed over positions and averaged over prompts. The clamp is the shortest prefix of the ranking that flips enough of
the prompts tried; how often it flips is then counted on others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from examples.training.grammar import Example, Grammar
from sae_verify.model import HookPoint, Model, encode_prompts, run, token_id
from sae_verify.problem import Clamp
from sae_verify.sae import SAE
from sae_verify.sae.clamp import apply_clamp

RankBy = Literal["promotes", "opposes", "contrast"]
SIZES = (1, 2, 4, 8, 12, 16)
RADII = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
N_RANKING, N_FRESH = 400, 200
CLEAR = 0.05
"""A flip counts if both readouts are at least this far from zero: far above float32 rounding."""


@dataclass(frozen=True)
class ClampPlan:
    """What kind of clamp to look for.

    Attributes:
        kind: `set` or `scale`.
        value: the value or the factor.
        rank_by: `promotes` ranks features by how much they favour the behaviour where it shows, `opposes` by how much
            they disfavour it there, `contrast` by how much more they favour it there than on contrast prompts.
        flip_share: stop at the shortest prefix of the ranking that flips this share of the prompts tried.
        positions: where the clamp acts.
        spread: quantiles of the estimated bypass radius among the flips, between which the eight prompts lie.

    """

    kind: Literal["set", "scale"]
    value: float
    rank_by: RankBy
    flip_share: float = 0.25
    positions: Literal["all", "last"] = "all"
    spread: tuple[float, float] = (0.05, 0.95)

    def clamp(self, features: Sequence[int]) -> Clamp:
        """The clamp on these features."""
        return Clamp(self.kind, tuple(features), (self.value,) * len(features), self.positions)


@dataclass(frozen=True)
class Choice:
    """A clamp with its prompts and radius, and how often it flips fresh prompts.

    Attributes:
        clamp: what is clamped.
        examples: the prompts of the problem, all valid flips.
        radius: relative to the norm of the defended state.
        flips: valid flips among `fresh` random prompts that show the behaviour and had no part in the choice.
        fresh: how many were tried.
        flips_in_choice: valid flips among the `tried_in_choice` prompts by which the clamp's size was chosen, and of
            which the examples are some: biased upwards.
        tried_in_choice: how many those were.
        estimates: first-order bypass radius of each example, relative to the norm of the defended state.

    """

    clamp: Clamp
    examples: tuple[Example, ...]
    radius: float
    flips: int
    fresh: int
    flips_in_choice: int
    tried_in_choice: int
    estimates: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Readouts of prompts under a clamp, and the state at the readout position.

    Attributes:
        base: (n,) readout of the model as it is.
        defended: (n,) readout with the clamp.
        resid: (n, d) residual before the clamp, at the readout position.
        state: (n, d) residual after the clamp, at the readout position.
        gradient: (n, d) gradient of the defended readout, at the readout position.
        attribution: (n, d_sae) code before the clamp times that gradient along the decoder rows, over all positions.

    """

    base: Tensor
    defended: Tensor
    resid: Tensor
    state: Tensor
    gradient: Tensor
    attribution: Tensor


def measure(model: Model, sae: SAE, hook: str, examples: Sequence[Example], clamp: Clamp | None) -> Measurement:
    """Run the real model without and with the clamp."""
    prompts = encode_prompts(model, [e.prompt for e in examples])
    rows = torch.arange(len(examples))
    signs = torch.tensor([[token_id(model, e.positive), token_id(model, e.negative)] for e in examples])  # (n, 2)

    def readout(logits: Tensor) -> Tensor:
        return logits[rows, signs[:, 0]] - logits[rows, signs[:, 1]]  # (n,)

    point = HookPoint.parse(hook)
    with torch.no_grad():
        base = run(model, prompts, point)
    state = base.resid if clamp is None else apply_clamp(sae, clamp, base.resid, prompts.lengths)
    state = state.detach().requires_grad_()
    with torch.enable_grad():
        defended = readout(run(model, prompts, point, lambda _: state).logits)
        (gradient,) = torch.autograd.grad(defended.sum(), state)
    last = prompts.last
    attribution = (sae.encode(base.resid) * (gradient @ sae.W_dec.T)).sum(1)  # (n, d_sae)
    return Measurement(
        readout(base.logits),
        defended.detach(),
        base.resid[rows, last].detach(),
        state[rows, last].detach(),
        gradient[rows, last],
        attribution,
    )


def ranking(model: Model, sae: SAE, hook: str, grammar: Grammar, rng: random.Random, rank_by: RankBy) -> list[int]:
    """Features by mean attribution to the readout, strongest first; those of the wrong sign are left out."""
    showing = measure(model, sae, hook, [grammar.showing(rng) for _ in range(N_RANKING)], None)
    score = showing.attribution.mean(0)  # (d_sae,)
    if rank_by == "opposes":
        score = -score
    elif rank_by == "contrast":
        contrast = measure(model, sae, hook, [grammar.contrast(rng) for _ in range(N_RANKING)], None)
        score = score - contrast.attribution.mean(0)
    order = score.argsort(descending=True, stable=True)
    return [int(i) for i in order if score[i] > 0]


def valid_flips(m: Measurement) -> Tensor:
    """Which prompts show the behaviour in the base model and not in the clamped one; (n,) bool."""
    return (m.base > CLEAR) & (m.defended < -CLEAR)


def bypass_estimates(sae: SAE, m: Measurement) -> Tensor:
    """First-order radius of a bypass that keeps the active features, relative to the norm of the state; (n,).

    |readout| over the length of the gradient's part orthogonal to the active features' encoder columns. Half-spaces of
    inactive features make the true radius larger; curvature changes it either way.
    """
    active = sae.encode(m.resid) != 0  # (n, d_sae)
    estimates = []
    for row in range(len(m.base)):
        columns = sae.W_enc[:, active[row]].double()  # (d, active)
        gradient = m.gradient[row].double()
        inside = columns @ torch.linalg.lstsq(columns, gradient[:, None], driver="gelsd").solution[:, 0]
        reach = (gradient - inside).norm().clamp(min=1e-12)
        estimates.append(m.defended[row].double().abs() / reach / m.state[row].double().norm())
    return torch.stack(estimates)


def _distinct(grammar: Grammar, rng: random.Random, without: Sequence[Example] = ()) -> list[Example]:
    """Random examples that show the behaviour, each prompt once and none of `without`: at most `N_FRESH`."""
    drawn = {e.prompt: e for e in (grammar.showing(rng) for _ in range(N_FRESH))}
    excluded = {e.prompt for e in without}
    return [e for prompt, e in drawn.items() if prompt not in excluded]


def choose(
    model: Model, sae: SAE, hook: str, grammar: Grammar, plan: ClampPlan, seed: int = 3, n_prompts: int = 8
) -> Choice:
    """Choose features, prompts and radius.

    Raises:
        RuntimeError: no prefix of the ranking gives `n_prompts` valid flips.

    """
    rng = random.Random(seed)
    order = ranking(model, sae, hook, grammar, rng, plan.rank_by)
    tried = _distinct(grammar, rng)
    best: tuple[int, Clamp, Measurement] | None = None
    for size in SIZES:
        clamp = plan.clamp(order[:size])
        m = measure(model, sae, hook, tried, clamp)
        flips = int(valid_flips(m).sum())
        if best is None or flips > best[0]:
            best = flips, clamp, m
        if flips >= plan.flip_share * len(tried):
            break
    assert best is not None
    flips, clamp, m = best
    if flips < n_prompts:
        raise RuntimeError(f"{grammar.name} at {hook}: the best clamp flips {flips} of {len(tried)} prompts")
    estimates = bypass_estimates(sae, m)
    flipped = valid_flips(m).nonzero()[:, 0]
    flipped = flipped[estimates[flipped].argsort(stable=True)]
    low, high = plan.spread
    places = torch.linspace(low * (flips - 1), high * (flips - 1), n_prompts).round().long()
    chosen = flipped[places].tolist()
    median = float(estimates[chosen].median())
    fresh = _distinct(grammar, rng, without=tried)
    return Choice(
        clamp=clamp,
        examples=tuple(tried[i] for i in chosen),
        radius=min(RADII, key=lambda r: abs(r - median)),
        flips=int(valid_flips(measure(model, sae, hook, fresh, clamp)).sum()),
        fresh=len(fresh),
        flips_in_choice=flips,
        tried_in_choice=len(tried),
        estimates=tuple(round(float(estimates[i]), 4) for i in chosen),
    )
