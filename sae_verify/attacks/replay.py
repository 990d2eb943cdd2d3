"""A perturbation replayed: one forward pass of the real model, with the clamp active, in the dtype that runs.

Only what the replay gives counts as a recovery. It also asks the real SAE, in its own dtype, whether what is held
moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, readout_values
from sae_verify.model import run
from sae_verify.problem import Problem
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import apply_clamp
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.topk import TopKSAE


@dataclass(frozen=True)
class Replay:
    """What one prompt's replay showed.

    Attributes:
        value: the readout of the real model.
        dtype: of the run, e.g. `float32`.
        drift: largest change of anything held, as the running SAE computes it.
        allowed: what rounding in that dtype can amount to there.
        held: whether everything held stayed within that, and no held feature turned on or off.

    """

    value: float
    dtype: str
    drift: float
    allowed: float
    held: bool


def replay(batch: Batch, delta: Array) -> tuple[Replay, ...]:
    """Replay perturbations of all prompts, (B, positions d), in one batched forward pass."""
    problem, prompts = batch.problem, batch.prompts
    count, positions = len(prompts), problem.threat.positions
    places = torch.arange(count)[:, None], prompts.ends(positions)  # (B, positions)
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    at = problem.threat.at

    def edit(x: Tensor) -> Tensor:
        push = torch.zeros_like(x)
        push[places] = torch.from_numpy(delta).reshape(count, positions, -1).to(x.dtype)
        before, after = x, x + push
        clean = apply_clamp(problem.sae, problem.clamp, before, prompts.lengths)
        if at != "h" and problem.threat.held == "code":
            # The clamp reads the same code at x + delta and writes the same values: the perturbation may come first.
            moved = apply_clamp(problem.sae, problem.clamp, after, prompts.lengths)
        else:
            moved = clean + push
        kept["x"] = before[places].flatten(0, 1), after[places].flatten(0, 1)
        kept["h"] = clean[places].flatten(0, 1), moved[places].flatten(0, 1)
        return moved

    result = run(problem.model, prompts, problem.hook_point, edit)
    values = readout_values(result.logits.double(), tuple(i.readout for i in batch.instances))
    points = ("x", "h") if at == "both" else (at or "h",)
    drift = torch.zeros(count, dtype=torch.float64)
    allowed, good = torch.zeros_like(drift), torch.ones(count, dtype=torch.bool)
    for point in points:
        before, after = kept[point]
        moved, limit, same = movement(problem, before.to(problem.sae.dtype), after.to(problem.sae.dtype))
        good &= (same & (moved <= limit).all(dim=1)).reshape(count, positions).all(dim=1)
        drift = torch.maximum(drift, moved.reshape(count, -1).amax(dim=1))
        allowed = torch.maximum(allowed, limit.reshape(count, -1).amax(dim=1))
    name = str(result.logits.dtype).removeprefix("torch.")
    return tuple(
        Replay(float(values[b]), name, float(drift[b]), float(allowed[b]), bool(good[b])) for b in range(count)
    )


def movement(problem: Problem, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far each held quantity moved, (n, m) float64, what rounding allows, and whether the same features are on."""
    sae, threat, count = problem.sae, problem.threat, len(before)
    nothing = torch.zeros(count, 1, dtype=torch.float64)
    same = torch.ones(count, dtype=torch.bool)
    if threat.held == "free":
        return nothing, nothing, same
    unit = max(torch.finfo(sae.dtype).eps, torch.finfo(problem.model.dtype).eps)
    length = (before.double().norm(dim=1) + after.double().norm(dim=1))[:, None]  # (B, 1)
    rounding = 4 * (sae.d_in + 4) * unit
    if threat.held == "unreachable":
        on = sae.active(before) if threat.features is None else _mask(sae, threat.features).expand(count, -1)
        moved = ((after - before).double() @ sae.W_dec.double().T).abs()
        limit = rounding * length * sae.W_dec.double().norm(dim=1)
        return torch.where(on, moved, 0.0), limit.expand_as(moved), same
    scale = sae.normalization.linear_scale("what is held")
    gain, tensors = sae.W_enc.double().norm(dim=0), sae.tensors()  # (d_sae,)
    bias = tensors["b_gate" if isinstance(sae, GatedSAE) else "b_enc"].double().abs()  # (d_sae,)
    size = scale * length + sae.b_dec.double().norm()  # (B, 1)
    if threat.held == "preactivations":
        moved = (sae.pre_activations(after) - sae.pre_activations(before)).double().abs()
        limit = rounding * (size * gain + bias)
        return torch.where(_mask(sae, problem.held_features), moved, 0.0), limit, same
    if isinstance(sae, GatedSAE):
        gain, bias = gain * sae.r_mag.double().exp(), sae.b_mag.double().abs()
    if isinstance(sae, TopKSAE) and sae.rescale_by_decoder_norm:
        norms = sae.W_dec.double().norm(dim=1)
        gain, bias = gain * norms, bias * norms
    named = threat.held in ("defended", "drift")
    held = _mask(sae, problem.held_features) if named else torch.ones(sae.d_sae, dtype=torch.bool)
    first, second = sae.encode(before), sae.encode(after)
    if threat.drift is not None:  # of the whole code of S
        limit = threat.drift * first.double()[:, held].norm(dim=1, keepdim=True)
        limit = limit + (rounding * (size * gain + bias))[:, held].norm(dim=1, keepdim=True)
        return (second - first).double()[:, held].norm(dim=1, keepdim=True), limit, same
    moved = torch.where(held, (second - first).double().abs(), 0.0)
    same = ((first != 0) == (second != 0)).masked_fill(~held, True).all(dim=1)
    return moved, rounding * (size * gain + bias), same


def _mask(sae: SAE, features: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(sae.d_sae, dtype=torch.bool)
    mask[list(features)] = True
    return mask
