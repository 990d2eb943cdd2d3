"""What the rest of the package needs to know about an architecture."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sae_verify.errors import UnsupportedError
from sae_verify.model.block import Block
from sae_verify.model.operations import Linear, Norm


class Adapter(abc.ABC):
    """Where the parts of a Hugging Face causal language model are, and what they compute. Stateless."""

    family: ClassVar[str]
    """The `model_type` in config.json."""

    @abc.abstractmethod
    def check(self, config: Any) -> None:
        """Refuse a configuration that is not modelled.

        Raises:
            UnsupportedError: names the key of config.json.
        """

    @abc.abstractmethod
    def blocks(self, module: Any) -> Sequence[nn.Module]:
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
