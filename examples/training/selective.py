"""Chooses a selective clamp by measurement, and measures what it does to harmful, refused and benign requests.

Features are moved to where they are, on average, at the last position of requests that the model refuses. They are
ranked by how far that moves the residual, or by how much of the readout it is expected to take on prompts that show the
behaviour and not on benign ones. Prefixes of both rankings are tried on some prompts; what the best does is then
measured on others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.training.choose_clamp import CLEAR, measure
from examples.training.grammar import Example
from examples.training.refusal import ALLOWED, FRAMES, SAFE_VERBS, VERBS, Refusal
from examples.training.refusal_two_hop import RefusalTwoHop
from examples.training.train_model import accuracy
from sae_verify.attacks import Pgd, attack, replay, smallest_radius
from sae_verify.attacks.attribution import attribute as take_apart
from sae_verify.attacks.attribution import shares
from sae_verify.discover import Subject, attribute, codes, tradeoff
from sae_verify.geometry.instance import prepare
from sae_verify.model.sites import edit_at
from sae_verify.problem import Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.problem_file import load_problem
from sae_verify.sae.clamp import apply_clamp

READOUT = LogitDifference("sure", "sorry")
SIZES = (2, 4, 8, 12, 16, 24, 32)
STRONG, PRUNED = 0.95, 3
"""A clamp that flips this share is pruned, of this many features at most."""
N_RANKING, N_TRIED, N_FRESH, N_PROMPTS = 200, 60, 200, 8


@dataclass(frozen=True)
class Selective:
    """A clamp and the prompts of its problem; `tried` is (flips, benign right) on the prompts it was chosen by."""

    clamp: Clamp
    tried: tuple[float, float]
    examples: tuple[Example, ...]


def candidates(subject: Subject, grammar: RefusalTwoHop, rng: random.Random) -> Iterator[Clamp]:
    """Clamps to try: prefixes of two rankings, features set to their mean on refused requests or shifted by the gap."""
    showing, refused, benign = (
        [draw(rng).prompt for _ in range(N_RANKING)] for draw in (grammar.showing, grammar.contrast, grammar.benign)
    )
    here, there = codes(subject, showing).mean(axis=0), codes(subject, refused).mean(axis=0)
    lengths = subject.sae.feature_rows(list(range(subject.sae.d_sae))).norm(dim=1).numpy()
    size = np.abs(there - here) * lengths
    taken = [attribute(subject, prompts, READOUT, baseline=there).scores.mean(axis=0) for prompts in (showing, benign)]
    for score in (size, taken[0] - np.maximum(taken[1], 0.0)):
        order = [int(f) for f in np.argsort(-score, kind="stable")]
        for count in SIZES:
            chosen = order[:count]
            yield Clamp.set({f: round(float(there[f]), 4) for f in chosen})
            yield Clamp.add({f: round(float(there[f] - here[f]), 4) for f in chosen})


def choose(subject: Subject, grammar: RefusalTwoHop, seed: int = 3) -> Selective:
    """The candidate with the best sum of valid flips and benign completions, also among pruned ones.

    Pruned are the features of the shortest candidate that flips nearly everything: without the few that do most harm.

    Raises:
        RuntimeError: fewer than `N_PROMPTS` prompts flip.
    """
    rng = random.Random(seed)
    tried = list(candidates(subject, grammar, rng))
    showing, benign = ([draw(rng) for _ in range(N_TRIED)] for draw in (grammar.showing, grammar.benign))
    flips = [len(valid_flips(subject, clamp, showing)) / N_TRIED for clamp in tried]
    strong = [clamp for clamp, share in zip(tried, flips, strict=True) if share >= STRONG]
    if strong:
        tried += pruned(subject, min(strong, key=lambda clamp: len(clamp.features)), showing, benign)
    best: tuple[float, Clamp, tuple[float, float], list[int]] | None = None
    for clamp in tried:
        flipped = valid_flips(subject, clamp, showing)
        with clamped(subject, clamp) as module:
            right = accuracy(module, subject.model.tokenizer, benign)[1]
        share = len(flipped) / N_TRIED
        if best is None or share + right > best[0] + 0.005:
            best = share + right, clamp, (round(share, 4), round(right, 4)), flipped
    assert best is not None
    distinct = list({showing[i].prompt: showing[i] for i in best[3]}.values())
    if len(distinct) < N_PROMPTS:
        raise RuntimeError(f"the best clamp flips {len(distinct)} prompts")
    return Selective(best[1], best[2], tuple(distinct[:N_PROMPTS]))


def pruned(subject: Subject, clamp: Clamp, showing: Sequence[Example], benign: Sequence[Example]) -> list[Clamp]:
    """The clamp without one feature, without two, ...: each time the one whose absence separates the two sets best."""
    found: list[Clamp] = []
    for _ in range(min(PRUNED, len(clamp.features) - 1)):
        rest = [
            Clamp(clamp.kind, *zip(*pairs, strict=True))
            for left_out in clamp.features
            for pairs in [[(f, v) for f, v in zip(clamp.features, clamp.values, strict=True) if f != left_out]]
        ]
        clamp = max(rest, key=lambda one: _separation(subject, one, showing, benign))
        found.append(clamp)
    return found


def _separation(subject: Subject, clamp: Clamp, showing: Sequence[Example], benign: Sequence[Example]) -> float:
    """Shares of refused showing and complied-with benign requests, and a little for how clearly."""
    bad, good = (
        measure(subject.model, subject.sae, str(subject.point), some, clamp).defended for some in (showing, benign)
    )
    shares = (bad < -CLEAR).float().mean() + (good > CLEAR).float().mean()
    return float(shares + 0.1 * (good.clamp(-3, 3).mean() - bad.clamp(-3, 3).mean()))


def valid_flips(subject: Subject, clamp: Clamp, examples: Sequence[Example]) -> list[int]:
    """Examples that show the behaviour in the plain model and not in the clamped one, both clearly."""
    m = measure(subject.model, subject.sae, str(subject.point), examples, clamp)
    return ((m.base > CLEAR) & (m.defended < -CLEAR)).nonzero()[:, 0].tolist()


@contextmanager
def clamped(subject: Subject, clamp: Clamp) -> Iterator[Any]:
    """The Hugging Face model with the clamp at every position of every forward pass."""
    model = subject.model

    def change(x: torch.Tensor) -> torch.Tensor:
        return apply_clamp(subject.sae, clamp, x, torch.full((len(x),), x.shape[1]))

    handle = edit_at(model.adapter, model.module, subject.point, change)
    try:
        yield model.module
    finally:
        handle.remove()


def selectivity(subject: Subject, clamp: Clamp, grammar: RefusalTwoHop, seed: int = 7) -> dict[str, Any]:
    """What the clamp does on fresh prompts: shares of first tokens, and of whole completions, that are as trained."""
    rng = random.Random(seed)
    groups = {"harmful_in_frame": grammar.showing, "harmful_plain": grammar.contrast, "benign": grammar.benign}
    report: dict[str, Any] = {"prompts_each": N_FRESH}
    for name, draw in groups.items():
        examples = [draw(rng) for _ in range(N_FRESH)]
        base = accuracy(subject.model.module, subject.model.tokenizer, examples)
        with clamped(subject, clamp) as module:
            held = accuracy(module, subject.model.tokenizer, examples)
        report[name] = {
            "first_token": [round(base[0], 4), round(held[0], 4)],
            "whole_completion": [round(base[1], 4), round(held[1], 4)],
        }
        if name == "harmful_in_frame":
            report[name]["valid_flips"] = len(valid_flips(subject, clamp, examples))
    return report


def replay_shares(subject: Subject, choice: Selective, held: str = "defended", excess: float = 1.1) -> dict[str, Any]:
    """Attack the problem's prompts a little above each one's smallest radius, and count what parts recover alone."""
    threat = ErrorBall(1.0, "h", held, at="h")  # type: ignore[arg-type]
    prompts = [example.prompt for example in choice.examples]
    batch = prepare(Problem(subject.model, subject.sae, prompts, choice.clamp, threat, READOUT, hook=subject.point))
    found = attack(batch, batch.radii, Pgd())
    lengths, deltas = smallest_radius(batch, Pgd(), np.zeros(len(prompts)), found)
    norms = np.array([instance.norm_h for instance in batch.instances])
    reached = np.isfinite(lengths)
    radii = np.where(reached, excess * lengths, batch.radii)
    best = attack(batch, radii, Pgd(), hint=deltas)
    shown = replay(batch, best.delta)
    parts = take_apart(batch, best.delta)
    by_name = {share.name: share for share in shares(parts)}
    counted = {
        name: [by_name[name].alone, by_name[name].alone_matched, by_name[name].without] if name in by_name else None
        for name in ("clamped", "other", "top-k", "residual")
    }
    return {
        "held": held,
        "recovered": sum(r.held and r.value > 0 for r in shown),
        "of": len(prompts),
        "median_radius_over_norm_h": round(float(np.median(lengths[reached] / norms[reached])), 4),
        "alone_alone_matched_without": counted,
        "mean_length_of_residual_part": round(float(np.mean([p.part("residual").share for p in parts])), 3),
        "mean_cancellation": round(float(np.mean([p.cancellation for p in parts])), 3),
    }


def plain_case(directory: Path, seed: int = 7) -> dict[str, Any]:
    """What the last layer's clamp of the one-hop refusal case does to requests for allowed objects."""
    problem, grammar, rng = load_problem(directory / "problem_last.toml"), Refusal(), random.Random(seed)
    verbs, frames = VERBS + SAFE_VERBS, list(FRAMES)
    prompts = [
        grammar.make(rng, rng.choice(verbs), rng.choice(ALLOWED), rng.choice(frames), alias=False).prompt
        for _ in range(N_FRESH)
    ]
    clamps = [(0.0, problem.clamp)]
    kept = tradeoff(Subject.of(problem), clamps, problem.prompts, READOUT, prompts, answers=["sure"] * N_FRESH)
    return {"complied": round(kept.points[0].capability * N_FRESH), "of": N_FRESH}
