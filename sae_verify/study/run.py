"""A study from beginning to end: set up, prompt by prompt, sweeps, tables. What is finished survives a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sae_verify.certificates.weights import locate_sae
from sae_verify.checker import Rejected
from sae_verify.checker.model import load_head
from sae_verify.discover.subject import Subject
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.study.items import Item, Items
from sae_verify.study.ladder import Exact, Rung
from sae_verify.study.layers import digests, further_subjects, layer_rows
from sae_verify.study.lock import only_run
from sae_verify.study.plan import Plan
from sae_verify.study.probe import ProbeSetup, set_up_probes, study_probe
from sae_verify.study.store import Row, Store, write_json, write_table
from sae_verify.study.subjects import Setup, load, set_up, trained_subject
from sae_verify.study.summary import summarise
from sae_verify.study.unit import add_generations, attack_rows, climb_all, study_prompt

Progress = Callable[[str, float], None]
SWEPT = ("preactivations", "code")
"""Threats that sweeps attack: the published restriction and the strictest."""
SWEEP_LIMIT = 6
"""Valid flips that a swept configuration attacks at most."""
NO_CERTIFICATE = "swept configurations are attacked, not certified"
TOGETHER = 16
"""Prompts that are attacked at once."""
WEIGHT = 3.0
"""What one prompt costs beside one swept configuration, for the progress bar."""


def run_study(plan: Plan, out: Path, progress: Progress = lambda stage, fraction: None) -> dict[str, Any]:
    """Run what is not finished yet, and write table.csv, table.json and summary.json.

    Args:
        plan: the study.
        out: directory; a study that was begun there with the same plan is continued.
        progress: told the stage and the fraction done.

    Returns:
        The summary.

    Raises:
        InputError and its kinds: the plan, its files or the directory are not usable, or another run writes there.
        SoundnessError: a recovery lies within a certified radius: a defect.

    """
    progress("loading", 0.0)
    subject, items = load(plan)
    with only_run(out):
        return _run(plan, out, subject, items, progress)


def _run(plan: Plan, out: Path, subject: Subject, items: Items, progress: Progress) -> dict[str, Any]:
    """The study, in a directory that nobody else writes to."""
    further = further_subjects(plan, subject)
    store = Store(out, plan.header() | _digests(subject, further))
    setup = set_up_probes(plan, subject, items) if plan.study == "probe" else set_up(plan, subject, items)
    if not setup.flips:
        raise InputError(
            f"none of the {len(items.test)} rows is a valid flip ({setup.known} show the behaviour without the clamp)",
            rule="a study needs rows where the plain model shows the behaviour and the clamped one does not",
            remedy="clamp more features (--count) or more strongly (--clamp)",
        )
    configs = _configs(plan)
    total, done = WEIGHT * len(setup.flips) + len(configs) + bool(further), 0.0
    exact = Exact(subject.sae)

    def tell(stage: str) -> None:
        progress(stage, done / total)

    for item, rows in _prompts(plan, setup, store, exact, out, tell):
        if rows is not None:
            store.append(f"prompt/{item.name}", [row | _text(plan, item.text) for row in rows])
        done += WEIGHT
    if further and isinstance(setup, Setup):
        if "layers" not in store:
            progress(f"layers, {1 + len(further)} clamped at once", done / total)
            store.append("layers", layer_rows(plan, setup, items, further, out))
        done += 1.0
    for config, changes in configs.items():
        if f"sweep/{config}" not in store:
            progress(f"sweep {config}", done / total)
            store.append(f"sweep/{config}", _swept(plan, config, changes, out))
        done += 1.0
    progress("tables", 1.0)
    found: Row = {
        "rows_tested": len(items.test),
        "rows_known": setup.known,
        "valid_flips": setup.flipped,
        "studied": len(setup.flips),
        "features_found_on_test_rows": items.found_on_test and plan.features is None,
        "clamp": _clamps(setup),
    }
    summary = summarise(plan, found, store.rows)
    write_table([{"study": plan.study, **row} for row in store.rows], out)
    write_json(summary, out / "summary.json")
    return summary


def _digests(subject: Subject, further: tuple[Subject, ...]) -> Row:
    """Of the stored weights, as the checker reads them: a study is not continued on others.

    Raises:
        UnsupportedError: the checker cannot read them, so that no recovery could be confirmed.

    """
    try:
        return {
            "sae_digest": locate_sae(subject.sae).digest,
            "also_digests": digests(further),
            "model_digest": load_head(subject.model.path).digest,  # type: ignore[arg-type]
        }
    except Rejected as reason:
        raise UnsupportedError(
            f"the checker cannot read the weights: {reason}",
            rule="recoveries are confirmed by the checker on the stored weights",
            remedy="use safetensors or npz files in a supported format",
        ) from None


def _prompts(
    plan: Plan, setup: Setup | ProbeSetup, store: Store, exact: Exact, out: Path, tell: Callable[[str], None]
) -> Iterator[tuple[Item, list[Row] | None]]:
    """Rows of every valid flip, one after another; None for those that are finished already.

    The ladder is climbed for `TOGETHER` prompts at once, which costs little more than for one. They are the same ones
    when a killed study goes on, so that it ends with the same numbers.
    """
    for start in range(0, len(setup.flips), TOGETHER):
        chunk = setup.flips[start : start + TOGETHER]
        pending = {item.name for item in chunk if f"prompt/{item.name}" not in store}
        rungs: dict[str, Rung] = {}
        if pending and isinstance(setup, Setup):
            tell(f"attacks, {len(chunk)} prompts")
            rungs = climb_all(plan, setup.problem(chunk), exact)
        for place, item in enumerate(chunk):
            if item.name not in pending:
                yield item, None
                continue
            tell(f"prompt {item.name}")
            if isinstance(setup, ProbeSetup):
                yield item, study_probe(plan, setup, item, exact, out)
            else:
                own = {threat: rung.select(place) for threat, rung in rungs.items()}
                yield item, study_prompt(plan, setup, item, own, out)


def _text(plan: Plan, text: str) -> Row:
    return {"text": text} if plan.keep_text else {}


def _clamps(setup: Setup | ProbeSetup) -> Any:
    """Features and kind of every clamp, JSON-ready."""
    clamps = {"": setup.clamp} if isinstance(setup, Setup) else setup.clamps
    found = {
        label: {"kind": clamp.kind, "features": list(clamp.features), "value": clamp.values[0]}
        for label, clamp in clamps.items()
    }
    return found[""] if isinstance(setup, Setup) else found


def _configs(plan: Plan) -> dict[str, dict[str, Any]]:
    """Swept configurations by name: the settings that differ from the plan's."""
    sweep = plan.sweep
    configs: dict[str, dict[str, Any]] = {f"strength {value:g}": {"value": value} for value in sweep.strength}
    configs |= {f"features {count}": {"count": count, "features": None} for count in sweep.features}
    configs |= {f"sparsity {k}": {"sparsity": k, "features": None} for k in sweep.sparsity}
    return configs


