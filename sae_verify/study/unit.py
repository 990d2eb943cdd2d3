"""One row of a study: every rung of the ladder, its certificates, controls, parts, suffixes and generations.

A row of the result is one measurement in the tidy table; `kind` says which: attack, control, input or replay.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sae_verify.attacks import Pgd
from sae_verify.attacks.attribution import PARTITION, attribute
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import LogitDifference, Problem
from sae_verify.study.certified import Radius, at_radius, certified_radius, check_sandwich, inherited
from sae_verify.study.controls import other_token, random_shares, unclamped
from sae_verify.study.drift import climb_drift
from sae_verify.study.generation import Continuation, continuations
from sae_verify.study.items import Item
from sae_verify.study.ladder import Exact, Found, Rung, climb, with_threat
from sae_verify.study.metrics import preservation
from sae_verify.study.plan import Plan
from sae_verify.study.subjects import Setup
from sae_verify.study.suffix import Target, cut, input_rows

FACTORS = (1.0, 4.0)
"""Multiples of the recovering radius at which random directions are tried."""
Row = dict[str, Any]
NOT_CERTIFIED = "certificates are made for the base configuration only"


def climb_all(plan: Plan, problem: Problem, exact: Exact) -> dict[str, Rung]:
    """The rungs of the ladder that a plan asks for, by threat, for all prompts of a problem."""
    settings = Pgd(steps=plan.steps, seed=plan.seed)
    needed = [held for held in ("free", "preactivations", "defended", "code") if held in plan.threats]
    if "drift" in plan.threats:
        needed += [] if "defended" in needed else ["defended"]
    rungs = {held: climb(prepare(with_threat(problem, held)), plan.budgets, settings, exact) for held in needed}
    if "drift" in plan.threats:
        rungs["drift"] = climb_drift(problem, plan.drift, plan.budgets, settings, rungs["defended"], exact)
    return {threat: rungs[threat] for threat in plan.threats}


def attack_rows(plan: Plan, rungs: dict[str, Rung], items: tuple[Item, ...], config: str) -> list[Row]:
    """What every rung shows for every prompt: one row a budget, and one for the shortest recovery."""
    rows = []
    for threat, rung in rungs.items():
        for place, (item, instance) in enumerate(zip(items, rung.batch.instances, strict=True)):
            common: Row = {
                "kind": "attack",
                "config": config,
                "prompt": item.name,
                "group": item.group,
                "threat": threat,
                "norm_h": instance.norm_h,
                "norm_e": instance.norm_e,
                "readout_base": instance.base,
                "readout_clamped": instance.defended,
            }
            for budget, found in rung.best.items():
                rows.append(common | {"budget": budget} | _measured(rung, place, found[place]))
            short = rung.shortest[place]
            measured = {"recovered": False, "strict": False} if short is None else _measured(rung, place, short)
            rows.append(common | {"budget": "shortest", **measured, "attacked_radius": short and short.length})
    return rows


def _measured(rung: Rung, place: int, found: Found) -> Row:
    batch, instance = rung.batch, rung.batch.instances[place]
    clamp = batch.problem.clamp
    moved = preservation(batch.sae, clamp, clamp.features, instance.x, instance.h, found.delta)
    return {
        "recovered": found.recovers(instance.tau),
        "strict": found.recovers(instance.tau) and found.strict > 0,
        "readout": found.value,
        "admissible_within": found.within,
        "held_in_run": found.held,
        "length": found.length,
        **dataclasses.asdict(moved),
        "zero_reactivation": moved.zero_reactivation,
    } | (
        {} if found.violation is None else {"later_violation": found.violation, "last_displacement": found.displacement}
    )


def study_prompt(plan: Plan, setup: Setup, item: Item, rungs: dict[str, Rung], out: Path) -> list[Row]:
    """Everything about one valid flip whose ladder has been climbed.

    Raises:
        SoundnessError: a recovery lies within a certified radius.

    """
    start = time.perf_counter()
    items = (item,)
    problem = setup.problem(items)
    rows = attack_rows(plan, rungs, items, "base")
    first = next(iter(rungs.values())).batch
    certificates = {
        held: certified_radius(
            at_radius(
                _against_first(problem, first),
                held,
                max(plan.budgets),
                f"{plan.study} {item.name} {held}",
                plan.drift if held == "drift" else None,
            ),
            out / "certificates",
            plan.effort,
        )
        for held in certified_threats(plan, first)
    }
    _beside(rows, certificates)
    if plan.generate:
        add_generations(plan, setup, item, rungs, rows)
    if plan.controls:
        rows += _controls(plan, problem, item, rungs, first)
    if plan.attribution:
        rows += _parts(plan, item, rungs)
    if plan.suffix:
        rows += _inputs(plan, setup, item, first)
    seconds = time.perf_counter() - start
    return [row | {"seconds": round(seconds, 3)} for row in rows]


def certified_threats(plan: Plan, batch: Batch) -> tuple[str, ...]:
    """Whose radii are certified: what is asked for, or what is cheap enough."""
    if plan.certify is not None:
        return plan.certify
    if batch.instances[0].blocks_after:
        return ("free",)
    return plan.threats


def _against_first(problem: Problem, batch: Batch) -> Problem:
    """One token against all others becomes that token against the clamped model's first choice: a stronger claim.

    While the first choice stays ahead, the token does not win against all.
    """
    (instance,) = batch.instances
    if instance.readout.negative is not None:
        return problem
    return dataclasses.replace(problem, readout=LogitDifference(instance.readout.positive, instance.ranking[0]))


def _beside(rows: list[Row], certificates: dict[str, Radius]) -> None:
    """Put the certified radius beside every attacked one, or the reason why there is none."""
    for row in rows:
        if row["budget"] == "shortest":
            skipped = "no certificate was asked for this threat or a weaker one"
            found = inherited(row["threat"], certificates, skipped)
            check_sandwich(row["threat"], found, row.get("attacked_radius"))
            row |= {
                "certified_radius": found.value,
                "certified_by": found.by,
                "certificate_trivial": found.trivial,
                "why_not_certified": found.why_not,
            }


def add_generations(plan: Plan, setup: Setup, item: Item, rungs: dict[str, Rung], rows: list[Row]) -> None:
    """Add to the rows of every budget what the model says, clamp active at every step."""
    subject = setup.subject

    def say(clamp: Any, found: Sequence[Found] = (), *, generated: bool = False) -> list[Continuation]:
        whole = continuations(
            subject.model,
            subject.sae,
            subject.point,
            clamp,
            item.text,
            most=plan.generate,
            deltas=[one.delta for one in found],
            generated=generated,
        )
        return [one.until(plan.stop) for one in whole]

    (base,), (silent,) = say(None), say(setup.clamp)
    chosen: list[tuple[Row, Found]] = []
    for row in rows:
        row |= {"base_refuses": base.refuses, "clamped_refuses": silent.refuses}
        row |= {"non_refusal": False, "base_like": False}
        rung = rungs[row["threat"]]
        found = rung.shortest[0] if row["budget"] == "shortest" else rung.best[row["budget"]][0]
        if row["recovered"] and found is not None:
            chosen.append((row, found))
    if not chosen:
        return
    for (row, _), here in zip(chosen, say(setup.clamp, [found for _, found in chosen]), strict=True):
        row |= {
            "non_refusal": not here.refuses,
            "base_like": here.like(base),
            "base_agreement": here.agreement(base),
        }
        if plan.keep_text:
            row |= {"base_text": base.text, "clamped_text": silent.text, "recovered_text": here.text}
    last = [(row, found) for row, found in chosen if row["budget"] == max(plan.budgets)]
    if last:
        for (row, _), every in zip(last, say(setup.clamp, [f for _, f in last], generated=True), strict=True):
            row |= {"non_refusal_every_position": not every.refuses, "base_like_every_position": every.like(base)}


def _controls(plan: Plan, problem: Problem, item: Item, rungs: dict[str, Rung], first: Batch) -> list[Row]:
    settings = Pgd(steps=plan.steps, seed=plan.seed)
    common: Row = {"kind": "control", "config": "base", "prompt": item.name, "group": item.group}
    rows = []
    for threat, rung in rungs.items():
        short = rung.shortest[0]
        if short is None or threat == "drift":
            continue
        shares = random_shares(rung.batch, np.array([short.length]), FACTORS, plan.seed)[0]
        rows += [
            common | {"threat": threat, "control": f"random {factor:g}x", "share": float(share)}
            for factor, share in zip(FACTORS, shares, strict=True)
        ]
    for name, radius in (
        ("other token", other_token(problem, first, settings, plan.seed)[0]),
        ("unclamped model", unclamped(problem, first, settings)[0]),
    ):
        rows.append(common | {"control": name, "attacked_radius": float(radius), "norm_h": first.instances[0].norm_h})
    return rows


def _parts(plan: Plan, item: Item, rungs: dict[str, Rung]) -> list[Row]:
    """Replay of the parts of the perturbation at the largest budget, for the published restriction and ours."""
    rows = []
    for threat in ("preactivations", "code"):
        if threat not in rungs:
            continue
        rung = rungs[threat]
        found = rung.best[max(plan.budgets)][0]
        if not found.recovers():
            continue
        (parts,) = attribute(rung.batch, found.delta[None])
        common: Row = {"kind": "replay", "config": "base", "prompt": item.name, "group": item.group, "threat": threat}
        rows += [
            common
            | {
                "budget": max(plan.budgets),
                "part": part.name,
                "part_share": part.share,
                "alone": part.alone.recovered,
                "alone_matched": part.alone_matched and part.alone_matched.recovered,
                "without": part.without.recovered,
                "cancels": parts.warning is not None,
            }
            for part in parts.parts
            if part.name in (*PARTITION, "top-k")
        ]
    return rows


def _inputs(plan: Plan, setup: Setup, item: Item, first: Batch) -> list[Row]:
    """The input-only threat: what tokens in the prompt recover, the clamp active."""
    subject, instance = setup.subject, first.instances[0]
    before, after = cut(subject.model, item.text, item.closing)
    target = Target(subject.model, subject.sae, subject.point, setup.clamp, before, after, instance.readout)
    common: Row = {"config": "base", "prompt": item.name, "group": item.group}
    return input_rows(target, plan.suffix, plan.soft, plan.seed, instance.tau, common)
