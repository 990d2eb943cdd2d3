"""Features by attribution to a readout: gradient times activation, or integrated along a path, checked by ablation.

At the hook x = D(z) + e. A feature's effect is that of changing z_j with the error term e kept, which is what a clamp
does: h = x + write(dz). Written so, no reconstruction replaces the residual, and gradients to everything before the
hook pass through unchanged: dh / dx = I at dz = 0. (Splicing D(E(x)) + e with a detached e sends them through the
encoder and decoder instead, and drops what the error term carries.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sae_verify.discover.subject import Readouts, Subject, chunks, readout
from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import TokenReadout, readout_values
from sae_verify.model import Edit, Prompts, run
from sae_verify.problem import Prompt
from sae_verify.sae.base import SAE

Method = Literal["gradient", "integrated"]
BUDGET = 2**24
"""Numbers in the codes of one forward pass."""


@dataclass(frozen=True)
class FeatureEffect:
    """One feature.

    Attributes:
        feature: index.
        score: mean attribution over the prompts, in units of the readout: what the feature adds to it.
        share: of the prompts on which the feature is on somewhere.
        ablated: mean change of the readout of the real model when the feature takes its baseline value, times -1: the
            same sign as the score. None if it was not measured.
    """

    feature: int
    score: float
    share: float
    ablated: float | None


@dataclass(frozen=True, eq=False)
class FeatureAttribution:
    """Attribution of every feature on every prompt.

    Attributes:
        scores: (B, d_sae), summed over positions; in units of the readout.
        on: (B, d_sae) whether the feature is on at some position.
        value: (B,) readout as the model runs.
        baseline: (B,) readout with every feature at its baseline value (the error term kept).
        gap: (B,) sum of the scores less (value - baseline); for the integrated method it goes to zero as steps grow,
            for a gradient it is how far from linear the model is.
    """

    subject: Subject
    prompts: Prompts
    readouts: tuple[TokenReadout, ...]
    zero: Tensor
    scores: Array
    on: Array
    value: Array
    baseline: Array

    @property
    def gap(self) -> Array:
        """See the class."""
        return self.scores.sum(axis=1) - (self.value - self.baseline)

    def top(self, count: int = 10, *, both: bool = False, measure: bool = False) -> tuple[FeatureEffect, ...]:
        """The features with the largest mean score.

        Args:
            count: how many at most.
            both: also those that lower the readout, ranked by size.
            measure: ablate each on the real model; one forward pass a prompt and feature.
        """
        mean = self.scores.mean(axis=0)
        order = np.argsort(-np.abs(mean) if both else -mean, kind="stable")
        chosen = [int(f) for f in order if (mean[f] != 0 if both else mean[f] > 0)][:count]
        ablated = [self.ablate([feature]) for feature in chosen] if measure else [None] * len(chosen)
        return tuple(
            FeatureEffect(f, float(mean[f]), float(self.on[:, f].mean()), None if a is None else float(a.mean()))
            for f, a in zip(chosen, ablated, strict=True)
        )

    def ablate(self, features: Sequence[int]) -> Array:
        """What these features add to the readout of the real model: value less that with them at baseline; (B,)."""
        sae, index = self.subject.sae, torch.tensor(list(features), dtype=torch.long)

        def edit(_: Prompts) -> Edit:
            return lambda x: moved_to(sae, x, self.zero, index).to(x.dtype)

        return self.value - readout(self.subject, self.prompts, self.readouts, edit).numpy()


def moved_to(sae: SAE, x: Tensor, baseline: Tensor, features: Tensor | None = None) -> Tensor:
    """x with these features (None for all) at a baseline (d_sae,), the error term kept; (..., d), SAE's dtype."""
    change = baseline - sae.encode(x)
    if features is not None:
        mask = torch.zeros(sae.d_sae, dtype=torch.bool)
        mask[features] = True
        change = torch.where(mask, change, 0.0)
    return spliced(sae, x, change)


