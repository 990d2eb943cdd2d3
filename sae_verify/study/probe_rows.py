"""Rows of the probe study: exact linear worst cases, replayed on the real model, and their controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.attacks import replay
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.inside import inside
from sae_verify.geometry.instance import Batch, clamp_edit
from sae_verify.geometry.least_norm import least_norm
from sae_verify.geometry.worst_case import worst_case
from sae_verify.model import run
from sae_verify.study.drift import allowed_drift, drift_of
from sae_verify.study.items import Item
from sae_verify.study.ladder import INWARD, ROOM, SHORTENED, Exact
from sae_verify.study.metrics import preservation
from sae_verify.study.plan import Plan
from sae_verify.study.store import Row
from sae_verify.study.suffix import ProbeReadout, Target, cut, input_rows

LARGEST = 20.0
"""Times ||h||: the largest radius tried."""
ABOVE = 1e-5
"""How far above zero the score is aimed, so that rounding in the run's own dtype does not undo the recovery."""
DRAWS = 256
HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Question:
    """One row of a probe study: the plan, the row, and the probe weight . x + bias."""

    plan: Plan
    item: Item
    weight: Array
    bias: float
    exact: Exact

    def score(self, state: Array) -> float:
        """Of one residual."""
        return float(state @ self.weight + self.bias)


def probe_rows(question: Question, batches: dict[str, Batch]) -> Iterator[Row]:
    """Attacks at every budget and the shortest, for every threat; then controls, parts, and the input alone."""
    plan, item = question.plan, question.item
    first = next(iter(batches.values()))
    common: Row = {"config": "base", "prompt": item.name, "group": item.group}
    shortest: dict[str, Array | None] = {}
    for threat in plan.threats:
        batch = batches["free" if threat == "drift" else threat]
        instance = batch.instances[0]
        head = common | {
            "kind": "attack",
            "threat": threat,
            "norm_h": instance.norm_h,
            "norm_e": instance.norm_e,
            "readout_base": question.score(instance.x),
            "readout_clamped": question.score(instance.h),
        }
        for budget in plan.budgets:
            delta = _strongest(question, batches, threat, budget * instance.norm_h * (1 - INWARD))
            yield head | {"budget": budget} | _measured(question, batch, threat, delta)
        shortest[threat] = short = _shortest(question, batches, threat)
        row: Row = {"recovered": False, "strict": False, "attacked_radius": None}
        if short is not None:
            row = _measured(question, batch, threat, short)
            row["attacked_radius"] = row["length"] if row["recovered"] else None
        yield head | {"budget": "shortest"} | row
    if plan.controls:
        yield from _controls(question, batches, shortest, common)
    if plan.attribution:
        yield from _parts(question, batches, common)
    if plan.suffix:
        yield from _inputs(question, first, common)


def _strongest(question: Question, batches: dict[str, Batch], threat: str, radius: float) -> Array:
    """The admissible perturbation that raises the score most; for drift(t) the best of a segment."""
    if threat == "drift":
        ends = [_strongest(question, batches, held, radius) for held in ("defended", "free")]
        return _along(question, batches["free"], *ends)
    cell = batches[threat].instances[0].inner
    return inside(cell, worst_case(cell, question.weight, radius).delta, radius)


def _shortest(question: Question, batches: dict[str, Batch], threat: str) -> Array | None:
    if threat == "drift":
        ends = [_shortest(question, batches, held) for held in ("defended", "free")]
        if ends[0] is None or ends[1] is None:
            return None
        found = _along(question, batches["free"], ends[0], ends[1])
        return found if question.score(batches["free"].instances[0].h + found) > 0 else ends[0]
    instance = batches[threat].instances[0]
    level = ABOVE - question.score(instance.h)
    return least_norm(instance.inner, question.weight, level, LARGEST * instance.norm_h)


def _along(question: Question, free: Batch, start: Array, end: Array) -> Array:
    """As far from `start`, which does not drift, to `end` as the drift allows."""
    limit = float(allowed_drift(free, question.plan.drift)[0]) * (1 - 1e-9)
    low, high = 0.0, 1.0
    if drift_of(free, end[None, None])[0, 0] <= limit:
        return end
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        good = drift_of(free, (start + middle * (end - start))[None, None])[0, 0] <= limit
        low, high = (middle, high) if good else (low, middle)
    return start + low * (end - start)


