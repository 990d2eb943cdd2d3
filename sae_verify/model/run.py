"""One forward pass of the real model, with an edit of the residual stream at the hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sae_verify.errors import ShapeError
from sae_verify.model.full_precision import FullPrecision
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.language_model import Model
from sae_verify.model.prompts import Prompts

Edit = Callable[[Tensor], Tensor]
"""From the residual stream at the hook, (B, T, d), to the one that the rest of the model gets."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one forward pass showed, in the model's dtype.

    Attributes:
        resid: (B, T, d) residual stream at the hook, before the edit.
        edited: (B, T, d) what the rest of the model got.
        logits: (B, V) at each prompt's last real position, before any final soft-cap (which is strictly
            increasing, so the order of the tokens is the same).
        block_inputs: input (B, T, d) of every block from `hook.first_block` on; empty unless asked for.
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
        HookPointError: the model has no such layer.
        ShapeError: the edit changes the shape.
    """
    hook.check(model.n_layers)
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

        if hook.site == "hook_resid_pre":
            enter(blocks[hook.layer].register_forward_pre_hook(_on_input(at_hook), with_kwargs=True))
        else:
            enter(blocks[hook.layer].register_forward_hook(_on_output(at_hook)))
        if block_inputs:
            for block in blocks[hook.first_block :]:
                enter(block.register_forward_pre_hook(_on_input(keep_input), with_kwargs=True))
        head = model.adapter.lm_head(model.module)
        enter(head.register_forward_pre_hook(_on_input(keep_last), with_kwargs=True))
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


def _on_input(change: Edit) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Apply `change` to the first input of a module, passed by position or as `hidden_states` (or `input`)."""

    def pre_hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else "input"
        return args, {**kwargs, name: change(kwargs[name])}

    return pre_hook


def _on_output(change: Edit) -> Callable[..., Any]:
    """Apply `change` to a module's output, a tensor (newer releases) or the first of a tuple (older ones)."""

    def hook(_module: nn.Module, _args: Any, output: Tensor | Sequence[Any]) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    return hook