def spliced(sae: SAE, x: Tensor, dz: Tensor) -> Tensor:
    """The residual when the code of x changes by dz and the error term stays, (..., d): exact, and dh / dx = I at 0."""
    return x + sae.write(dz, x)


def attribute(
    subject: Subject,
    prompts: Sequence[Prompt],
    to: Readouts,
    *,
    method: Method = "gradient",
    steps: int = 16,
    baseline: Array | None = None,
) -> FeatureAttribution:
    """Attribute the readout at the last position to the features at every position.

    Args:
        subject: model and SAE.
        prompts: any number.
        to: the readout, one for all prompts or one a prompt.
        method: `gradient` times distance from the baseline, or `integrated` along the straight path from the baseline
            code to the code, whose scores add up to what all features together add to the readout.
        steps: Gauss-Legendre nodes of the path.
        baseline: (d_sae,) code that counts as nothing; None for zero. The mean over a data set is another choice.

    Cost: two forward passes a prompt, and one forward and backward pass a prompt and step.

    Raises:
        InputError and its kinds: prompts, readouts or arguments are not usable.
    """
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}", rule=f"it must be one of {', '.join(get_args(Method))}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps is {steps!r}", rule="it must be an integer from 1")
    sae = subject.sae
    zero = torch.zeros(sae.d_sae, dtype=sae.dtype) if baseline is None else torch.as_tensor(baseline).to(sae.dtype)
    if zero.shape != (sae.d_sae,):
        raise ShapeError(f"the baseline has shape {tuple(zero.shape)}", rule=f"it must be ({sae.d_sae},)")
    encoded = subject.prompts(prompts)
    readouts = subject.readouts(to, len(encoded))
    nodes, weights = (np.array([1.0]), np.array([1.0])) if method == "gradient" else _nodes(steps)
    scores, on = [], []
    rows = max(1, BUDGET // (encoded.tokens.shape[1] * sae.d_sae))
    for place, some in chunks(encoded, rows):
        gradient, code = _gradients(subject, some, readouts[place], zero, nodes, weights)
        scores.append(((code - zero) * gradient).sum(dim=1))  # (n, d_sae)
        on.append((code != 0).any(dim=1))
    value = readout(subject, encoded, readouts).numpy()

    def nothing(_: Prompts) -> Edit:
        return lambda x: moved_to(sae, x, zero).to(x.dtype)

    without = readout(subject, encoded, readouts, nothing).numpy()
    return FeatureAttribution(
        subject,
        encoded,
        readouts,
        zero,
        torch.cat(scores).double().numpy(),
        torch.cat(on).numpy(),
        value,
        without,
    )


def _nodes(steps: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 1]; 1 is the code itself."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def _gradients(
    subject: Subject, prompts: Prompts, readouts: tuple[TokenReadout, ...], zero: Tensor, nodes: Array, weights: Array
) -> tuple[Tensor, Tensor]:
    """Mean gradient of the readout in the code along the path, and the code, both (n, T, d_sae); zero at padding."""
    sae = subject.sae
    total: Tensor | None = None
    kept: dict[str, Tensor] = {}
    for node, weight in zip(nodes, weights, strict=True):

        def edit(x: Tensor, node: float = float(node)) -> Tensor:
            x = x.detach()
            kept["code"] = sae.encode(x)
            kept["dz"] = torch.zeros_like(kept["code"], requires_grad=True)
            path = (zero - kept["code"]) * (1.0 - node)
            return spliced(sae, x, path + kept["dz"])

        with torch.enable_grad():
            values = readout_values(run(subject.model, prompts, subject.point, edit).logits.double(), readouts)
            (gradient,) = torch.autograd.grad(values.sum(), kept["dz"])
        total = float(weight) * gradient if total is None else total + float(weight) * gradient
    assert total is not None
    real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]  # (n, T)
    return total * real[..., None], torch.where(real[..., None], kept["code"].detach(), zero)
