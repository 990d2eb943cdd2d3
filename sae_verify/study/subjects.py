"""A study's model, SAE and rows, the features that are clamped, and which rows are valid flips."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.attribution import attribute
from sae_verify.discover.contrast import contrast
from sae_verify.discover.subject import Subject, logits, residuals, words
from sae_verify.errors import InputError, PromptError
from sae_verify.geometry.instance import readout_values
from sae_verify.model import Edit, Prompts, load_model
from sae_verify.problem import Clamp, ErrorBall, Problem
from sae_verify.sae import SAE, load_sae, save_sae, train_sae
from sae_verify.sae.base import Source
from sae_verify.sae.clamp import apply_clamp
from sae_verify.study.items import Item, Items, read_items
from sae_verify.study.plan import Plan

TRAIN_STEPS = 1200
TRAIN_BATCH = 512
FEATURES_PER_WIDTH = 4
"""Of the SAEs that the sparsity sweep trains."""


@dataclass(frozen=True, eq=False)
class Setup:
    """One configuration of a study, ready to be attacked.

    Attributes:
        subject: model and SAE.
        clamp: with the features that were found.
        flips: rows where the plain model shows the behaviour and the clamped one does not, `limit` of them at most.
        known: rows that show the behaviour in the plain model, and have a chance to be a flip.
        flipped: how many of them are.

    """

    subject: Subject
    clamp: Clamp
    flips: tuple[Item, ...]
    known: int
    flipped: int

    def problem(self, items: tuple[Item, ...], held: str = "free", radius: float = 0.0) -> Problem:
        """The question for some rows."""
        return Problem(
            self.subject.model,
            self.subject.sae,
            [item.text for item in items],
            self.clamp,
            ErrorBall(radius, held=held),  # type: ignore[arg-type]
            [item.readout for item in items],
            hook=self.subject.point,
        )


def load(plan: Plan) -> tuple[Subject, Items]:
    """Load what a plan names.

    Raises:
        InputError and its kinds: something is missing or does not fit.

    """
    items = read_items(plan.prompts)
    return Subject(load_model(plan.model), load_sae(plan.sae), plan.hook), items


def find_features(subject: Subject, items: Items, plan: Plan, count: int) -> tuple[int, ...]:
    """The features to clamp, strongest first.

    Raises:
        PromptError: the way of finding needs contrast rows, and there are none.
        InputError: fewer than `count` features qualify.

    """
    if plan.find == "promotes":
        found = attribute(subject, [i.text for i in items.find], [i.readout for i in items.find]).top(count)
        features = tuple(one.feature for one in found)
    else:
        if not items.contrast:
            raise PromptError(
                f"find is {plan.find!r} and {plan.prompts} has no contrast rows",
                rule="features by contrast need prompts that do not show the behaviour",
                remedy='add rows with "role": "contrast", or use --find promotes',
            )
        first, second = [i.text for i in items.find], [i.text for i in items.contrast]
        if plan.find == "opposes":
            first, second = second, first
        features = tuple(one.feature for one in contrast(subject, first, second, seed=plan.seed).top(count))
    if len(features) < count:
        raise InputError(
            f"{len(features)} features qualify and {count} are asked for",
            rule="a clamp has as many features as are asked for",
            remedy="use a smaller --features",
        )
    return features


def set_up(plan: Plan, subject: Subject, items: Items) -> Setup:
    """Find features, clamp, and keep valid flips."""
    features = plan.features or find_features(subject, items, plan, plan.count)
    clamp = Clamp(plan.kind, features, (plan.value,) * len(features))
    base, defended = readouts(subject, items.test, None), readouts(subject, items.test, clamp)
    known = base > 0
    if plan.study == "unlearning":  # a question is known when it is answered rightly in every order of its options
        unknown = {item.group for item, good in zip(items.test, known, strict=True) if not good}
        known = np.array([item.group not in unknown for item in items.test])
    flips = [item for item, is_known, value in zip(items.test, known, defended, strict=True) if is_known and value < 0]
    chosen = spread(flips, plan.limit, plan.seed)
    return Setup(subject, clamp, chosen, int(known.sum()), len(flips))


def readouts(subject: Subject, items: tuple[Item, ...], clamp: Clamp | None) -> np.ndarray:
    """Readouts of the real model, plain or clamped, (n,)."""
    prompts = subject.prompts([item.text for item in items])
    values = logits(subject, prompts, None if clamp is None else clamping(subject.sae, clamp))
    return readout_values(values, subject.readouts([item.readout for item in items], len(items))).numpy()


def clamping(sae: SAE, clamp: Clamp) -> Callable[[Prompts], Edit]:
    """The clamp as an edit, for any prompts."""
    return lambda prompts: lambda x: apply_clamp(sae, clamp, x, prompts.lengths)


def spread(flips: list[Item], limit: int, seed: int) -> tuple[Item, ...]:
    """At most `limit` rows, drawn so that every group is visited before any is visited again; in file order."""
    order = np.random.default_rng(seed).permutation(len(flips))
    seen: dict[str, int] = {}
    ranked = []
    for place in order:
        group = flips[place].group
        seen[group] = seen.get(group, 0) + 1
        ranked.append((seen[group], len(ranked), int(place)))
    kept = sorted(place for _, _, place in sorted(ranked)[:limit])
    return tuple(flips[place] for place in kept)


def trained_subject(subject: Subject, items: Items, k: int, out: Path, seed: int) -> Subject:
    """The same model with a TopK SAE of another sparsity, trained on all rows' residuals and stored below `out`."""
    place = out / f"sae_k{k}"
    if not place.exists():
        every = [item.text for item in dict.fromkeys((*items.find, *items.contrast, *items.test))]
        prompts = subject.prompts(every)
        real = words(subject, prompts)
        states = torch.cat(list(_rows(subject, prompts, real))).float()
        width = FEATURES_PER_WIDTH * states.shape[1]
        sae, _ = train_sae(
            states, architecture="topk", d_sae=width, k=k, steps=TRAIN_STEPS, batch=TRAIN_BATCH, seed=seed
        )
        named: SAE = dataclasses.replace(sae, source=Source(hook_name=str(subject.point)))
        temporary = save_sae(named, place.with_name(f".{place.name}"))
        temporary.rename(place)
    return Subject(subject.model, load_sae(place), subject.point)


def _rows(subject: Subject, prompts: Prompts, real: Tensor) -> Iterator[Tensor]:
    """Residuals of real tokens, (n, d), some prompts at a time."""
    start = 0
    for states in residuals(subject, prompts):
        mask = real[start : start + len(states), : states.shape[1]]
        yield states[mask]
        start += len(states)
