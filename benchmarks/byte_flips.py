"""Clamps that suppress what a byte-level model would say: the prompts on which bounds through blocks are measured.

A prompt is a stretch of held-out text after which the model says the right byte, clearly. The behaviour is that byte
above the runner-up. Features are ranked by attribution to that difference at the SAE's hook, and the fewest of them are
set to zero, wherever they are on, that turn it around: one clamp a prompt. What cannot be turned around is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sae_verify.discover import Subject, attribute
from sae_verify.model import Model, encode_prompts, run
from sae_verify.problem import Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.sae import SAE

LENGTHS = (24, 48)
"""Of a prompt in bytes: from the first to the last."""
MOST = 24
"""Features of one clamp."""
CLEAR = 1.0
"""Least logit difference of the behaviour without the clamp."""
LEAST = 0.05
"""Least logit difference the other way with it: more than what float32 makes of it."""


@dataclass(frozen=True)
class Flip:
    """One prompt with its clamp: `positive` leads `negative` by `base` without it, and by `clamped` < 0 with it."""

    tokens: list[int]
    positive: int
    negative: int
    features: list[int]
    base: float
    clamped: float


def find(model: Model, sae: SAE, text: Tensor, count: int, generator: torch.Generator) -> Iterator[Flip]:
    """Flips of random stretches of text (n,), until there are so many or `50 * count` stretches were tried."""
    subject = Subject(model, sae)
    found = 0
    for _ in range(50 * count):
        length = int(torch.randint(LENGTHS[0], LENGTHS[1] + 1, (1,), generator=generator))
        start = int(torch.randint(len(text) - length, (1,), generator=generator))
        flip = _flip(subject, text[start : start + length].tolist(), int(text[start + length]))
        if flip is not None:
            yield flip
            found += 1
            if found == count:
                return


def _flip(subject: Subject, tokens: list[int], said: int) -> Flip | None:
    """The fewest features, taken by attribution, that turn the behaviour around; None if it is not there or stays."""
    with torch.no_grad():
        logits = run(subject.model, encode_prompts(subject.model, [tokens]), subject.point).logits[0]
    first, second = (int(i) for i in logits.topk(2).indices)
    if first != said or float(logits[first] - logits[second]) < CLEAR:
        return None
    ranked = attribute(subject, [tokens], LogitDifference(first, second)).top(MOST)
    order = [effect.feature for effect in ranked]
    if not order:
        return None
    ablated = _ablated(subject, tokens, order)
    value = ablated[:, first] - ablated[:, second]  # (features,)
    turned = (value < -LEAST).nonzero()[:, 0].tolist()
    if not turned:
        return None
    fewest = turned[0]
    base = float(logits[first] - logits[second])
    return Flip(tokens, first, second, order[: fewest + 1], base, float(value[fewest]))


@torch.no_grad()
def _ablated(subject: Subject, tokens: list[int], order: list[int]) -> Tensor:
    """Logits with the first 1, 2, ... features at zero, (len(order), V)."""
    sae = subject.sae
    keep = torch.ones(len(order), 1, sae.d_sae)
    for row, _ in enumerate(order):
        keep[row, 0, order[: row + 1]] = 0.0

    def edit(x: Tensor) -> Tensor:
        z = sae.encode(x)
        return x + sae.write(z * keep - z, x)

    return run(subject.model, encode_prompts(subject.model, [tokens] * len(order)), subject.point, edit).logits


def problem(flip: Flip, model: Model, sae: SAE, threat: ErrorBall, title: str) -> Problem:
    """The question whether the behaviour can be brought back."""
    clamp = Clamp.set(dict.fromkeys(flip.features, 0.0))
    return Problem(model, sae, [flip.tokens], clamp, threat, LogitDifference(flip.positive, flip.negative), title=title)


def save(flips: list[Flip], path: Path) -> None:
    """Write them as JSON; either the whole file is there or none."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([asdict(flip) for flip in flips]), encoding="ascii")
    os.replace(temporary, path)


def load(path: Path) -> list[Flip]:
    """Read what `save` wrote."""
    return [Flip(**fields) for fields in json.loads(path.read_text(encoding="ascii"))]
