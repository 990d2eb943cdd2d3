"""From one run of the real model to its tail."""

from __future__ import annotations

import torch

from sae_verify.model.agreement import check_tail
from sae_verify.model.block import Block, Remainder
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.language_model import Model
from sae_verify.model.prompts import Prompts
from sae_verify.model.run import Edit, Run, run
from sae_verify.model.several import Several
from sae_verify.model.tail import Tail


def make_tail(
    model: Model, prompts: Prompts, hook: HookPoint, edit: Edit | None = None, positions: int = 1
) -> tuple[Tail, Run]:
    """Run the edited model once, extract the tail at each prompt's last positions, and compare it with the model.

    Args:
        model: any supported architecture and dtype.
        prompts: (B, T).
        hook: where the residual is edited and later perturbed.
        edit: the clamp; None for the unedited model.
        positions: how many positions at the end of each prompt are perturbed; no more than the shortest has.

    Returns:
        The tail, whose `agreement` is set, and the edited run.

    Raises:
        HookPointError: the model has no such layer.
        ShapeError: the edit changes the shape.
        TailMismatchError: the tail disagrees with the model.
    """
    with torch.no_grad():
        edited = run(model, prompts, hook, edit, block_inputs=True)
        tail = _extract(model, prompts, hook, edited, positions)
    agreement = check_tail(tail, model, prompts, hook, edited)
    return tail.with_agreement(agreement), edited


def _extract(model: Model, prompts: Prompts, hook: HookPoint, edited: Run, positions: int) -> Tail:
    """Build the tail from the block inputs that the run showed."""
    adapter, module = model.adapter, model.module
    ends = prompts.ends(positions).to(model.device)  # (B, positions)
    rows = torch.arange(len(prompts), device=model.device)
    unembed = adapter.unembed(module)
    blocks: list[Block | Remainder | Several] = []
    for layer, inputs in enumerate(edited.block_inputs, start=hook.first_block):
        seen = tuple(adapter.block(module, layer, inputs, end + 1) for end in ends.unbind(1))
        if hook.inside and layer == hook.first_block:
            streams = inputs[rows[:, None], ends].to(torch.float64).unbind(1)
            rest = tuple(Remainder.after(hook.site, *pair) for pair in zip(seen, streams, strict=True))
            blocks.append(rest[0] if positions == 1 else Several(rest))
        else:
            blocks.append(seen[0] if positions == 1 else Several.made(seen, prompts.lengths.to(model.device)))
    return Tail(
        blocks=tuple(blocks),
        final_norm=adapter.final_norm(module),
        unembed=unembed.weight,
        unembed_bias=unembed.bias,
        base=edited.edited[rows[:, None], ends].to(torch.float64).flatten(1),
        positions=positions,
    )
