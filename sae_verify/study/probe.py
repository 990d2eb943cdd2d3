"""The latent probe: a class's features are ablated, and perturbations restore a linear probe's verdict.

The probe reads the residual itself, so the worst case over a held cell and a ball is a linear program: attacks are
exact up to rounding, and certified radii meet them. Where targeted probe perturbation is published (arXiv 2606.18322),
features and probe are of one layer, too.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sae_verify.discover.contrast import contrast
from sae_verify.discover.subject import Subject, residuals
from sae_verify.errors import InputError, PromptError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.sae.clamp import clamped
from sae_verify.study.items import Item, Items
from sae_verify.study.ladder import Exact, with_threat
from sae_verify.study.plan import Plan
from sae_verify.study.probe_proof import prove_radius
from sae_verify.study.probe_rows import Question, probe_rows
from sae_verify.study.store import Row
from sae_verify.study.subjects import spread

RIDGE = 1e-3
"""Weight of ||w||^2 beside the mean logistic loss, in units of standardised residuals."""
ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe: score(x) = weight . x + bias, positive for the class.

    Attributes:
        weight: (d,). bias: its offset.
        accuracy: on rows it was not trained on.

    """

    weight: Array
    bias: float
    accuracy: float

    def score(self, x: Array) -> Array:
        """Scores of residuals (..., d)."""
        return x @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class ProbeSetup:
    """A probe study, ready to be attacked.

    Attributes:
        subject: model and SAE.
        probes, clamps: by class.
        flips: rows whose probe says their class before the clamp and not after it. known, flipped: counts.

    """

    subject: Subject
    probes: dict[str, Probe]
    clamps: dict[str, Clamp]
    flips: tuple[Item, ...]
    known: int
    flipped: int


def set_up_probes(plan: Plan, subject: Subject, items: Items) -> ProbeSetup:
    """Train a probe and find the features to ablate for every class; keep valid flips.

    Raises:
        PromptError: there are fewer than two classes. InputError: too few features tell a class from the others.

    """
    labels = sorted({item.positive for item in items.find})
    if len(labels) < 2:
        raise PromptError(
            f"the labels are {labels}", rule="a probe tells classes apart", remedy="use positive as the label"
        )
    train, test = last_residuals(subject, items.find), last_residuals(subject, items.test)
    known = flipped = 0
    probes, clamps, flips = {}, {}, []
    for label in labels:
        of_class = np.array([item.positive == label for item in items.find])
        shown = np.array([item.positive == label for item in items.test])
        probes[label] = probe = train_probe(train, of_class, test, shown)
        features = plan.features or _features(plan, subject, items, of_class)
        clamps[label] = clamp = Clamp(plan.kind, features, (plan.value,) * len(features))
        after = clamped(subject.sae.to(torch.float64), clamp, torch.from_numpy(test)).numpy()
        base, defended = probe.score(test) > 0, probe.score(after) > 0
        known += int((shown & base).sum())
        flips += [items.test[place] for place in np.flatnonzero(shown & base & ~defended)]
    flipped = len(flips)
    grouped = [dataclasses.replace(item, group=item.positive) for item in flips]
    return ProbeSetup(subject, probes, clamps, spread(grouped, plan.limit, plan.seed), known, flipped)


def _features(plan: Plan, subject: Subject, items: Items, of_class: np.ndarray) -> tuple[int, ...]:
    first = [item.text for item, ok in zip(items.find, of_class, strict=True) if ok]
    second = [item.text for item, ok in zip(items.find, of_class, strict=True) if not ok]
    found = tuple(one.feature for one in contrast(subject, first, second, seed=plan.seed).top(plan.count))
    if len(found) < plan.count:
        raise InputError(
            f"{len(found)} features qualify and {plan.count} are asked for",
            rule="a clamp has as many features as are asked for",
            remedy="use a smaller --count",
        )
    return found


def last_residuals(subject: Subject, items: tuple[Item, ...]) -> Array:
    """Residuals at the hook and the last position, (n, d), from the plain model."""
    prompts = subject.prompts([item.text for item in items])
    found, start = [], 0
    for states in residuals(subject, prompts):
        last = prompts.last[start : start + len(states)]
        found.append(states[torch.arange(len(states)), last].double().numpy())
        start += len(states)
    return np.concatenate(found)


def train_probe(x: Array, of_class: np.ndarray, test: Array, shown: np.ndarray) -> Probe:
    """Logistic regression on standardised residuals x (n, d), with a small ridge; deterministic."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    rows, target = torch.from_numpy((x - mean) / scale), torch.from_numpy(np.where(of_class, 1.0, 0.0))
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss_of(rows @ weight + bias, target) + RIDGE * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    w = weight.detach().numpy() / scale
    probe = Probe(w, float(bias.detach()) - float(w @ mean), 0.0)
    return dataclasses.replace(probe, accuracy=float(((probe.score(test) > 0) == shown).mean()))


def study_probe(plan: Plan, setup: ProbeSetup, item: Item, exact: Exact, out: Path) -> list[Row]:
    """Everything about one valid flip of a probe."""
    start = time.perf_counter()
    probe, clamp = setup.probes[item.positive], setup.clamps[item.positive]
    question = Question(plan, item, probe.weight, probe.bias, exact)
    rows: list[Row] = []
    batches: dict[str, Batch] = {}
    for held in ("free", "preactivations", "defended", "code"):
        wanted = held in plan.threats or (held in ("free", "defended") and "drift" in plan.threats)
        if wanted:
            batches[held] = prepare(with_threat(_problem(setup.subject, clamp, item), held))
    for row in probe_rows(question, batches):
        if row.get("budget") == "shortest":
            threat = row["threat"] if row["threat"] != "drift" else "free"
            if plan.certify is None or threat in plan.certify:
                row = row | prove_radius(question, batches[threat], threat, out, row.get("attacked_radius"))
            else:
                row = row | {"why_not_certified": "no certificate was asked for this threat"}
        rows.append(row)
    seconds = round(time.perf_counter() - start, 3)
    return [row | {"seconds": seconds, "probe_accuracy": probe.accuracy} for row in rows]


def _problem(subject: Subject, clamp: Clamp, item: Item) -> Problem:
    """One row as a problem; the tokens of its readout play no part, the probe does."""
    return Problem(
        subject.model,
        subject.sae,
        [item.text],
        clamp,
        ErrorBall(0.0, held="free"),
        LogitDifference(0, 1),
        hook=subject.point,
    )
