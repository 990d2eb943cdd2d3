"""Whether a perturbation keeps what is held at every layer, and what the real model says, all clamps active.

The first layer's equalities are linear in delta, and exact admissibility is the checker's to say. Later layers are
reached through blocks, so that exactness is a matter of arithmetic there: what is held has to stay in float64, to a
relative violation far above rounding and far below anything a monitor sees, and in the dtype that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sae_verify.attacks.joint import Joint, Later, clamps_at
from sae_verify.attacks.joint_features import displacements, violation
from sae_verify.attacks.replay import Replay, movement, replay
from sae_verify.geometry.held_cell import Array
from sae_verify.model import HookPoint

ALLOWED = 1e-6
"""Relative violation of what is held at a later layer, in float64, from which on a perturbation is refused."""
Failure = Literal["moved", "turned on or off", "in the running dtype"]
"""Why a layer's features do not count as held: in float64 they moved by more than is allowed; some are on where they
were off, or the other way round; the same as the running model computes them."""


@dataclass(frozen=True)
class LayerCheck:
    """What one later layer says about one perturbation.

    Attributes:
        hook: the layer.
        violation: relative, in float64; see `joint_features.violation`.
        drift: the largest change of anything held, as the running SAE computes it, and `allowed`: by its rounding.
        failure: why it does not count as held; None where it does.

    """

    hook: HookPoint
    violation: float
    drift: float
    allowed: float
    failure: Failure | None


@dataclass(frozen=True)
class JointReplay:
    """One perturbation of one prompt on the real model: what the first layer's replay and the later layers say."""

    first: Replay
    later: tuple[LayerCheck, ...]

    @property
    def value(self) -> float:
        """Readout of the real model, all clamps active."""
        return self.first.value

    @property
    def held(self) -> bool:
        """Whether everything held stayed at every layer, in float64 at the later ones and in the dtype that runs."""
        return self.first.held and all(one.failure is None for one in self.later)

    @property
    def violation(self) -> float:
        """The largest of the later layers."""
        return max(one.violation for one in self.later)


def replay_joint(joint: Joint, delta: Array) -> tuple[JointReplay, ...]:
    """Replay perturbations (B, d) with all clamps active, and ask every layer. Cost: two forward passes."""
    batch = joint.batch
    rows, last = torch.arange(len(batch.prompts)), batch.prompts.last
    seen: dict[HookPoint, tuple[Tensor, Tensor]] = {}

    def states() -> dict[HookPoint, tuple[Tensor, Tensor]]:
        return {hook: (x[rows, last], h[rows, last]) for hook, (x, h) in seen.items()}

    with clamps_at([one.problem for one in joint.later], seen), torch.no_grad():
        replay(batch, np.zeros_like(delta))
        before = states()
        first = replay(batch, delta)
        after = states()
    moved = displacements(joint, delta[:, None])[1:]
    checks = [
        _checks(one, where, before[one.problem.hook_point], after[one.problem.hook_point])
        for one, where in zip(joint.later, moved, strict=True)
    ]
    return tuple(JointReplay(shown, tuple(some[b] for some in checks)) for b, shown in enumerate(first))


def _checks(
    one: Later, moved: Array, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]
) -> Sequence[LayerCheck]:
    """A later layer's verdict on every prompt; `moved` (B, 1, d) is float64, states (B, d) around its clamp."""
    problem, side = one.problem, 0 if one.at == "x" else 1
    far = violation(one.kept, moved)[:, 0]
    same = _same_features(one, moved[:, 0])
    dtype = problem.sae.dtype
    drift, limit, kept = movement(problem, before[side].to(dtype), after[side].to(dtype))
    found = []
    for b, worst in enumerate(far):
        failure: Failure | None = None
        if not worst < ALLOWED:  # also NaN
            failure = "moved"
        elif not same[b]:
            failure = "turned on or off"
        elif not (bool(kept[b]) and bool((drift[b] <= limit[b]).all())):
            failure = "in the running dtype"
        check = LayerCheck(problem.hook_point, float(worst), float(drift[b].max()), float(limit[b].max()), failure)
        found.append(check)
    return found


def _same_features(one: Later, moved: Array) -> Array:
    """Whether the features held at a layer are on where they were, (B,) bool, in float64."""
    problem = one.problem
    if problem.threat.held not in ("defended", "code"):
        return np.ones(len(moved), dtype=bool)
    wide = problem.sae.to(torch.float64)
    chosen = list(problem.held_features) if problem.threat.held == "defended" else list(range(wide.d_sae))
    on = wide.active(torch.stack([one.reference, one.reference + torch.from_numpy(moved)]))[..., chosen]
    return (on[0] == on[1]).all(dim=1).numpy()
