"""Claim: the certified radius comes near the attacked one where that is short, and stays behind elsewhere.

The prompts are those of the bundled cases where the clamp suppresses the behaviour. A tail that is shorter than what
follows the early hook starts later: the first blocks run on h, and the perturbation is what they give plus delta; there
is no SAE there, so nothing is held. The attack runs in the same float64 tail, with more steps and starts than the
pipeline's. Looseness is (bound - F0) / (attack - F0) at 0.02 ||h||, the bound that of one pass. Recorded figures of
more prompts: benchmarks/recorded/through_blocks.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_verify.attacks import Pgd, attack, smallest_radius
from sae_verify.bounds import ThroughBlocks
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.tail.readout import Functional
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import ErrorBall, Held, Problem
from sae_verify.problem_file import load_problem

CASES = Path(__file__).parent.parent / "examples" / "cases"
EFFORTS = (1, 4)
"""Passes a radius; one pass neither cuts nor splits."""
PROMPTS = 1
"""Of each case; `python -m benchmarks.through_blocks 8 1,4,12,40` measures all of them, at these efforts."""
LEVEL = 0.02
"""Of ||h||: where the looseness is measured."""
BINS = (0.0, 0.03, 0.1, 0.2, np.inf)
"""Of the attacked radius in units of ||h||."""
SETTINGS = Pgd(steps=40, restarts=8)


@dataclass(frozen=True)
class Row:
    """One prompt at one effort: radii in units of ||h||, process time in seconds."""

    case: str
    prompt: int
    blocks: int
    held: str
    effort: int
    certified: float
    attacked: float
    looseness: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Start:
    """The batch from one place on, and each prompt's relaxation and readout."""

    batch: Batch
    relaxations: tuple[Relaxation, ...]
    functionals: tuple[Functional, ...]

    def moved(self, skip: int) -> Start:
        """The same, free, `skip` blocks later."""
        batch, tail = self.batch, self.batch.tail
        h = batch.h
        for block in tail.blocks[:skip]:
            h = block(h)
        tail = dataclasses.replace(tail, blocks=tail.blocks[skip:], base=h, agreement=None)
        instances = tuple(
            dataclasses.replace(
                instance,
                h=row.numpy(),
                norm_h=float(row.norm()),
                radius=LEVEL * float(row.norm()),
                blocks_after=len(tail.blocks),
            )
            for instance, row in zip(batch.instances, h, strict=True)
        )
        relaxations = tuple(
            Relaxation(
                Ball.exact(instance.h),
                np.eye(len(instance.h)),
                0.0,
                1.0,
                old.blocks[skip:],
                old.contexts[skip:],
                old.position,
            )
            for instance, old in zip(instances, self.relaxations, strict=True)
        )
        return Start(dataclasses.replace(batch, tail=tail, instances=instances), relaxations, self.functionals)


def opened(problem: Problem, prompts: int) -> Start:
    """Some prompts of a problem, evenly chosen among those where the clamp suppresses the behaviour."""
    batch, weights = prepare(problem), locate_weights(problem)
    flips = [i for i, one in enumerate(batch.instances) if one.base > one.tau > one.defended]
    chosen = sorted({flips[int((at + 0.5) / prompts * len(flips))] for at in range(prompts)})
    batch = batch.select(chosen)
    settings = [open_problem(problem, instance, weights) for instance in batch.instances]
    functionals = tuple(s.functional(i.members(1)[0]) for s, i in zip(settings, batch.instances, strict=True))
    return Start(batch, tuple(s.relaxation for s in settings), functionals)


def starts(problem: Problem, prompts: int) -> Iterator[tuple[Held, Start]]:
    """Free with every number of blocks from one on, and with the code held where the SAE is."""
    for held in ("free", "code"):
        at = "h" if held == "free" else "x"
        threat = ErrorBall(LEVEL, held=held, at=at, relative_to="h")
        start = opened(dataclasses.replace(problem, threat=threat), prompts)
        yield held, start
        for skip in range(1, len(start.batch.tail.blocks) if held == "free" else 0):
            yield held, start.moved(skip)


def attacked(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The shortest recovery, and the most the readout was raised at 0.02 ||h||, one each a prompt."""
    worst = attack(batch, batch.radii, SETTINGS)
    lengths, _ = smallest_radius(batch, SETTINGS, np.zeros(len(worst.value)), worst)
    centre = batch.readout(batch.h[:, None])[:, 0].numpy()
    return lengths, worst.value - centre


def measure(case: str, held: str, start: Start, efforts: Iterable[int]) -> Iterator[Row]:
    """Rows of one start."""
    batch = start.batch
    lengths, raised = attacked(batch)
    centre = batch.readout(batch.h[:, None])[:, 0].numpy()
    for i, (instance, relaxation, functional) in enumerate(
        zip(batch.instances, start.relaxations, start.functionals, strict=True)
    ):
        method = ThroughBlocks(relaxation, lambda _: functional, ceiling=0.0)  # noqa: B023
        once = method.bound(instance, instance.radius)  # of one pass: at the ceiling no more is tried
        loose = np.inf if once is None else (once.value - float(centre[i])) / float(raised[i])
        for effort in efforts:
            method = dataclasses.replace(method, effort=effort, ceiling=float(lengths[i]))
            begun = time.process_time()
            found = method.certified(instance)
            seconds = time.process_time() - begun
            certified = 0.0 if found is None or found.radius is None else found.radius
            size = instance.norm_h
            shares = certified / size, float(lengths[i]) / size
            yield Row(case, instance.index, instance.blocks_after, held, effort, *shares, loose, seconds)


def table(rows: list[Row]) -> Iterator[str]:
    """Medians over prompts: by blocks, held set and effort, then, at the largest effort, by the attacked radius."""
    rows = [r for r in rows if np.isfinite(r.attacked)]
    for held in ("free", "code"):
        for blocks, effort in sorted({(r.blocks, r.effort) for r in rows if r.held == held}):
            some = [r for r in rows if (r.blocks, r.held, r.effort) == (blocks, held, effort)]
            yield f"{blocks} blocks, {held}, effort {effort}: {medians(some)}"
    most = max((r.effort for r in rows), default=0)
    for low, high in itertools.pairwise(BINS):
        some = [r for r in rows if r.effort == most and low <= r.attacked < high]
        if some:
            yield f"attacked at {low:g} to {high:g} ||h||, effort {most}: {medians(some)}"


def medians(rows: list[Row]) -> str:
    """Ratios, radii, looseness and cost of some rows, in words."""
    ratios = np.array([r.certified / r.attacked for r in rows])
    return (
        f"certified/attacked {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}, {len(rows)} prompts),"
        f" attacked/||h|| {np.median([r.attacked for r in rows]):.3f},"
        f" certified/||h|| {np.median([r.certified for r in rows]):.3f},"
        f" looseness {np.median([r.looseness for r in rows]):.2f},"
        f" {np.median([r.seconds for r in rows]):.1f} s a prompt"
    )


def main(prompts: int = PROMPTS, efforts: Iterable[int] = EFFORTS) -> None:
    """Print the medians."""
    rows: list[Row] = []
    for path in sorted(CASES.glob("*/problem_early.toml")):
        for held, start in starts(load_problem(path), prompts):
            rows += measure(path.parent.name, held, start, efforts)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        main(int(sys.argv[1]), [int(effort) for effort in sys.argv[2].split(",")])
    else:
        main()
