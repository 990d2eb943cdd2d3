"""Train a small SAE on stored activations: enough for examples and tests, and the same weights for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sae_verify.errors import InputError, ShapeError, WeightsError
from sae_verify.sae.base import SAE, check_finite
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.topk import TopKSAE

Architecture = Literal["topk", "jumprelu"]

AUXILIARY_WEIGHT = 1 / 32
"""Weight of the dead features' reconstruction of the residual error (arXiv 2406.04093)."""

DEAD_AFTER = 2_000
"""A feature that no training example has turned on for this many examples counts as dead while training."""

BANDWIDTH = 0.1
"""Width of the rectangle kernel, in units of the normalised activations (arXiv 2407.14435)."""

START_THRESHOLD = 0.1
LEAST_THRESHOLD = 1e-3
"""Thresholds stay above this, in units of the normalised activations."""

GAIN = 0.03
"""How fast the sparsity coefficient follows the distance from the target, a training step."""

SAMPLE = 65_536
"""Most activations that the report is measured on."""


@dataclass(frozen=True)
class TrainReport:
    """What training reached, measured on (at most 65536 of) the training activations.

    Attributes:
        fvu: fraction of variance unexplained, sum |x - D(E(x))|^2 / sum |x - mean|^2.
        l0: mean number of active features.
        dead: fraction of features that were never active.

    """

    fvu: float
    l0: float
    dead: float


def train_sae(
    activations: Tensor,
    *,
    architecture: Architecture,
    d_sae: int,
    k: int | None = None,
    l0: float | None = None,
    steps: int = 1500,
    batch: int = 1024,
    lr: float = 4e-3,
    seed: int = 0,
) -> tuple[SAE, TrainReport]:
    """Train an SAE with unit-norm decoder rows; b_dec is subtracted from the input.

    Same arguments, one thread: same weights, bit for bit. Cost: `steps * batch * d * d_sae` multiplications, times 6.

    Args:
        activations: (N, d) float32.
        architecture: `topk`, with an auxiliary loss for dead features, or `jumprelu`, with straight-through gradients
            for the thresholds and a penalty that is steered until the mean L0 is the target.
        d_sae: number of features.
        k: features that can be on, for topk.
        l0: target of the mean number of active features, for jumprelu.
        steps: Adam steps.
        batch: examples in a step, drawn with replacement.
        lr: learning rate, decayed to zero over the last fifth of the steps.
        seed: of initialisation and batches.

    Returns:
        The SAE (float32, no normalisation) and what it reached.

    Raises:
        ShapeError, WeightsError, InputError: activations or arguments are not usable.

    """
    _check(activations, architecture, d_sae, k, l0, {"steps": steps, "batch": batch}, lr)
    generator = torch.Generator().manual_seed(seed)
    mean = activations.mean(dim=0)  # (d,)
    spread = float((activations - mean).norm(dim=1).mean()) / math.sqrt(activations.shape[1])
    if spread == 0:
        raise InputError("all activations are equal", rule="there must be something to explain")
    W_dec = torch.randn(d_sae, activations.shape[1], generator=generator)
    W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
    weights = {"W_enc": W_dec.T.clone(), "W_dec": W_dec, "b_enc": torch.zeros(d_sae), "b_dec": torch.zeros_like(mean)}
    if architecture == "jumprelu":
        weights["threshold"] = torch.full((d_sae,), START_THRESHOLD)
    for tensor in weights.values():
        tensor.requires_grad_()
    loss = (
        _topk_loss(weights, int(k or 0)) if architecture == "topk" else _jumprelu_loss(weights, float(l0 or 0), steps)
    )

    optimiser = torch.optim.Adam(weights.values(), lr=lr, betas=(0.9, 0.999))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 20, 5 * (steps - step) / steps)
        rows = torch.randint(len(activations), (batch,), generator=generator)
        optimiser.zero_grad()
        loss((activations[rows] - mean) / spread).backward()
        _project_gradient(weights["W_dec"])
        optimiser.step()
        with torch.no_grad():
            weights["W_dec"] /= weights["W_dec"].norm(dim=1, keepdim=True)
            if "threshold" in weights:
                weights["threshold"].clamp_(min=LEAST_THRESHOLD)

    # In units of the input: N(x) = (x - mean) / spread goes into the biases, so that the encoder column stays.
    final = {name: tensor.detach() for name, tensor in weights.items()}
    final["b_dec"] = final["b_dec"] * spread + mean
    for name in ("b_enc", "threshold"):
        if name in final:
            final[name] = final[name] * spread
    common: dict[str, Any] = {**final, "subtract_b_dec": True}
    sae = JumpReLUSAE(**common) if k is None else TopKSAE(**common, k=k, rescale_by_decoder_norm=False)
    return sae, _report(sae, activations)


