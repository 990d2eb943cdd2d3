"""Trains the SAE of examples/every_radius: so dense that holding its whole code leaves little of the residual stream.

`python -m examples.training.dense_sae`; about ten seconds on one thread.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from examples.training.refusal import Refusal
from examples.training.train_saes import activations
from sae_verify.model import load_model
from sae_verify.sae import save_sae, train_sae
from sae_verify.sae.base import Source

EXAMPLES = Path(__file__).parents[1]
HOOK = "blocks.2.hook_resid_post"
ACTIVE = 62
"""Features that are on, of 256; the residual stream has 64 dimensions."""


def build(directory: Path) -> None:
    """Train and write the SAE."""
    torch.set_num_threads(1)
    model = load_model(EXAMPLES / "cases" / "refusal")
    sae, report = train_sae(
        activations(model, Refusal(), HOOK, 0, 1500), architecture="topk", d_sae=256, k=ACTIVE, steps=500, batch=512
    )
    save_sae(dataclasses.replace(sae, source=Source(model_name="refusal", hook_name=HOOK)), directory)
    print(report)


if __name__ == "__main__":
    build(EXAMPLES / "every_radius" / "sae")
