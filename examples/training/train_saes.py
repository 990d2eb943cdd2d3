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
from sae_verify.sae import SAE, JumpReLUSAE, TopKSAE, save_sae, train_sae
from sae_verify.sae.base import Source

N_PROMPTS = 3000
LAST_REPEATS = 4


@dataclass(frozen=True)
class SAEPlan:
    """Which SAE to train where.

    Attributes:
        folder: `sae_early` or `sae_last`.
        hook: TransformerLens name of the hook point.
        architecture: `topk`; `jumprelu` with trained thresholds; or `batchtopk`, a TopK SAE in the form in which
            BatchTopK SAEs are shipped: a JumpReLU SAE whose constant threshold keeps `l0` features a token on average.
        l0: k of a TopK SAE; mean number of active features of the others.
        d_sae: number of features.
        steps: Adam steps.

    """

    folder: Literal["sae_early", "sae_last"]
    hook: str
    architecture: Literal["topk", "jumprelu", "batchtopk"]
    l0: int
    d_sae: int = 256
    steps: int = 1500


@dataclass(frozen=True)
class Fit:
    """What an SAE reaches on fresh prompts.

    Attributes:
        fvu: fraction of variance unexplained.
        error_norm: mean of ||e|| / ||x||.
        l0: mean number of active features.
        dead: fraction of features that are never active.

    """

    fvu: float
    error_norm: float
    l0: float
    dead: float


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


def train_case_sae(model: Model, grammar: Grammar, plan: SAEPlan, case: Path) -> Fit:
    """Train one SAE, write it in the SAELens 6 format to `case / plan.folder`, and measure it on fresh prompts."""
    x = activations(model, grammar, plan.hook, seed=1)
    sparsity = {"l0": plan.l0} if plan.architecture == "jumprelu" else {"k": plan.l0}
    architecture = "jumprelu" if plan.architecture == "jumprelu" else "topk"
    sae, _ = train_sae(x, architecture=architecture, d_sae=plan.d_sae, steps=plan.steps, batch=512, seed=0, **sparsity)
    if plan.architecture == "batchtopk":
        sae = with_constant_threshold(sae, x, plan.l0)
    sae = dataclasses.replace(sae, source=Source(hook_name=plan.hook, model_name=f"sae_verify/examples/{grammar.name}"))
    save_sae(sae, case / plan.folder)
    return fit(sae, activations(model, grammar, plan.hook, seed=2, n_prompts=1000))


def with_constant_threshold(sae: SAE, x: Tensor, l0: int) -> JumpReLUSAE:
    """The JumpReLU SAE with these weights and the one threshold that keeps `l0` features a row of x on average."""
    assert isinstance(sae, TopKSAE)
    a = sae.pre_activations(x).relu().flatten()  # (tokens * d_sae,)
    threshold = float(a.sort(descending=True).values[l0 * len(x)])
    return JumpReLUSAE(
        W_enc=sae.W_enc,
        W_dec=sae.W_dec,
        b_dec=sae.b_dec,
        b_enc=sae.b_enc,
        threshold=torch.full_like(sae.b_enc, threshold),
        subtract_b_dec=sae.subtract_b_dec,
    )


def fit(sae: SAE, x: Tensor) -> Fit:
    """Measure an SAE on activations x (tokens, d_model)."""
    z = sae.encode(x)  # (tokens, d_sae)
    error, centred = (x - sae.decode(z, x)).double(), (x - x.mean(dim=0)).double()
    return Fit(
        fvu=float(error.square().sum() / centred.square().sum()),
        error_norm=float((error.norm(dim=-1) / x.double().norm(dim=-1)).mean()),
        l0=float((z != 0).sum(dim=-1).double().mean()),
        dead=float((z == 0).all(dim=0).double().mean()),
    )
