"""What the rest of the package needs to know about an architecture."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sae_verify.errors import UnsupportedError
from sae_verify.model.block import Block
from sae_verify.model.hook_point import HookPoint
from sae_verify.model.operations import LayerNorm, Linear, Norm


class Adapter(abc.ABC):
    """Where the parts of a Hugging Face causal language model are, and what they compute. Stateless."""

    family: ClassVar[str]
    """The `model_type` in config.json."""

    name: ClassVar[str]
    """What people call it."""

    enclosed: ClassVar[bool] = False
    """Whether the checker encloses its blocks, so that there are bounds through them (for the support table)."""

    own_code: ClassVar[frozenset[str]] = frozenset()
    """Classes that published checkpoints name as code of their own (`auto_map`); it is not run, the built-in is."""

    @abc.abstractmethod
    def check(self, config: Any) -> None:
        """Refuse a configuration that is not modelled.

        Raises:
            UnsupportedError: names the key of config.json.
        """

    @abc.abstractmethod
    def blocks(self, module: Any) -> Sequence[Any]:
        """Return the transformer blocks, in order."""

    @abc.abstractmethod
    def final_norm(self, module: Any) -> Norm:
        """Return the norm before the unembedding."""

    @abc.abstractmethod
    def block(self, module: Any, layer: int, inputs: Tensor, lengths: Tensor) -> Block:
        """Return block `layer` at each prompt's last position.

        Args:
            module: the model.
            layer: index of the block.
            inputs: (B, T, d) residual stream before the block at every position, in the run's dtype, right-padded.
            lengths: (B,) int64.
        """

    @abc.abstractmethod
    def attention_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the module whose output (or first output) the attention adds to the residual stream."""

    @abc.abstractmethod
    def mlp_writer(self, module: Any, layer: int) -> nn.Module:
        """Return the module whose output the feed-forward network adds to the residual stream."""

    @abc.abstractmethod
    def mlp_reader(self, module: Any, layer: int) -> nn.Module:
        """Return the norm whose input is the residual stream between attention and feed-forward network."""

    def check_hook(self, module: Any, hook: HookPoint) -> None:
        """Refuse a hook point that the architecture does not have.

        Raises:
            HookPointError: with the reason.
        """
        hook.check(len(self.blocks(module)))

    def max_length(self, config: Any) -> int:
        """Return how long a prompt may be, in tokens."""
        return int(config.max_position_embeddings)

    def lm_head(self, module: Any) -> nn.Module:
        """Return the module whose output is the logits before any final soft-cap."""
        return module.lm_head

    def unembed(self, module: Any) -> Linear:
        """Return the unembedding, weight (V, d) and bias (V,) or None, in float64."""
        return linear(self.lm_head(module))


def wide(tensor: Tensor) -> Tensor:
    """Widen a weight to float64, exactly; a float64 weight is not copied."""
    return tensor.detach().to(torch.float64)


def linear(module: Any) -> Linear:
    """Read a torch.nn.Linear."""
    return Linear(wide(module.weight), None if module.bias is None else wide(module.bias))


def layer_norm(module: Any) -> LayerNorm:
    """Read a torch.nn.LayerNorm."""
    return LayerNorm(gain=wide(module.weight), bias=wide(module.bias), epsilon=float(module.eps))


def require(config: Any, key: str, *allowed: object) -> None:
    """Refuse a config whose `key` is set to something else than one of `allowed` (absent counts as the first).

    Raises:
        UnsupportedError: names the key.
    """
    value = getattr(config, key, allowed[0])
    if value not in allowed:
        raise UnsupportedError(
            f"config.json has {key} = {value!r}",
            rule=f"only {' or '.join(repr(option) for option in allowed)} is modelled",
            remedy="use a model without it",
        )
