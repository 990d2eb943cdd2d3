"""The threat ladder with several layers clamped at once: attacks that keep what is held at every layer, replayed.

What counts as a recovery: the first layer's exact admissibility as elsewhere, every later layer's features held in
float64 and in the dtype that runs, and the readout of the real model, all clamps active, above the claim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from sae_verify.attacks import Attack, Pgd
from sae_verify.attacks.joint import Joint, clamps_at
from sae_verify.attacks.joint_attack import Wanted, attack_jointly, restore, shorten_jointly
from sae_verify.attacks.joint_replay import replay_joint
from sae_verify.attacks.variants import replay_variants
from sae_verify.geometry.held_cell import Array
from sae_verify.study.ladder import INWARD, Exact, Found, Rung, against_all, shortest_of, with_shortest

CUTS = (0.93, 0.8)
"""Lengths, relative to the shortest recovery, at which the ascent is tried again."""
TRIES = (1.0, 1 - 1e-4, 1 - 1e-3)
"""Factors of a perturbation that are tried one after another where its replay turned something on or off."""


def climb_jointly(joint: Joint, budgets: Sequence[float], settings: Pgd, exact: Exact) -> Rung:
    """Attack every prompt at every budget, and look for its shortest recovery.

    Args:
        joint: the prompts with all clamped layers under one threat model.
        budgets: radii in units of ||h|| of the first layer.
        settings: of the ascent.
        exact: the checker's arithmetic on the first layer's SAE.

    """
    norms = np.array([instance.norm_h for instance in joint.batch.instances])
    tau = np.array([instance.tau for instance in joint.batch.instances])
    found: dict[float, Attack] = {}
    lengths, shortest = np.full(len(norms), np.inf), np.zeros((len(norms), joint.batch.h.shape[1]))
    hint: Array | None = None
    for budget in sorted(budgets):
        one = found[budget] = attack_jointly(joint, budget * norms * (1 - INWARD), settings, hint)
        new = np.flatnonzero((one.value > tau) & ~np.isfinite(lengths))
        if new.size:  # the first budget at which a prompt recovers is nearest to its shortest recovery
            part = joint.select(new.tolist())
            lengths[new], shortest[new] = shorten_jointly(part, tau[new], one.delta[new])
        hint = one.delta[:, None]
    for cut in CUTS:
        rows = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
        if not rows.size:
            break
        part, start = joint.select(rows.tolist()), shortest[rows] * cut
        one = attack_jointly(part, lengths[rows] * cut, settings, start[:, None])
        length, delta = shorten_jointly(part, tau[rows], one.delta)
        better = length < lengths[rows]
        lengths[rows] = np.where(better, length, lengths[rows])
        shortest[rows] = np.where(better[:, None], delta, shortest[rows])
    reached = np.isfinite(lengths)
    confirmed = confirm_jointly(joint, np.where(reached[:, None], shortest, 0.0), exact)
    rows = {budget: confirm_jointly(joint, found[budget].delta, exact) for budget in sorted(budgets)}
    best = with_shortest(joint.batch, rows, confirmed, np.where(reached, lengths, np.inf))
    return Rung(joint.batch, shortest_of(joint.batch, confirmed, best), best)


def confirm_jointly(joint: Joint, delta: Array, exact: Exact) -> list[Found]:
    """Replay perturbations (B, d), ask the checker and every layer; what fails is shortened and tried again."""
    result: list[Found | None] = [None] * len(delta)
    rows = list(range(len(delta)))
    for factor in TRIES:
        part, tried = (joint, delta) if len(rows) == len(delta) else (joint.select(rows), delta[rows])
        if factor < 1.0:
            wanted = Wanted(np.linalg.norm(tried, axis=1))
            moved, good = restore(part, tried, (factor - 1.0) * tried, wanted)
            tried = np.where(good[:, None], moved, tried)
        for i, found in zip(rows, _replayed(part, tried, exact), strict=True):
            kept = result[i]
            if kept is None or (found.admissible and not kept.admissible):
                result[i] = found
        rows = [i for i in rows if not (result[i] and result[i].admissible)]  # type: ignore[union-attr]
        if not rows:
            break
    return [one for one in result if one is not None]


def _replayed(joint: Joint, delta: Array, exact: Exact) -> list[Found]:
    """One replay of every prompt."""
    with torch.no_grad():
        still = torch.zeros_like(joint.batch.h)
        moved = joint.last_states(torch.from_numpy(delta)[:, None])[:, 0] - joint.last_states(still[:, None])[:, 0]
    with clamps_at([one.problem for one in joint.later]):
        strict = replay_variants(against_all(joint.batch), delta[:, None])[:, 0]
    found = []
    for b, shown in enumerate(replay_joint(joint, delta)):
        within = exact.within(joint.batch, b, delta[b]) if shown.held else None
        one = Found(delta[b], shown.value, float(strict[b]), shown.held, within)
        found.append(dataclasses.replace(one, violation=shown.violation, displacement=float(moved[b].norm())))
    return found
