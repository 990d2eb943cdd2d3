"""Claim: more perturbed positions shorten the attack a little, certified radii a little more, and passes cost more.

The bundled early problems with the code held, and the last 1, 2 and 3 positions perturbed in one ball together. Radii
are in units of ||h|| of the last position; the search with more positions starts from the perturbation of fewer. Rise
is that of one pass at 0.02 ||h||: bound minus value, in units of the claim's margin, so that 1 is where the claim ends.
Recorded figures:
benchmarks/recorded/several_positions.md.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_verify.attacks import Attack, Pgd, attack, smallest_radius
from sae_verify.attacks.closed_form import values
from sae_verify.bounds import ThroughBlocks
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import prepare
from sae_verify.problem import ErrorBall, Problem
from sae_verify.problem_file import load_problem

CASES = Path(__file__).parent.parent / "examples" / "cases"
POSITIONS = (1, 2, 3)
EFFORT = 2
"""Passes for each radius that is tried."""
LEVEL = 0.02
"""Of ||h||: where the rise of one pass is measured."""


@dataclass(frozen=True)
class Row:
    """One prompt with so many positions: free dimensions, radii in units of ||h||, process time of one pass."""

    case: str
    prompt: int
    positions: int
    dimensions: int
    attacked: float
    certified: float
    rise: float
    pass_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.case}, prompt {self.prompt}, {self.positions} positions, {self.dimensions} dimensions: attacked"
            f" {self.attacked:.4f}, certified {self.certified:.4f}, ratio {self.certified / self.attacked:.2f}, rise at"
            f" {LEVEL} {self.rise:.3f}, {self.pass_seconds:.2f} s a pass"
        )


def measure(case: str, problem: Problem, effort: int) -> Iterator[Row]:
    """The middle one of the prompts where the clamp suppresses the behaviour."""
    shortest: Array = np.zeros((1, 0))
    for positions in POSITIONS:
        threat = ErrorBall(LEVEL, held="code", positions=positions)
        asked = dataclasses.replace(problem, threat=threat)
        batch, weights = prepare(asked), locate_weights(asked)
        flips = [i for i, one in enumerate(batch.instances) if one.base > one.tau > one.defended]
        batch = batch.select([flips[len(flips) // 2]])
        (instance,) = batch.instances
        known = attack(batch, batch.radii, Pgd())
        lengths, deltas = smallest_radius(batch, Pgd(), np.zeros(1), known)
        if shortest.size:
            padded = np.concatenate([np.zeros_like(batch.h[:, : batch.h.shape[1] - shortest.shape[1]]), shortest], 1)
            hint = Attack(padded, values(batch, padded[:, None])[:, 0])
            again = smallest_radius(batch, Pgd(), np.zeros(1), hint)
            lengths, deltas = again if again[0][0] < lengths[0] else (lengths, deltas)
        shortest = deltas
        setting = open_problem(asked, instance, weights)
        readout, relaxation = setting.functional(None), setting.relaxation
        begun = time.process_time()
        region = relaxation.ball(instance.radius)
        bound = relaxation.bound(region, region.frame(), readout, instance.tau)  # type: ignore[arg-type]
        seconds = time.process_time() - begun
        found = ThroughBlocks(relaxation, lambda _: readout, effort, float(lengths[0])).certified(instance)  # noqa: B023
        size = instance.norm_h
        yield Row(
            case,
            instance.index,
            positions,
            relaxation.width,
            float(lengths[0]) / size,
            0.0 if found is None or found.radius is None else found.radius / size,
            (bound.constant + bound.domain.row(bound.gradient) - bound.value) / -bound.value,
            seconds,
        )


def main(effort: int = EFFORT) -> None:
    """Print one line a prompt and number of positions."""
    for path in sorted(CASES.glob("*/problem_early.toml")):
        for row in measure(path.parent.name, load_problem(path), effort):
            print(row, flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(*(int(effort) for effort in sys.argv[1:2]))
