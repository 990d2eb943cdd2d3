"""Claim: one pass of Taylor models is far tighter than CROWN on the same tail and ball; linear ones cost no more.

CROWN is auto_LiRPA's. The tail is that of a bundled GPT-2 model from the early hook on, 1 or 2 blocks, at the last
position, in float64; the GELU is the one with erf, since auto_LiRPA has a relaxation for no other. CROWN gets the
scores of earlier keys as one linear map, which is tighter than a product. auto_LiRPA is not among the dependencies;
without it, this only says so. Recorded figures: benchmarks/recorded/crown.md.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.through_blocks import LEVEL, SETTINGS, Start, opened
from sae_verify.attacks import attack
from sae_verify.bounds import Bound, LinearRelaxation, ThroughBlocks
from sae_verify.model import Tail
from sae_verify.model.block import Block
from sae_verify.model.operations import Activation, LayerNorm, Linear, Mlp
from sae_verify.problem import ErrorBall
from sae_verify.problem_file import load_problem

CASE = Path(__file__).parent.parent / "examples" / "cases" / "indirect_object" / "problem_early.toml"
PROMPTS = 2
LEVELS = (0.005, 0.01, LEVEL)
"""Radii in units of ||h||."""


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """The map as a module in float64."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
    made.weight.data = weight.clone()
    if bias is not None:
        made.bias.data = bias.clone()
    return made


class Normed(nn.Module):
    """LayerNorm from operations that have relaxations."""

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__()
        d = len(norm.gain)
        self.centre = linear(torch.eye(d, dtype=torch.float64) - 1.0 / d)
        self.scale = linear(torch.diag(norm.gain), norm.bias)
        self.epsilon = norm.epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(1, d) to (1, d)."""
        z = self.centre(x)
        return self.scale(z / torch.sqrt((z * z).mean(-1, keepdim=True) + self.epsilon))


class CrownBlock(nn.Module):
    """One block of one prompt at the last position, (1, d) to (1, d)."""

    values: Tensor
    """(1, heads, P, d_head), of the earlier positions."""

    def __init__(self, block: Block, gelu: nn.Module) -> None:
        super().__init__()
        self.gelu = gelu
        attention, mlp = block.attention, block.mlp
        weights = attention.weights
        assert isinstance(block.attention_norm, LayerNorm)
        assert isinstance(block.mlp_norm, LayerNorm)
        assert isinstance(mlp, Mlp)
        assert weights.n_heads == weights.n_kv_heads
        keys, values = (part[:, :, attention.visible[0]] for part in (attention.keys, attention.values))
        self.attention_norm, self.mlp_norm = Normed(block.attention_norm), Normed(block.mlp_norm)
        self.heads, self.past = weights.n_heads, keys.shape[2]
        size, d = weights.d_head, weights.query.weight.shape[1]
        query, bias = weights.query.weight * weights.scale, _bias(weights.query) * weights.scale
        rows = query.reshape(self.heads, size, d)
        # All earlier keys against the query: one affine map of y.
        past = keys[0] @ rows  # (heads, P, d)
        past_bias = (keys[0] @ bias.reshape(self.heads, size, 1))[..., 0]
        self.past_scores = linear(past.reshape(-1, d), past_bias.reshape(-1))
        self.query, self.key = linear(query, bias), linear(weights.key.weight, _bias(weights.key))
        self.value = linear(weights.value.weight, _bias(weights.value))
        self.output = linear(weights.output.weight, _bias(weights.output))
        self.register_buffer("values", values.clone())
        self.up, self.down = linear(mlp.up.weight, _bias(mlp.up)), linear(mlp.down.weight, _bias(mlp.down))

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream after the block."""
        y = self.attention_norm(x)
        query = self.query(y).view(1, self.heads, -1)
        key = self.key(y).view(1, self.heads, -1)
        own_value = self.value(y).view(1, self.heads, -1)
        own = (query * key).sum(-1, keepdim=True)  # (1, heads, 1)
        pattern = torch.softmax(torch.cat([self.past_scores(y).view(1, self.heads, -1), own], -1), -1)
        mixed = torch.matmul(pattern[:, :, : self.past].unsqueeze(2), self.values).view(1, self.heads, -1)
        mixed = mixed + pattern[:, :, self.past :] * own_value
        x = x + self.output(mixed.reshape(1, -1))
        return x + self.down(self.gelu(self.up(self.mlp_norm(x))))


