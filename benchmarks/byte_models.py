"""Claim: on byte-level models of three architectures certified radii come near attacked ones, for 1, 2 and 3 blocks.

`python -m benchmarks.byte_models DIRECTORY [PROMPTS] [EFFORTS] [HELD] [BLOCKS]` measures the flips that
benchmarks/train_bytes.py made, PROMPTS of each model and hook, at the efforts, held sets and numbers of blocks after
the hook that are given (`8 1,8 free,defended,code 1,2,3`), and writes one line a row to DIRECTORY/rows.jsonl as it
goes; rows that are there already are not measured again, so a run that was stopped goes on. Radii are in units of
||h||, and medians over prompts of all architectures; looseness as in benchmarks/through_blocks.py. Process time is that
of one search for the largest certified radius, without the attack. Recorded: benchmarks/recorded/through_blocks.md.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks import byte_flips
from benchmarks.byte_flips import Flip
from benchmarks.through_blocks import BINS, LEVEL, Row, Start, measure, medians
from benchmarks.train_bytes import ARCHITECTURES, BLOCKS
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.geometry.instance import prepare
from sae_verify.model import load_model
from sae_verify.problem import ErrorBall, Held
from sae_verify.sae import load_sae


def start(directory: Path, name: str, blocks: int, flip: Flip, held: Held) -> Start | None:
    """One prompt as the pipeline sees it; None if the clamp does not suppress the behaviour after all."""
    model, sae = load_model(directory / name), load_sae(directory / name / f"sae_{blocks}")
    problem = byte_flips.problem(flip, model, sae, ErrorBall(LEVEL, held=held, relative_to="h"), f"bytes {name}")
    batch = prepare(problem)
    (instance,) = batch.instances
    if not instance.base > instance.tau > instance.defended:
        return None
    setting = open_problem(problem, instance, locate_weights(problem))
    return Start(batch, (setting.relaxation,), (setting.functional(instance.members(1)[0]),))


@dataclass(frozen=True)
class Plan:
    """What to measure: prompts of each model and hook, efforts, held sets, blocks after the hook."""

    prompts: int = 8
    efforts: tuple[int, ...] = (1, 8)
    helds: tuple[Held, ...] = ("free", "defended", "code")
    blocks: tuple[int, ...] = BLOCKS

    @classmethod
    def read(cls, given: list[str]) -> Plan:
        """From the command line."""
        parts = [tuple(part.split(",")) for part in given]
        fields: dict[str, Any] = {"prompts": int(given[0])} if given else {}
        for name, part in zip(("efforts", "helds", "blocks"), parts[1:], strict=False):
            fields[name] = part if name == "helds" else tuple(int(number) for number in part)
        return cls(**fields)


def rows(directory: Path, plan: Plan) -> Iterator[Row]:
    """Rows of what is not measured yet, a prompt of every model and hook at a time."""
    done = {(r.case, r.prompt, r.blocks, r.held, r.effort) for r in recorded(directory)}
    for prompt, name, blocks, held in itertools.product(range(plan.prompts), ARCHITECTURES, plan.blocks, plan.helds):
        path = directory / name / f"flips_{blocks}.json"
        flips = byte_flips.load(path) if path.exists() else []
        missing = [effort for effort in plan.efforts if (name, prompt, blocks, held, effort) not in done]
        if prompt < len(flips) and missing:
            one = start(directory, name, blocks, flips[prompt], held)
            for row in () if one is None else measure(name, held, one, missing):
                yield replace(row, prompt=prompt)


def recorded(directory: Path) -> list[Row]:
    """What earlier runs measured."""
    path = directory / "rows.jsonl"
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def table(some: list[Row]) -> Iterator[str]:
    """Medians by blocks, held set and effort; for free, also by architecture and by the attacked radius."""
    some = [r for r in some if np.isfinite(r.attacked)]
    for held, blocks, effort in sorted({(r.held, r.blocks, r.effort) for r in some}, key=_order):
        chosen = [r for r in some if (r.blocks, r.held, r.effort) == (blocks, held, effort)]
        yield f"{blocks} blocks, {held}, effort {effort}: {medians(chosen)}"
    for blocks, effort in sorted({(r.blocks, r.effort) for r in some}):
        chosen = [r for r in some if (r.blocks, r.held, r.effort) == (blocks, "free", effort)]
        for name in ARCHITECTURES:
            part = [r for r in chosen if r.case == name]
            if part:
                yield f"{blocks} blocks, free, effort {effort}, {name}: {medians(part)}"
        for low, high in itertools.pairwise(BINS):
            part = [r for r in chosen if low <= r.attacked < high]
            if part:
                yield f"{blocks} blocks, free, effort {effort}, attacked at {low:g} to {high:g} ||h||: {medians(part)}"


def _order(key: tuple[str, int, int]) -> tuple[int, int, int]:
    return get_args(Held).index(key[0]), key[1], key[2]


def main(directory: Path, plan: Plan) -> None:
    """Measure what is missing and print the medians of all."""
    with (directory / "rows.jsonl").open("a", encoding="ascii") as file:
        for row in rows(directory, plan):
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
    print("\n".join(table(recorded(directory))))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 6:
        sys.exit("usage: python -m benchmarks.byte_models DIRECTORY [PROMPTS] [EFFORTS] [HELD] [BLOCKS]")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Plan.read(sys.argv[2:]))
