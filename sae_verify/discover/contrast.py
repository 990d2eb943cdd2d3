"""Features by contrast: which tell one set of prompts from another, or a single prompt from a set.

Mean activation on one set less that on the other is the common procedure; the AUROC and the effect size beside it say
whether the difference is one of a few outliers. A feature that tells two sets of prompts apart need not cause anything:
see `attribution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sae_verify.discover.codes import Over, codes, firing
from sae_verify.discover.statistics import Estimate, auroc, effect_size, largest_by_chance, mean_difference
from sae_verify.discover.subject import Subject
from sae_verify.errors import InputError, PromptError
from sae_verify.geometry.held_cell import Array
from sae_verify.problem import Prompt

By = Literal["difference", "auroc", "effect"]


@dataclass(frozen=True)
class FeatureContrast:
    """One feature; intervals are (low, high), NaN where the sample says nothing.

    Attributes:
        feature: index.
        first, second: mean activations on the two sets.
        first_firing, second_firing: shares of the prompts on which the feature is on.
        difference: of the means, in the SAE's units.
        auroc: chance that the feature is larger on a prompt of the first set.
        effect: Hedges' g.
        beyond_chance: whether the AUROC is further from 1/2 than that of the best feature for shuffled prompts.
    """

    feature: int
    first: float
    second: float
    first_firing: float
    second_firing: float
    difference: float
    difference_interval: tuple[float, float]
    auroc: float
    auroc_interval: tuple[float, float]
    effect: float
    effect_interval: tuple[float, float]
    beyond_chance: bool


@dataclass(frozen=True, eq=False)
class Contrast:
    """Every feature on two sets of prompts.

    Attributes:
        first, second: (n, d_sae) and (k, d_sae) activations; k = 0 without a second set.
        difference, auroc, effect: (d_sae,) each; without a second set the difference is the mean activation itself and
            the others are NaN.
        chance: |AUROC - 1/2| that the best of all features stays below for shuffled prompts, 95 times in 100; NaN
            without a second set.
        level: of the intervals.
    """

    first: Array
    second: Array
    difference: Estimate
    auroc: Estimate
    effect: Estimate
    chance: float
    level: float

    def top(self, count: int = 10, by: By = "difference", *, both: bool = False) -> tuple[FeatureContrast, ...]:
        """The features that are larger on the first set, strongest first; features that are never on are left out.

        Args:
            count: how many at most.
            by: what to rank by; ties go to the larger difference.
            both: also those that are larger on the second set, ranked by size.
        """
        if by not in get_args(By):
            raise InputError(f"by is {by!r}", rule=f"it must be one of {', '.join(get_args(By))}")
        score = {"difference": self.difference.value, "auroc": self.auroc.value - 0.5, "effect": self.effect.value}[by]
        if np.isnan(score).all():
            raise InputError(f"by is {by!r} and there is no second set", rule="without one, rank by 'difference'")
        size = np.abs(score) if both else score
        order = np.lexsort((-np.abs(self.difference.value), -size))
        alive = (self.first != 0).any(axis=0) | (self.second != 0).any(axis=0)
        chosen = [int(f) for f in order if alive[f] and size[f] > 0][:count]
        return tuple(self.row(feature) for feature in chosen)

    def row(self, feature: int) -> FeatureContrast:
        """One feature."""

        def interval(estimate: Estimate) -> tuple[float, float]:
            return float(estimate.low[feature]), float(estimate.high[feature])

        second = self.second[:, feature] if len(self.second) else np.full(1, np.nan)
        return FeatureContrast(
            feature=feature,
            first=float(self.first[:, feature].mean()),
            second=float(second.mean()),
            first_firing=float(firing(self.first[:, feature])),
            second_firing=float(firing(second)) if len(self.second) else float("nan"),
            difference=float(self.difference.value[feature]),
            difference_interval=interval(self.difference),
            auroc=float(self.auroc.value[feature]),
            auroc_interval=interval(self.auroc),
            effect=float(self.effect.value[feature]),
            effect_interval=interval(self.effect),
            beyond_chance=bool(abs(self.auroc.value[feature] - 0.5) > self.chance),
        )


def contrast(
    subject: Subject,
    first: Sequence[Prompt],
    second: Sequence[Prompt] = (),
    *,
    over: Over = "last",
    level: float = 0.95,
    seed: int = 0,
) -> Contrast:
    """Compare every feature's activation on two sets of prompts.

    Args:
        subject: model and SAE.
        first: prompts that show what is looked for; a single one is enough to rank by difference and AUROC.
        second: prompts that do not; without any, features are ranked by their activation on `first` alone.
        over: the position, or how a prompt's words are pooled.
        level: of the intervals, between 0 and 1.
        seed: of the shuffles behind `chance`.

    Cost: one forward pass a prompt.

    Raises:
        PromptError, TokenError, InputError: prompts or arguments are not usable.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}", rule="it must be between 0 and 1", remedy="use level=0.95")
    if not first or isinstance(first, str) or isinstance(second, str):
        raise PromptError("the first set is no list of prompts", rule="give a non-empty list", remedy="use ['...']")
    one = codes(subject, first, over)
    if not second:
        nothing = np.full(subject.sae.d_sae, np.nan)
        value = one.mean(axis=0)
        return Contrast(
            one,
            one[:0],
            Estimate(value, nothing, nothing),
            Estimate(nothing, nothing, nothing),
            Estimate(nothing, nothing, nothing),
            float("nan"),
            level,
        )
    two = codes(subject, second, over)
    return Contrast(
        one,
        two,
        mean_difference(one, two, level),
        auroc(one, two, level),
        effect_size(one, two, level),
        largest_by_chance(one, two, seed=seed),
        level,
    )