def _check(
    activations: Tensor,
    architecture: str,
    d_sae: int,
    k: int | None,
    l0: float | None,
    counts: dict[str, int],
    lr: float,
) -> None:
    if activations.ndim != 2 or 0 in activations.shape:
        raise ShapeError(f"activations have shape {tuple(activations.shape)}", rule="they must be (N, d), none zero")
    if activations.dtype != torch.float32:
        raise InputError(f"activations are {activations.dtype}", rule="they must be float32", remedy="use .float()")
    try:
        check_finite("activations", activations)
    except WeightsError as error:
        raise InputError(error.problem, rule="activations must be finite") from error
    for name, value in {**counts, "d_sae": d_sae}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}", rule="it must be a positive integer")
    if architecture not in ("topk", "jumprelu"):
        raise InputError(f"architecture is {architecture!r}", rule="it must be topk or jumprelu")
    wanted, other = (k, l0) if architecture == "topk" else (l0, k)
    name, kinds = ("k", (int,)) if architecture == "topk" else ("l0", (int, float))
    ok = isinstance(wanted, kinds) and not isinstance(wanted, bool) and 0 < wanted <= d_sae
    if not ok or other is not None:
        raise InputError(
            f"k is {k!r} and l0 is {l0!r}", rule=f"{architecture} needs {name}, above 0 and at most d_sae, and no other"
        )
    if not (isinstance(lr, (int, float)) and math.isfinite(lr) and lr > 0):
        raise InputError(f"lr is {lr!r}", rule="it must be positive and finite")


def _project_gradient(W_dec: Tensor) -> None:
    """Remove from the decoder's gradient what the renormalisation of its rows would undo."""
    gradient = W_dec.grad
    assert gradient is not None
    gradient -= (gradient * W_dec.detach()).sum(dim=1, keepdim=True) * W_dec.detach()


def _topk_loss(weights: dict[str, Tensor], k: int) -> Callable[[Tensor], Tensor]:
    d_sae = len(weights["b_enc"])
    idle = torch.zeros(d_sae)  # examples since each feature was last on

    def loss(x: Tensor) -> Tensor:
        a = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]  # (batch, d_sae)
        top = a.topk(k, dim=1)
        z = torch.zeros_like(a).scatter(1, top.indices, top.values.relu())
        error = x - (z @ weights["W_dec"] + weights["b_dec"])  # (batch, d)
        idle.add_(len(x))[(z.detach() > 0).any(dim=0)] = 0
        dead = idle > DEAD_AFTER
        total = error.square().mean()
        if bool(dead.any()):
            spare = min(int(dead.sum()), max(k, len(x[0]) // 2))
            idle_a = a[:, dead]  # (batch, dead features)
            revived = idle_a.topk(spare, dim=1)
            z = torch.zeros_like(idle_a).scatter(1, revived.indices, revived.values.relu())
            total = total + AUXILIARY_WEIGHT * (error.detach() - z @ weights["W_dec"][dead]).square().mean()
        return total

    return loss


class _Step(torch.autograd.Function):
    """H(a - threshold), with the rectangle kernel's gradient for both."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(a, threshold)
        return (a > threshold).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, threshold = ctx.saved_tensors
        kernel = ((a - threshold).abs() < BANDWIDTH / 2) / BANDWIDTH  # (batch, d_sae)
        through = gradients[0] * kernel
        return through, -through.sum(dim=0)


def _jumprelu_loss(weights: dict[str, Tensor], target: float, steps: int) -> Callable[[Tensor], Tensor]:
    log_coefficient = math.log(1e-3)
    warm_up = max(1, steps // 10)
    seen = 0

    def loss(x: Tensor) -> Tensor:
        nonlocal log_coefficient, seen
        seen += 1
        a = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]  # (batch, d_sae)
        on = _apply_step(a, weights["threshold"])
        error = x - ((a.relu() * on) @ weights["W_dec"] + weights["b_dec"])
        l0 = on.sum(dim=1).mean()
        if seen > warm_up:  # the coefficient grows while there are too many, and shrinks while there are too few
            distance = math.log(max(float(l0.detach()), 0.1) / target)
            log_coefficient += GAIN * max(-1.0, min(1.0, distance))
        ramp = min(1.0, seen / warm_up)
        return error.square().mean() + ramp * math.exp(log_coefficient) * l0 / target

    return loss


def _apply_step(a: Tensor, threshold: Tensor) -> Tensor:
    result = _Step.apply(a, threshold)
    assert isinstance(result, Tensor)
    return result


@torch.no_grad()
def _report(sae: SAE, activations: Tensor) -> TrainReport:
    x = activations[:SAMPLE]
    z = sae.encode(x)
    error, spread = (x - sae.decode(z, x)).double(), (x - x.mean(dim=0)).double()
    on = z != 0
    return TrainReport(
        fvu=float(error.square().sum() / spread.square().sum()),
        l0=float(on.sum(dim=1).double().mean()),
        dead=float((~on.any(dim=0)).double().mean()),
    )
