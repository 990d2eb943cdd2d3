"""One forward pass of the real model, with an edit of the residual stream at the hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sae_verify.errors import ShapeError
from sae_verify.model.full_precision import FullPrecision
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.language_model import Model
from sae_verify.model.prompts import Prompts
from sae_verify.model.sites import edit_at, on_input

Edit = Callable[[Tensor], Tensor]
"""From the state at the hook, (B, T, d), to the one that the rest of the model gets."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one forward pass showed, in the model's dtype.

    Attributes:
        resid: (B, T, d) state at the hook (the residual stream, or a write to it), before the edit.
        edited: (B, T, d) what the rest of the model got.
        logits: (B, V) at each prompt's last real position, before any final soft-cap (which is strictly
            increasing, so the order of the tokens is the same).
        block_inputs: input (B, T, d) of every block from `hook.first_block` on; empty unless asked for. The first is
            that of the block that the hook is inside of, if it is.
    """

    resid: Tensor
    edited: Tensor
    logits: Tensor
    block_inputs: tuple[Tensor, ...]


def run(
    model: Model, prompts: Prompts, hook: HookPoint, edit: Edit | None = None, *, block_inputs: bool = False
) -> Run:
    """Run the real model once.

    Args:
        model: any dtype. A float64 model runs in float64 throughout.
        prompts: token ids.
        hook: where the residual stream is read and edited.
        edit: None leaves it as it is. Its result is rounded to the model's dtype. Values at padded positions do not
            matter as long as they are finite.
        block_inputs: also return the inputs of the later blocks.

    Gradients flow from `logits` to whatever `edit` uses, unless the caller is under torch.no_grad.

    Raises:
        HookPointError: the model has no such hook point.
        ShapeError: the edit changes the shape.
    """
    hook = model.hook_point(hook)
    blocks, seen = model.adapter.blocks(model.module), _Seen()
    tokens, lengths = prompts.tokens.to(model.device), prompts.lengths.to(model.device)
    rows = torch.arange(len(prompts), device=model.device)
    precision = FullPrecision() if model.dtype == torch.float64 else None

    def at_hook(resid: Tensor) -> Tensor:
        seen.resid = seen.edited = resid
        if edit is not None:
            with contextlib.nullcontext() if precision is None else precision.paused():
                edited = edit(resid)
            if not isinstance(edited, Tensor) or edited.shape != resid.shape:
                shape = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
                raise ShapeError(f"the edit returned {shape}", rule=f"it must keep the shape {tuple(resid.shape)}")
            seen.edited = edited.to(device=resid.device, dtype=resid.dtype)
        return seen.edited

    def keep_input(resid: Tensor) -> Tensor:
        seen.inputs.append(resid)
        return resid

    def keep_last(hidden: Tensor) -> Tensor:
        return hidden[rows, lengths - 1][:, None]  # (B, 1, d): the unembedding of the other positions is not needed

    def keep_logits(_module: nn.Module, _args: Any, logits: Tensor) -> None:
        seen.logits = logits[:, 0]  # (B, V)

    with contextlib.ExitStack() as stack:

        def enter(handle: Any) -> None:
            stack.callback(handle.remove)

        # In this order: at resid_pre the blocks' inputs are those after the edit.
        enter(edit_at(model.adapter, model.module, hook, at_hook))
        if block_inputs:
            for block in blocks[hook.first_block :]:
                enter(on_input(block, keep_input))
        head = model.adapter.lm_head(model.module)
        enter(on_input(head, keep_last))
        enter(head.register_forward_hook(keep_logits))
        if precision is not None:
            stack.enter_context(precision)
        # All ones: attention is causal and padding is on the right, so no real position sees it. Masking it would leave
        # padded rows with nothing to attend to, whose NaN times a weight of zero would spoil the real rows.
        model.module(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    return seen.result()


class _Seen:
    """Collects what the hooks see."""

    def __init__(self) -> None:
        self.resid: Tensor | None = None
        self.edited: Tensor | None = None
        self.logits: Tensor | None = None
        self.inputs: list[Tensor] = []

    def result(self) -> Run:
        assert self.resid is not None  # every hook fired: the forward pass went through
        assert self.edited is not None
        assert self.logits is not None
        return Run(self.resid, self.edited, self.logits, tuple(self.inputs))
