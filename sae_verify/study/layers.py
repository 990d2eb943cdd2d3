"""A study's rows with several layers clamped at once: set up, attacked, certified at the last clamped layer.

What is certified. Bounds follow blocks, not a clamp between them, so that nothing is proved in units of delta once a
later clamp acts. What is proved: within a radius of the state after the last clamp no displacement that keeps that
layer's held features recovers the behaviour, wherever it comes from. A recovery has to move that state further.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_verify.attacks import Pgd
from sae_verify.attacks.joint import Joint, clamps_at, prepare_joint
from sae_verify.attacks.joint_features import null_space
from sae_verify.certificates.weights import locate_sae
from sae_verify.certificates.write import relative
from sae_verify.discover.subject import Subject
from sae_verify.errors import InputError, SoundnessError
from sae_verify.problem import Clamp, Problem
from sae_verify.sae import load_sae
from sae_verify.sae.normalization import InputScale
from sae_verify.study.certified import Radius, at_radius, certified_radius
from sae_verify.study.items import Item, Items
from sae_verify.study.joint_ladder import climb_jointly
from sae_verify.study.ladder import Exact, Rung, with_threat
from sae_verify.study.plan import Plan
from sae_verify.study.store import Row
from sae_verify.study.subjects import Setup, find_features, readouts
from sae_verify.study.unit import attack_rows

HELD = ("preactivations", "defended", "code")
"""Restrictions under which several layers are attacked."""
LIMIT = 6
"""Valid flips that are attacked at most."""
RUN_ROUNDING = 1e-4
"""Relative: how far below a certified radius the displacement of an attack may lie. The certificate starts from the
state of the run in the model's own dtype, the attack from the float64 tail's."""
NO_RADIUS = "bounds do not follow a clamp between blocks; see last_certified for the layer of the last one"


@dataclass(frozen=True, eq=False)
class Layers:
    """Further layers of a study.

    Attributes:
        first: the study's own setup.
        subjects, clamps: the further layers, in order.
        flips: the study's flips, as far as they are flips with all clamps; `tried`: of how many.

    """

    first: Setup
    subjects: tuple[Subject, ...]
    clamps: tuple[Clamp, ...]
    flips: tuple[Item, ...]
    tried: int

    def problems(self, items: tuple[Item, ...], held: str) -> tuple[Problem, ...]:
        """One problem a clamped layer, for some rows."""
        first = with_threat(self.first.problem(items), held)
        later = [
            dataclasses.replace(first, sae=subject.sae, clamp=clamp, hook=subject.point)
            for subject, clamp in zip(self.subjects, self.clamps, strict=True)
        ]
        return first, *later


def further_subjects(plan: Plan, subject: Subject) -> tuple[Subject, ...]:
    """The subjects of the SAEs at later layers that a plan names."""
    return tuple(Subject(subject.model, load_sae(place)) for place in plan.also)


def set_up_layers(plan: Plan, setup: Setup, items: Items, subjects: tuple[Subject, ...]) -> Layers:
    """Find features at every further layer, clamp them too, and keep the flips that are flips with all clamps.

    Raises:
        InputError: fewer features qualify at a layer than are asked for.

    """
    clamps = []
    for subject in subjects:
        features = find_features(subject, items, plan, plan.count)
        clamps.append(Clamp(plan.kind, features, (plan.value,) * len(features)))
    layers = Layers(setup, subjects, tuple(clamps), setup.flips, len(setup.flips))
    with clamps_at(layers.problems(setup.flips, "free")[1:]):
        defended = readouts(setup.subject, setup.flips, setup.clamp)
    flips = tuple(item for item, value in zip(setup.flips, defended, strict=True) if value < 0)
    return dataclasses.replace(layers, flips=flips[:LIMIT])


def layer_rows(plan: Plan, setup: Setup, items: Items, subjects: tuple[Subject, ...], out: Path) -> list[Row]:
    """Everything about the configuration with all clamps: a head row, and attack rows of every threat and prompt.

    Raises:
        SoundnessError: a recovery moves the last layer's state by less than is certified to be needed.

    """
    head: Row = {"kind": "sweep", "config": f"{1 + len(subjects)} layers"}
    try:
        layers = set_up_layers(plan, setup, items, subjects)
    except InputError as reason:  # for example: fewer features qualify than are asked for
        return [head | {"why_not": str(reason)}]
    head |= {
        "hooks": " ".join(str(one.point) for one in (setup.subject, *subjects)),
        "features": "; ".join(",".join(map(str, clamp.features)) for clamp in (setup.clamp, *layers.clamps)),
        "rows_known": layers.tried,
        "valid_flips": len(layers.flips),
    }
    rows = [head]
    if not layers.flips:
        return rows
    exact, settings = Exact(layers.first.subject.sae), Pgd(steps=plan.steps, restarts=1, seed=plan.seed)
    certificates: dict[str, list[Radius]] = {}
    for held in (held for held in HELD if held in plan.threats):
        problems = layers.problems(layers.flips, held)
        joint = prepare_joint(problems)
        rung = climb_jointly(joint, plan.budgets, settings, exact)
        some = attack_rows(plan, {held: rung}, layers.flips, head["config"])
        certified = "free" if layers.subjects[-1].point.first_block < problems[0].model.n_layers else held
        if certified not in certificates and plan.certify != ():
            certificates[certified] = [
                _certified(layers, item, certified, plan, out / "certificates") for item in layers.flips
            ]
            if any(radius.value is not None for radius in certificates[certified]):
                write_layers(problems[:-1], out / "certificates")
        _beside(some, layers, joint, rung, certificates.get(certified))
        rows += some
    return rows


def _certified(layers: Layers, item: Item, held: str, plan: Plan, out: Path) -> Radius:
    """The radius that is certified at the last layer, the earlier clamps active."""
    *earlier, last = layers.problems((item,), held)
    behind = ", ".join(str(problem.hook_point) for problem in earlier)
    title = f"{plan.study} {item.name} {held} with clamps at {behind} active"
    with clamps_at(earlier):
        return certified_radius(at_radius(last, held, max(plan.budgets), title), out, plan.effort)


def write_layers(problems: Sequence[Problem], directory: Path) -> Path:
    """Write layers.toml with the problems' clamps, for `check --replay --beside`; SAEs are named relative to it."""
    text = ""
    for problem in problems:
        clamp, sae = problem.clamp, problem.sae
        assert sae.source.path is not None  # studies load their SAEs from files
        place: dict[str, Any] = {"path": relative(sae.source.path, directory), "hook": str(problem.hook_point)}
        place |= {"input_scale": sae.normalization.scale} if isinstance(sae.normalization, InputScale) else {}
        written = {"kind": clamp.kind, "features": list(clamp.features), "values": list(clamp.values)}
        text += f"[[layer]]\nsae = {_inline(place)}\nclamp = {_inline(written)}\n\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "layers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _inline(table: dict[str, Any]) -> str:
    """An inline table of TOML; of these values JSON writes what TOML reads."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"


def _beside(
    rows: Sequence[Row], layers: Layers, joint: Joint, rung: Rung, certificates: Sequence[Radius] | None
) -> None:
    """Add to every row of the shortest recovery what is known of the last layer, and the room that is left at zero."""
    free = [basis.shape[1] for basis in null_space(joint, np.zeros((len(layers.flips), joint.batch.h.shape[1])))]
    names = {item.name: place for place, item in enumerate(layers.flips)}
    sizes = joint.last_states(0.0 * joint.batch.h[:, None])[:, 0].norm(dim=1)
    skipped = Radius(None, "", trivial=False, why_not="no certificate was asked for")
    for row in rows:
        if row["budget"] != "shortest":
            continue
        place = names[row["prompt"]]
        found, short = certificates[place] if certificates else skipped, rung.shortest[place]
        if found.value and short and short.displacement and short.displacement < found.value * (1 - RUN_ROUNDING):
            raise SoundnessError(
                f"threat {row['threat']}: a recovery moves the last layer's state by {short.displacement!r}, within "
                f"the radius {found.value!r} that {found.by} certifies there",
                rule="a certified radius admits no recovery",
                remedy="report this with the study's settings",
            )
        row |= {
            "certified_radius": None,
            "certified_by": "",
            "certificate_trivial": False,
            "why_not_certified": NO_RADIUS,
            "free_dimensions": free[place],
            "last_norm": float(sizes[place]),
            "last_certified": found.value,
            "last_certified_by": found.by,
            "last_why_not_certified": found.why_not,
        }


def digests(subjects: Sequence[Subject]) -> list[str]:
    """Of the stored weights of every further SAE."""
    return [locate_sae(subject.sae).digest for subject in subjects]
