"""Where PyTorch hooks go for each hook point of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sae_verify.model.adapters import Adapter
from sae_verify.model.hook_point import HookPoint

Change = Callable[[Tensor], Tensor]
"""From the state at a hook, (B, T, d), to the one that takes its place; shape and dtype are kept."""


def edit_at(adapter: Adapter, module: Any, hook: HookPoint, change: Change) -> RemovableHandle:
    """Make every forward pass of `module` go on with `change(state)` at a hook point, until the handle is removed.

    The state is what TransformerLens shows under the hook's name. Layers may return a tensor or a tuple.

    Raises:
        HookPointError: the architecture has no such state.
    """
    adapter.check_hook(module, hook)
    layer = hook.layer
    match hook.site:
        case "hook_resid_pre":
            return on_input(adapter.blocks(module)[layer], change)
        case "hook_resid_post":
            return on_output(adapter.blocks(module)[layer], change)
        case "hook_attn_out":
            return on_output(adapter.attention_writer(module, layer), change)
        case "hook_mlp_out":
            return on_output(adapter.mlp_writer(module, layer), change)
        case "hook_resid_mid":
            return on_input(adapter.mlp_reader(module, layer), lambda resid: _in_place(resid, change))


def on_input(module: nn.Module, change: Change) -> RemovableHandle:
    """Apply `change` to the first input of a module, passed by position or as `hidden_states` (or `input`)."""

    def pre_hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else "input"
        return args, {**kwargs, name: change(kwargs[name])}

    return module.register_forward_pre_hook(pre_hook, with_kwargs=True)


def on_output(module: nn.Module, change: Change) -> RemovableHandle:
    """Apply `change` to a module's output, a tensor (newer releases) or the first of a tuple (older ones)."""

    def hook(_module: nn.Module, _args: Any, output: Tensor | Sequence[Any]) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    return module.register_forward_hook(hook)


def _in_place(resid: Tensor, change: Change) -> Tensor:
    """Change the tensor itself: a block adds the same one, which no module returns, to what it writes.

    `change` gets a copy, so that gradients do not see what they saved overwritten.
    """
    return resid.copy_(change(resid.clone()))