def _measured(question: Question, batch: Batch, threat: str, delta: Array) -> Row:
    """Replay on the real model, the clamp active, with the perturbation shortened until what is held stays."""
    instance, best = batch.instances[0], None
    for factor in SHORTENED:
        tried = delta * factor
        if threat != "drift":
            tried = inside(instance.inner, tried * (1 - INWARD), np.inf, ROOM) if delta.any() else tried
        held = replay(batch, tried[None])[0].held
        within = question.exact.within(batch, 0, tried) if held else None
        if threat == "drift":
            kept = drift_of(batch, tried[None, None])[0, 0] <= allowed_drift(batch, question.plan.drift)[0]
            within = 0.0 if kept else None
        good = held and within is not None
        if best is None or good:
            best = tried, held, within
        if good:
            break
    assert best is not None
    tried, held, within = best
    value = question.score(_state(batch, tried))
    clamp = batch.problem.clamp
    moved = preservation(batch.sae, clamp, clamp.features, instance.x, instance.h, tried)
    recovered = held and within is not None and value > 0
    return {
        "recovered": recovered,
        "strict": recovered,
        "readout": value,
        "admissible_within": within,
        "held_in_run": held,
        "length": float(np.linalg.norm(tried)),
        **dataclasses.asdict(moved),
        "zero_reactivation": moved.zero_reactivation,
    }


def _state(batch: Batch, delta: Array) -> Array:
    """What the real model goes on with at the last position: clamped, then perturbed, in its own dtype."""
    problem, prompts = batch.problem, batch.prompts
    clean = clamp_edit(problem, prompts)
    rows, last = torch.arange(len(prompts.lengths)), prompts.last

    def edit(x: torch.Tensor) -> torch.Tensor:
        moved = clean(x).clone()
        moved[rows, last] += torch.from_numpy(delta).to(x.dtype)
        return moved

    with torch.no_grad():
        return run(problem.model, prompts, problem.hook_point, edit).edited[0, last[0]].double().numpy()


def _controls(
    question: Question, batches: dict[str, Batch], shortest: dict[str, Array | None], common: Row
) -> Iterator[Row]:
    """Random directions of the recovering length and four times it; the radius that breaks the unclamped probe."""
    generator = np.random.default_rng(question.plan.seed)
    for threat, short in shortest.items():
        if short is None or threat == "drift":
            continue
        instance = batches[threat].instances[0]
        noise = instance.inner.free_part(generator.normal(size=(DRAWS, len(short))))
        noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-300)
        for factor in (1.0, 4.0):
            scores = (instance.h + factor * np.linalg.norm(short) * noise) @ question.weight + question.bias
            share = float((scores > 0).mean())
            yield common | {"kind": "control", "threat": threat, "control": f"random {factor:g}x", "share": share}
    instance = next(iter(batches.values())).instances[0]
    radius = question.score(instance.x) / float(np.linalg.norm(question.weight))
    yield common | {
        "kind": "control",
        "control": "unclamped model",
        "attacked_radius": radius,
        "norm_h": instance.norm_h,
    }


def _parts(question: Question, batches: dict[str, Batch], common: Row) -> Iterator[Row]:
    """Which part of the strongest perturbation restores the probe alone; the score is linear, so shares add up."""
    budget = max(question.plan.budgets)
    for threat in ("preactivations", "code"):
        if threat not in batches:
            continue
        batch = batches[threat]
        instance, sae = batch.instances[0], batch.sae
        delta = _strongest(question, batches, threat, budget * instance.norm_h * (1 - INWARD))
        if question.score(instance.h + delta) <= 0:
            continue
        here = torch.from_numpy(np.stack([instance.h, instance.h + delta]))
        code = sae.encode(here)
        change = code[1] - code[0]
        mask = torch.zeros(sae.d_sae, dtype=torch.bool)
        mask[list(batch.problem.clamp.features)] = True
        written = {
            name: sae.write(torch.where(chosen, change, 0.0)[None], here[:1])[0].numpy()
            for name, chosen in (("clamped", mask), ("other", ~mask))
        }
        written["residual"] = delta - written["clamped"] - written["other"]
        size = float(np.linalg.norm(delta))
        for name, part in written.items():
            length = float(np.linalg.norm(part))
            matched = None if length <= 1e-6 * size else question.score(instance.h + part * (size / length)) > 0
            yield common | {
                "kind": "replay",
                "threat": threat,
                "budget": budget,
                "part": name,
                "part_share": length / size,
                "alone": question.score(instance.h + part) > 0,
                "alone_matched": matched,
                "without": question.score(instance.h + delta - part) > 0,
                "cancels": max(np.linalg.norm(one) for one in written.values()) > 1.5 * size,
            }


def _inputs(question: Question, batch: Batch, common: Row) -> list[Row]:
    """The input-only threat: suffixes and a soft prompt, the clamp active, read by the probe."""
    problem, plan = batch.problem, question.plan
    before, after = cut(problem.model, question.item.text, question.item.closing)
    readout = ProbeReadout(question.weight, question.bias)
    target = Target(problem.model, problem.sae, problem.hook_point, problem.clamp, before, after, readout)
    return input_rows(target, plan.suffix, plan.soft, plan.seed, 0.0, common)