def _swept(plan: Plan, config: str, changes: dict[str, Any], out: Path) -> list[Row]:
    """One configuration: how many rows flip, and the ladder's two rungs on some of them."""
    changes = dict(changes)
    sparsity = changes.pop("sparsity", None)
    threats = tuple(threat for threat in SWEPT if threat in plan.threats) or plan.threats[:1]
    changed = dataclasses.replace(plan, limit=min(plan.limit, SWEEP_LIMIT), threats=threats, **changes)
    subject, items = load(changed)
    if sparsity is not None:
        subject = trained_subject(subject, items, sparsity, out, plan.seed)
    head: Row = {"kind": "sweep", "config": config}
    rows: list[Row] = []
    try:
        if plan.study == "probe":
            probes = set_up_probes(changed, subject, items)
            head |= {"rows_known": probes.known, "valid_flips": probes.flipped}
            exact = Exact(subject.sae)
            bare = dataclasses.replace(
                changed, certify=(), controls=False, attribution=False, suffix=0, sweep=plan.sweep
            )
            rows = [
                row | {"config": config} for item in probes.flips for row in study_probe(bare, probes, item, exact, out)
            ]
        else:
            setup = set_up(changed, subject, items)
            head |= {"rows_known": setup.known, "valid_flips": setup.flipped}
            if not setup.flips:
                return [head]
            rungs = climb_all(changed, setup.problem(setup.flips), Exact(subject.sae))
            for place, item in enumerate(setup.flips):
                own = {threat: rung.select(place) for threat, rung in rungs.items()}
                some = attack_rows(changed, own, (item,), config)
                if changed.generate:
                    add_generations(changed, setup, item, own, some)
                rows += some
    except InputError as reason:  # for example: fewer features qualify than are asked for
        return [head | {"why_not": str(reason)}]
    return [
        head,
        *(row | {"why_not_certified": NO_CERTIFICATE} if row["budget"] == "shortest" else row for row in rows),
    ]
