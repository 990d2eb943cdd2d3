"""How closely a tail reproduces the real model, measured on random perturbations of the last positions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from sae_verify.errors import TailMismatchError
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.language_model import Model
from sae_verify.model.prompts import Prompts
from sae_verify.model.run import Edit, Run, run

if TYPE_CHECKING:
    from sae_verify.model.tail import Tail

DELTA_SCALES = (0.0, 0.01, 0.1, 1.0)
"""Norms of the random perturbations, in units of ||h||."""

SEED = 0

ROUNDING = 32.0
"""Allowed difference in units of sqrt(blocks + 1) times what `_tolerance` estimates for one rounding.

Seen: at most 1 over the tiny models of the tests (float64, float32, bfloat16, float16; every hook point), 0.3 for a
random model of GPT-2's size, and 7 for a random 12-block model whose residual has one dimension of 3000, as trained
GPT-2 has. The margin hides no error that is much larger than the run's own rounding.
"""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Largest difference between the logits of tail and model, by perturbation scale and prompt.

    Attributes:
        scales: (S,) norms of the perturbations, in units of ||h||.
        difference: (S, B) float64, largest over the vocabulary.
        tolerance: (S, B) float64, what was allowed; from the rounding of the model's dtype. For bfloat16 and float16
            it is so wide that only gross errors are caught: compare a float32 or float64 load of the same weights.
        dtype: of the model.
    """

    scales: tuple[float, ...]
    difference: Tensor
    tolerance: Tensor
    dtype: torch.dtype

    @property
    def worst(self) -> float:
        """Largest difference of a logit."""
        return float(self.difference.max())

    def select(self, indices: Tensor) -> Agreement:
        """Return the figures of the prompts `indices` (n,) int64."""
        return dataclasses.replace(self, difference=self.difference[:, indices], tolerance=self.tolerance[:, indices])


def check_tail(tail: Tail, model: Model, prompts: Prompts, hook: HookPoint, edited: Run) -> Agreement:
    """Compare a tail with the real model on random perturbations at the positions that it maps.

    Args:
        tail: made from `edited`.
        model: the real model.
        prompts: of the run.
        hook: of the run.
        edited: the edited run of the real model.

    Both sides get the same residual, already rounded to the model's dtype. Cost: one run a scale (scale 0 is the
    given run). Sampled: it detects a wrong tail, and proves nothing about untested perturbations.

    Raises:
        TailMismatchError: a logit differs by more than the tolerance, or is not finite.
    """
    generator = torch.Generator().manual_seed(SEED)
    places = torch.arange(len(prompts), device=model.device)[:, None], prompts.ends(tail.positions).to(model.device)
    differences, tolerances = [], []
    for scale in DELTA_SCALES:
        delta = scale * tail.base.norm(dim=-1, keepdim=True) * _directions(tail.base, generator)  # (B, positions d)
        states = edited.edited.detach().clone()  # (B, T, d)
        states[places] = (tail.base + delta).unflatten(1, (tail.positions, -1)).to(states.dtype)
        with torch.no_grad():
            real = edited if scale == 0.0 else run(model, prompts, hook, _constant(states))
            resid = states[places].to(torch.float64).flatten(1)  # (B, positions d)
            predicted, observed = tail(resid), real.logits.to(torch.float64)  # (B, V)
            allowed = _tolerance(tail, resid, predicted, model.dtype, generator)  # (B,)
            gap = (predicted - observed).abs()  # (B, V)
        difference, token = gap.max(-1)  # NaN is kept, and is not below the tolerance
        differences.append(difference)
        tolerances.append(allowed)
        for index in (~(difference <= allowed)).nonzero().flatten().tolist()[:1]:
            at = int(token[index])
            raise TailMismatchError(
                f"prompt {index}, perturbation of {scale} ||h||, token {at}: the tail's logit is "
                f"{float(predicted[index, at]):.10g}, the {model.dtype} model's {float(observed[index, at]):.10g}, "
                f"difference {float(difference[index]):.3g}, tolerance {float(allowed[index]):.3g}",
                rule="the float64 tail must reproduce the real model within the rounding of its run",
                remedy="report the model's config.json; reduced-precision matrix products (TF32), an overflow in a "
                "narrow dtype and custom kernels also cause this: try dtype=torch.float64",
            )
    return Agreement(DELTA_SCALES, torch.stack(differences), torch.stack(tolerances), model.dtype)


def _tolerance(tail: Tail, resid: Tensor, logits: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return how much rounding a run in `dtype` may show at `resid` (B, positions d), shape (B,).

    Two parts, each with the machine epsilon u: the last product rounds terms as large as u ||hidden|| ||U_v||, whatever
    cancels; and the rounding of the residual, u ||resid||, is amplified by the tail, which the tail itself shows.
    """
    epsilon = torch.finfo(dtype).eps
    terms = epsilon * tail.hidden(resid).norm(dim=-1) * tail.unembed.norm(dim=-1).max()  # (B,)
    nudge = epsilon * resid.norm(dim=-1, keepdim=True) * _directions(resid, generator)  # (B, d)
    response = (tail(resid + nudge) - logits).abs().amax(-1)  # (B,)
    return ROUNDING * (len(tail.blocks) + 1) ** 0.5 * (terms + response)


def _directions(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit vectors, (B, n) float64; drawn on the CPU so that every device gets the same."""
    draw = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return functional.normalize(draw, dim=-1).to(like.device)


def _constant(states: Tensor) -> Edit:
    return lambda _resid: states