class CrownTail(nn.Module):
    """The readout of one prompt's tail, (1, d) to (1, 1)."""

    def __init__(self, tail: Tail, row: Tensor, gelu: nn.Module) -> None:
        super().__init__()
        assert isinstance(tail.final_norm, LayerNorm)
        blocks = [block for block in tail.blocks if isinstance(block, Block)]
        assert len(blocks) == len(tail.blocks)
        self.blocks = nn.Sequential(*(CrownBlock(block, gelu) for block in blocks))
        self.final_norm, self.readout = Normed(tail.final_norm), linear(row[None])

    def forward(self, x: Tensor) -> Tensor:
        """The readout."""
        return self.readout(self.final_norm(self.blocks(x)))


def _bias(affine: Linear) -> Tensor:
    return torch.zeros(len(affine.weight), dtype=torch.float64) if affine.bias is None else affine.bias


def with_erf(start: Start) -> Start:
    """The same tail with the erf GELU, for the attack and for the checker's model."""
    tail = start.batch.tail
    blocks = []
    for block in tail.blocks:
        assert isinstance(block, Block)
        assert isinstance(block.mlp, Mlp)
        blocks.append(dataclasses.replace(block, mlp=dataclasses.replace(block.mlp, activation=Activation.GELU_ERF)))
    batch = dataclasses.replace(start.batch, tail=dataclasses.replace(tail, blocks=tuple(blocks)))
    relaxations = []
    for relaxation in start.relaxations:
        stored = (dataclasses.replace(b, mlp=dataclasses.replace(b.mlp, kind="gelu")) for b in relaxation.blocks)
        relaxations.append(dataclasses.replace(relaxation, blocks=tuple(stored)))
    return Start(batch, tuple(relaxations), start.functionals)


def crown(lirpa: Any, module: nn.Module, h: Tensor, radius: float) -> tuple[float, float]:
    """CROWN's upper bound of the readout on the ball, and its process time without the graph's construction."""
    bounded = lirpa.BoundedModule(module, h, verbose=False)
    ball = lirpa.BoundedTensor(h, lirpa.PerturbationLpNorm(norm=2, eps=radius))
    begun = time.process_time()
    with torch.no_grad():
        upper = bounded.compute_bounds(x=(ball,), method="CROWN", bound_lower=False)[1]
    return float(upper), time.process_time() - begun


def main(prompts: int = PROMPTS) -> None:
    """Print looseness and process times of both, medians over prompts."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        print("auto_LiRPA is not installed: nothing is measured; see benchmarks/recorded/crown.md for recorded figures")
        return
    lirpa: Any = importlib.import_module("auto_LiRPA")
    torch.set_default_dtype(torch.float64)
    problem = dataclasses.replace(load_problem(CASE), threat=ErrorBall(LEVEL, held="free", at="h", relative_to="h"))
    early = opened(problem, prompts)
    for start in (early.moved(1), early):
        start = with_erf(start)
        for level in LEVELS:
            _compare(lirpa, start, level)


def _compare(lirpa: Any, start: Start, level: float) -> None:
    batch = start.batch
    radii = np.array([level * instance.norm_h for instance in batch.instances])
    centre = batch.readout(batch.h[:, None])[:, 0].numpy()
    raised = attack(batch, radii, SETTINGS).value - centre
    found = []
    for i, (instance, relaxation, functional) in enumerate(
        zip(batch.instances, start.relaxations, start.functionals, strict=True)
    ):
        one = batch.tail.select([i])
        gelu = importlib.import_module("auto_LiRPA.operators.gelu").GELU()  # the only one with a relaxation
        module = CrownTail(one, torch.from_numpy(instance.row(None)), gelu).requires_grad_(False)
        h = batch.h[i : i + 1]
        if abs(float(module(h)[0, 0]) - centre[i]) > 1e-9 * (1 + abs(centre[i])):
            raise AssertionError("the module is not the tail")
        upper, theirs = crown(lirpa, module, h, float(radii[i]))
        row = [theirs, (upper - centre[i]) / raised[i]]
        for method in (LinearRelaxation, ThroughBlocks):
            begun = time.process_time()
            once: Bound | None = method(relaxation, lambda _: functional, ceiling=0.0).bound(instance, float(radii[i]))  # noqa: B023
            seconds = time.process_time() - begun
            row += [seconds, np.inf if once is None else (once.value - centre[i]) / raised[i]]
        found.append(row)
    theirs, crowns, linear_cost, linear_loose, cost, loose = np.median(np.array(found), axis=0)
    print(
        f"{len(batch.tail.blocks)} blocks at {level:g} ||h||, {len(found)} prompts: looseness of CROWN {crowns:.3g},"
        f" linear {linear_loose:.3f}, quadratic {loose:.3f}; {theirs:.2f}, {linear_cost:.2f} and {cost:.2f} s a prompt"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
