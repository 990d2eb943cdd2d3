"""Trains the two SAEs of a case on the model's own activations."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from examples.training.grammar import Grammar
from sae_verify.model import HookPoint, Model, encode_prompts, run
from sae_verify.sae import SAE, TrainReport, save_sae, train_sae
from sae_verify.sae.base import Source

N_PROMPTS = 3000
LAST_REPEATS = 4


@dataclass(frozen=True)
class SAEPlan:
    """Which SAE to train where.

    Attributes:
        folder: `sae_early` or `sae_last`.
        hook: TransformerLens name of the hook point.
        architecture: `topk` or `jumprelu`.
        l0: k of a TopK SAE; target of the mean number of active features of a JumpReLU SAE.
        d_sae: number of features.
        steps: Adam steps.
    """

    folder: Literal["sae_early", "sae_last"]
    hook: str
    architecture: Literal["topk", "jumprelu"]
    l0: int
    d_sae: int = 512
    steps: int = 1500


@torch.no_grad()
def activations(model: Model, grammar: Grammar, hook: str, seed: int, n_prompts: int = N_PROMPTS) -> Tensor:
    """Residuals of random prompts at every token, `<bos>` and padding left out; shape (tokens, d_model).

    The last position of each prompt, where the readout is taken, is repeated `LAST_REPEATS` times: these grammars are
    rigid, and most of what varies between prompts is there.
    """
    rng = random.Random(seed)
    bos = int(grammar.uses_bos)
    collected = []
    for _ in range(n_prompts // 250):
        prompts = encode_prompts(model, [example.prompt for example in grammar.batch(rng, 250)])
        resid = run(model, prompts, HookPoint.parse(hook)).resid  # (prompts, width, d_model)
        place = torch.arange(resid.shape[1])  # (width,)
        collected.append(resid[(place >= bos) & (place < prompts.lengths[:, None])])
        collected += [resid[torch.arange(len(prompts)), prompts.last]] * (LAST_REPEATS - 1)
    return torch.cat(collected).float()


def train_case_sae(model: Model, grammar: Grammar, plan: SAEPlan, case: Path) -> tuple[SAE, TrainReport]:
    """Train one SAE and write it in the SAELens 6 format to `case / plan.folder`."""
    x = activations(model, grammar, plan.hook, seed=1)
    sparsity = {"k": plan.l0} if plan.architecture == "topk" else {"l0": plan.l0}
    sae, report = train_sae(
        x, architecture=plan.architecture, d_sae=plan.d_sae, steps=plan.steps, batch=512, seed=0, **sparsity
    )
    sae = dataclasses.replace(
        sae, source=Source(hook_name=plan.hook, model_name=f"sae_verify/examples/{grammar.name}")
    )
    save_sae(sae, case / plan.folder)
    return sae, report
