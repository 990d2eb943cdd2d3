"""The cases that properties are shown to hold on and mutants to fall on: hard SAEs of every architecture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.sae import SAE
from sae_verify.testing import ARCHITECTURES, TRAITS, hard_case, residuals
from sae_verify.testing.properties import Attempt, Property

BUDGET = 200
"""Attempts within which mutants fall, most within ten, and true theorems hold."""
SCALES = (1.0, 0.5, 2.0, 3e-3)


def cases(count: int, seed: int = 0, architectures: tuple[str, ...] = ARCHITECTURES) -> Iterator[tuple[SAE, Array]]:
    """SAEs with residuals: at exact ties, at thresholds, at corners, zero, huge, tiny."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        traits = [name for name in TRAITS if rng.random() < 0.12]
        m = int(rng.integers(1, 13))
        case = hard_case(
            architectures[i % len(architectures)],
            int(rng.integers(1, 7)),
            m,
            traits,
            int(rng.integers(2**32)),
            k=int(rng.integers(1, m + 1)),
            scale=float(rng.choice(SCALES)),
            subtract=bool(rng.random() < 0.5),
            dtype=torch.float32 if rng.random() < 0.3 else torch.float64,
        )
        points = [case.x, *residuals(case.sae, 6, rng)]
        yield case.sae, points[int(rng.integers(len(points)))]


def attack(theorem: Property, count: int, architectures: tuple[str, ...] = ARCHITECTURES) -> tuple[int, Attempt | None]:
    """Attempts made, and the first that falsifies."""
    for number, (sae, x) in enumerate(cases(count, architectures=architectures), start=1):
        found = theorem.attempt(sae, x, np.random.default_rng(number))
        if found.falsified:
            return number, found
    return count, None
