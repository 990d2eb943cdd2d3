"""What a clamp costs: behaviour against benign capability, by the clamp's strength, always on or only when needed.

The behaviour is the share of prompts on which the readout stays positive; capability is the share of benign prompts
whose next token stays what it was (or is the given answer), and how far their distribution moves. A conditional clamp
acts from the first position on at which the watched features fire, which a causal run can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.statistics import proportion
from sae_verify.discover.subject import Readouts, Subject, chunks, logits, residuals, words
from sae_verify.errors import InputError
from sae_verify.geometry.instance import readout_values
from sae_verify.geometry.rows import checked_features
from sae_verify.model import Edit, Prompts
from sae_verify.problem import Clamp, Prompt, Token
from sae_verify.sae.clamp import apply_clamp


@dataclass(frozen=True)
class Condition:
    """The sum of these features' activations at a position exceeds the threshold."""

    features: tuple[int, ...]
    threshold: float


@dataclass(frozen=True)
class Point:
    """One strength; intervals are 95% (Clopper-Pearson).

    Attributes:
        strength: as given.
        behaviour: share of the behaviour prompts whose readout is positive.
        capability: share of the benign prompts whose most likely next token is right.
        divergence: mean KL divergence in nats of the benign next-token distribution from the plain model's.
        acted: share of the benign prompts on which the clamp acted at all.
    """

    strength: float
    behaviour: float
    behaviour_interval: tuple[float, float]
    capability: float
    capability_interval: tuple[float, float]
    divergence: float
    acted: float


@dataclass(frozen=True)
class Tradeoff:
    """The curve, and the same for the plain model."""

    plain: Point
    points: tuple[Point, ...]


def sweep(clamp: Clamp, values: Iterable[float]) -> tuple[tuple[float, Clamp], ...]:
    """The clamp with every feature's value replaced by each of these: (value, clamp)."""
    return tuple(
        (float(v), Clamp(clamp.kind, clamp.features, (float(v),) * len(clamp.features), clamp.positions))
        for v in values
    )


def calibrate_condition(
    subject: Subject, features: Sequence[int], benign: Sequence[Prompt], rate: float = 0.05
) -> Condition:
    """The lowest threshold that holds on benign prompts at most at this rate, on average (conformal).

    Raises:
        InputError: the rate is no rate, or takes more prompts. FeatureError: a feature does not exist.
    """
    if not 0 < rate < 1:
        raise InputError(f"rate is {rate!r}", rule="it must be between 0 and 1", remedy="use rate=0.05")
    chosen = checked_features(list(features), subject.sae.d_sae).tolist()
    prompts = subject.prompts(benign)
    rank = int(np.ceil((len(prompts) + 1) * (1 - rate)))
    if rank > len(prompts) or not chosen:
        raise InputError(
            f"{len(prompts)} benign prompts and {len(chosen)} features for a rate of {rate:g}",
            rule=f"that takes {int(np.ceil(1 / rate)) - 1} prompts and one feature at least",
            remedy="give more prompts, or allow a higher rate",
        )
    peaks = []
    for (_, some), resid in zip(chunks(prompts), residuals(subject, prompts), strict=True):
        total = subject.sae.encode(resid)[..., chosen].sum(dim=-1)  # (n, T)
        peaks.append(total.masked_fill(~words(subject, some), -torch.inf).amax(dim=1))
    return Condition(tuple(chosen), float(torch.cat(peaks).sort().values[rank - 1]))


def clamp_edit(subject: Subject, clamp: Clamp, condition: Condition | None = None) -> Callable[[Prompts], Edit]:
    """The clamp, where the condition lets it act, as an edit for the prompts of one run."""

    def edit(prompts: Prompts) -> Edit:
        def change(x: Tensor) -> Tensor:
            moved = apply_clamp(subject.sae, clamp, x, prompts.lengths)
            return moved if condition is None else torch.where(_acts(subject, condition, prompts, x), moved, x)

        return change

    return edit


def _acts(subject: Subject, condition: Condition, prompts: Prompts, x: Tensor) -> Tensor:
    """Where the clamp acts, (n, T, 1) bool: from the first word on at which the condition holds."""
    fired = subject.sae.encode(x)[..., list(condition.features)].sum(dim=-1) > condition.threshold  # (n, T)
    return ((fired & words(subject, prompts)).cumsum(dim=1) > 0)[..., None]


def _log_probabilities(subject: Subject, values: Tensor) -> Tensor:
    """Of the next token, (n, V), from logits before any final soft-cap."""
    cap = getattr(subject.model.config, "final_logit_softcapping", None)
    return (values if cap is None else cap * torch.tanh(values / cap)).log_softmax(dim=1)


def tradeoff(
    subject: Subject,
    clamps: Sequence[tuple[float, Clamp]],
    behaviour: Sequence[Prompt],
    to: Readouts,
    benign: Sequence[Prompt],
    *,
    answers: Sequence[Token] | None = None,
    condition: Condition | None = None,
) -> Tradeoff:
    """Measure behaviour and capability at every strength, on the real model.

    Args:
        subject: model and SAE.
        clamps: (strength, clamp); see `sweep`.
        behaviour: prompts that should not show the behaviour.
        to: the readout, positive where they do.
        benign: prompts whose next token should stay right.
        answers: their right next tokens; None takes the plain model's.
        condition: when the clamp acts; None for always.

    Raises:
        InputError and its kinds: prompts, readouts or answers are not usable.
    """
    bad, good = subject.prompts(behaviour), subject.prompts(benign)
    readouts = subject.readouts(to, len(bad))
    plain = logits(subject, good)  # (n, V)
    right = plain.argmax(dim=1) if answers is None else torch.tensor([subject.token(a) for a in answers])
    if len(right) != len(good):
        raise InputError(f"{len(right)} answers for {len(good)} prompts", rule="give one a prompt")
    base = _log_probabilities(subject, plain)

    def point(strength: float, edit: Callable[[Prompts], Edit] | None) -> Point:
        shown = int((readout_values(logits(subject, bad, edit), readouts) > 0).sum())
        there = logits(subject, good, edit)
        kept = int((there.argmax(dim=1) == right).sum())
        shares = proportion(np.array([shown]), len(bad)), proportion(np.array([kept]), len(good))
        intervals = [(float(s.low[0]), float(s.high[0])) for s in shares]
        moved = (base.exp() * (base - _log_probabilities(subject, there))).sum(dim=1).mean()
        acted = 0.0 if edit is None else _acted(subject, good, condition)
        return Point(
            strength,
            shown / len(bad),
            intervals[0],
            kept / len(good),
            intervals[1],
            max(0.0, float(moved)),
            acted,
        )

    points = tuple(point(strength, clamp_edit(subject, clamp, condition)) for strength, clamp in clamps)
    return Tradeoff(point(0.0, None), points)


def _acted(subject: Subject, prompts: Prompts, condition: Condition | None) -> float:
    if condition is None:
        return 1.0
    found = [
        _acts(subject, condition, some, resid)[..., 0].any(dim=1)
        for (_, some), resid in zip(chunks(prompts), residuals(subject, prompts), strict=True)
    ]
    return float(torch.cat(found).double().mean())
