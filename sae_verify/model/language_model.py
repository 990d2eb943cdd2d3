"""A loaded language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae_verify.model.adapters import Adapter
from sae_verify.model.hook_point import HookPoint


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face causal language model, ready to run: eval mode, eager attention, no gradients for its weights.

    Attributes:
        module: the Hugging Face model.
        tokenizer: its tokenizer, or None (token-id prompts still work).
        adapter: what the package knows of its architecture.
        path: directory that holds config.json and the safetensors; None for a model without files, which can be run
            and attacked, but not certified.
        stored_exactly: every weight equals the stored one (False when the chosen dtype is narrower than the file's).
    """

    module: nn.Module
    tokenizer: Any
    adapter: Adapter
    path: Path | None
    stored_exactly: bool

    def __repr__(self) -> str:
        return f"Model({self.family}, {self.n_layers} blocks, d_model {self.d_model}, {self.dtype}, {self.path})"

    @property
    def config(self) -> Any:
        """The Hugging Face configuration."""
        return self.module.config

    @property
    def family(self) -> str:
        """`model_type` of the architecture."""
        return self.adapter.family

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.adapter.blocks(self.module))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._head_weight.shape[1]

    @property
    def d_vocab(self) -> int:
        """Number of logits; token ids of prompts and readouts are below it."""
        return self._head_weight.shape[0]

    @property
    def max_length(self) -> int:
        """Longest prompt, in tokens."""
        return self.adapter.max_length(self.config)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of a run."""
        return self._head_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._head_weight.device

    def hook_point(self, hook: str | HookPoint) -> HookPoint:
        """Read a hook point's name, if it is one, and check that this model has it.

        Raises:
            HookPointError: it is misspelt, there is no such block, or the architecture has no such state.
        """
        point = HookPoint.parse(hook) if isinstance(hook, str) else hook
        self.adapter.check_hook(self.module, point)
        return point

    @property
    def _head_weight(self) -> torch.Tensor:
        weight = self.adapter.lm_head(self.module).weight
        assert isinstance(weight, torch.Tensor)
        return weight
