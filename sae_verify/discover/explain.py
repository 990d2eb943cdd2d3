"""A jailbreak explained: which features it suppressed and which it activated, and what each does when patched back.

Two prompts that ask for the same thing, one of which the model treats differently, are compared at the positions that
they share from the end. In the run of the jailbroken prompt a feature (or the error term, or everything) gets the value
that it has in the base prompt's run; the effect is `(patched - jailbroken) / (base - jailbroken)` of the readout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.attribution import spliced
from sae_verify.discover.subject import ROWS, Subject
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import TokenReadout, readout_values
from sae_verify.model import Prompts, run
from sae_verify.problem import Prompt, Readout
from sae_verify.sae import SAE, Identity

LEAST = 1e-3
"""Readouts that differ by less leave nothing to explain."""


@dataclass(frozen=True)
class Changed:
    """A feature that the jailbreak changed.

    Attributes:
        feature: index.
        base, jailbroken: mean activation over the positions compared.
        written: how much the change moves the residual: the sum over positions of |z - z'| times the row's length.
        effect: share of the readout's change that patching this feature back undoes.
    """

    feature: int
    base: float
    jailbroken: float
    written: float
    effect: float


@dataclass(frozen=True)
class Explanation:
    """What a jailbreak changed.

    Attributes:
        base, jailbroken: readouts of the two prompts.
        positions: how many, counted from the end, were compared and patched.
        suppressed, activated: the features that changed most, in the order of what they write.
        all_suppressed, all_activated: effect of patching back every suppressed, every activated feature.
        all_features: of both. error: of the error term alone. everything: of the residuals as a whole; less than 1
            where the difference also reaches the end by other positions.
    """

    base: float
    jailbroken: float
    positions: int
    suppressed: tuple[Changed, ...]
    activated: tuple[Changed, ...]
    all_suppressed: float
    all_activated: float
    all_features: float
    error: float
    everything: float


@dataclass(frozen=True)
class Recurring:
    """A feature that several explanations name: in how many, on which side, and its mean effect there."""

    feature: int
    suppressed: int
    activated: int
    effect: float


def explain(
    subject: Subject,
    base: Prompt,
    jailbroken: Prompt,
    readout: Readout,
    *,
    count: int = 10,
    positions: int | None = None,
) -> Explanation:
    """Compare a base prompt with a jailbroken one.

    Args:
        subject: model and SAE.
        base: the prompt as the model should treat it.
        jailbroken: the same request, treated differently.
        readout: what tells the two apart.
        count: features on each side, each patched back alone.
        positions: how many from the end are compared; None takes the longest run of equal tokens at the ends, 1 at
            least.

    Cost: 2 count + 7 forward passes.

    Raises:
        InputError and its kinds: the prompts have the same readout, or arguments are not usable.
    """
    good, bad = subject.prompts([base]), subject.prompts([jailbroken])
    (asked,) = subject.readouts(readout, 1)
    shared = _shared(good, bad) if positions is None else positions
    most = min(int(good.lengths[0]), int(bad.lengths[0]))
    if isinstance(shared, bool) or not isinstance(shared, int) or not 1 <= shared <= most:
        raise InputError(f"positions is {positions!r}", rule=f"it must be from 1 to {most}, which both prompts have")
    sae, last = subject.sae, int(bad.lengths[0])
    with torch.no_grad():
        plain, broken = run(subject.model, good, subject.point), run(subject.model, bad, subject.point)
        start, end = (float(readout_values(r.logits.double(), (asked,))[0]) for r in (plain, broken))
        if abs(start - end) < LEAST:
            raise InputError(
                f"the readout is {start:.4g} on both prompts",
                rule=f"they must differ by {LEAST:g}, or there is nothing to explain",
                remedy="choose another readout or pair",
            )
        x = broken.resid[0, last - shared : last]  # (n, d), jailbroken
        y = plain.resid[0, int(good.lengths[0]) - shared : int(good.lengths[0])]  # (n, d), base
        here, there = sae.encode(x), sae.encode(y)  # (n, d_sae)
        change = there - here  # what patching back adds
        moved = torch.nonzero((change != 0).any(dim=0)).flatten()
        size = _written(sae, change, moved, x)
        rise = change[:, moved].sum(dim=0)
        sides = [_longest(moved, size, side, count) for side in (rise > 0, rise < 0)]  # lower when jailbroken, higher
        whole = [moved[rise > 0], moved[rise < 0], moved]
        states = [_with(sae, x, change, f[None]) for side in sides for f in side]
        states += [_with(sae, x, change, group) for group in whole]
        states += [x + (sae.error(y) - sae.error(x)), y]
        values = _replayed(subject, bad, broken.resid, states, asked)
    effects = ((values - end) / (start - end)).tolist()
    sizes = dict(zip(moved.tolist(), size.tolist(), strict=True))
    found = [
        tuple(
            Changed(int(f), float(there[:, f].mean()), float(here[:, f].mean()), sizes[int(f)], effects.pop(0))
            for f in side
        )
        for side in sides
    ]
    return Explanation(start, end, shared, found[0], found[1], *effects)


def recurring(explanations: Sequence[Explanation]) -> tuple[Recurring, ...]:
    """Features by how often they are named, those with the larger mean effect first among equals."""
    sides: dict[int, list[tuple[bool, float]]] = {}
    for one in explanations:
        for side, features in ((True, one.suppressed), (False, one.activated)):
            for changed in features:
                sides.setdefault(changed.feature, []).append((side, changed.effect))
    found = [
        Recurring(
            f, sum(s for s, _ in seen), sum(not s for s, _ in seen), float(np.mean([effect for _, effect in seen]))
        )
        for f, seen in sides.items()
    ]
    return tuple(sorted(found, key=lambda r: (-(r.suppressed + r.activated), -abs(r.effect), r.feature)))


def _shared(good: Prompts, bad: Prompts) -> int:
    """Length of the longest common suffix, 1 at least."""
    one, two = (p.tokens[0, : int(p.lengths[0])].tolist() for p in (good, bad))
    count = 0
    while count < min(len(one), len(two)) and one[-1 - count] == two[-1 - count]:
        count += 1
    return max(1, count)


def _written(sae: SAE, change: Tensor, features: Tensor, x: Tensor) -> Tensor:
    """How much the change of each of these features moves the residual, summed over positions, (n,)."""
    plain = dataclasses.replace(sae, normalization=Identity())
    lengths = plain.feature_rows(features.tolist()).norm(dim=1)  # (n,)
    return (change[:, features].abs() * sae.normalization.output_scale(x)).sum(dim=0) * lengths


def _longest(moved: Tensor, size: Tensor, side: Tensor, count: int) -> Tensor:
    """Features of one side with the largest size, longest first."""
    features, sizes = moved[side], size[side]
    return features[sizes.argsort(descending=True, stable=True)[:count]]


def _with(sae: SAE, x: Tensor, change: Tensor, features: Tensor) -> Tensor:
    """x with these features patched back, (n, d)."""
    only = torch.zeros_like(change)
    only[:, features] = change[:, features]
    return spliced(sae, x, only)


def _replayed(subject: Subject, bad: Prompts, resid: Tensor, states: list[Tensor], asked: TokenReadout) -> Array:
    """Readouts of the jailbroken prompt with its last positions replaced by each of the states (n, d)."""
    last, values = int(bad.lengths[0]), []
    for start in range(0, len(states), ROWS):
        some = states[start : start + ROWS]
        filled = resid.expand(len(some), -1, -1).clone()
        for row, state in enumerate(some):
            filled[row, last - len(state) : last] = state.to(filled.dtype)
        out = run(subject.model, bad.select([0] * len(some)), subject.point, _constant(filled)).logits
        values.append(readout_values(out.double(), (asked,) * len(some)))
    return torch.cat(values).numpy()


def _constant(states: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: states
