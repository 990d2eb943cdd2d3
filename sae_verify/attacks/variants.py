"""Many perturbations of each prompt replayed on the real model, a few hundred at a time."""

from __future__ import annotations

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, clamp_edit, readout_values
from sae_verify.model import run

ROWS = 256
"""Prompts in one forward pass."""


def replay_variants(batch: Batch, delta: Array) -> Array:
    """Readouts of the real model at h + delta, the clamp active: (B, V) for delta (B, V, positions d).

    The clamp is applied once, in the dtype that runs, and delta is added to its result at each prompt's last positions.
    Whether delta is admissible is not looked at: see `replay`. Cost: B V forward passes.
    """
    problem, prompts = batch.problem, batch.prompts
    count, variants = delta.shape[:2]
    with torch.no_grad():
        clean = run(problem.model, prompts, problem.hook_point, clamp_edit(problem, prompts)).edited  # (B, T, d)
        values = np.zeros((count, variants))
        index = np.stack(np.meshgrid(np.arange(count), np.arange(variants), indexing="ij"), -1).reshape(-1, 2)
        for start in range(0, len(index), ROWS):
            prompt, variant = index[start : start + ROWS].T
            chosen = prompts.select(prompt.tolist())
            states = clean[prompt.tolist(), : chosen.tokens.shape[1]].clone()  # (n, T, d)
            places = torch.arange(len(prompt))[:, None], chosen.ends(problem.threat.positions)
            push = torch.from_numpy(delta[prompt, variant]).reshape(*places[1].shape, -1)
            states[places] += push.to(states.dtype)
            logits = run(problem.model, chosen, problem.hook_point, lambda _, s=states: s).logits.double()
            readouts = tuple(batch.instances[b].readout for b in prompt)
            values[prompt, variant] = readout_values(logits, readouts).numpy()
    return values
