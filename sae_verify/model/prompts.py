"""Prompts as token ids, right-padded."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor

from sae_verify.errors import PromptError, ShapeError, TokenError
from sae_verify.model.language_model import Model

PAD = 0
"""Id that fills the right end of shorter prompts; attention is causal, so it changes nothing before it."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts.

    Attributes:
        tokens: (B, T) int64, right-padded; T is the longest length.
        lengths: (B,) int64, from 1 to T.

    Raises:
        ShapeError: shapes, dtypes or lengths do not fit.
    """

    tokens: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        fits = self.tokens.ndim == 2 and self.lengths.shape == self.tokens.shape[:1] and self.tokens.numel() > 0
        if not fits or self.tokens.dtype != torch.int64 or self.lengths.dtype != torch.int64:
            raise ShapeError(
                f"tokens {tuple(self.tokens.shape)} {self.tokens.dtype}, "
                f"lengths {tuple(self.lengths.shape)} {self.lengths.dtype}",
                rule="tokens are (B, T) int64 and lengths (B,) int64, none empty",
                remedy="use encode_prompts",
            )
        if int(self.lengths.min()) < 1 or int(self.lengths.max()) != self.tokens.shape[1]:
            raise ShapeError(
                f"lengths {self.lengths.tolist()} with tokens of width {self.tokens.shape[1]}",
                rule="lengths are at least 1 and the longest is the width",
                remedy="use encode_prompts",
            )

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def last(self) -> Tensor:
        """Index of each prompt's last real position, (B,) int64."""
        return self.lengths - 1

    def ends(self, count: int) -> Tensor:
        """Indices of each prompt's last `count` real positions, in order, (B, count) int64."""
        return self.lengths[:, None] - torch.arange(count, 0, -1, device=self.lengths.device)

    def select(self, indices: Tensor | Sequence[int]) -> Prompts:
        """Return the prompts `indices` (n,), padded no further than they need."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.tokens.device)
        lengths = self.lengths[chosen]
        return Prompts(self.tokens[chosen, : int(lengths.max())], lengths)


def encode_prompts(model: Model, prompts: Sequence[str | Sequence[int]]) -> Prompts:
    """Encode texts with the model's tokenizer (its special tokens included); token-id prompts are taken as they are.

    Raises:
        PromptError: no prompt, an empty or a too long one, or a text without a tokenizer.
        TokenError: a word the tokenizer does not know, or an id outside the vocabulary.
    """
    if isinstance(prompts, str) or len(prompts) == 0:
        raise PromptError(f"prompts are {prompts!r}", rule="a non-empty list of texts or of token-id lists is needed")
    rows = [_encode(model, prompt, f"prompt {number}") for number, prompt in enumerate(prompts)]
    lengths = torch.tensor([len(row) for row in rows])  # (B,)
    tokens = torch.full((len(rows), int(lengths.max())), PAD)  # (B, T)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
    return Prompts(tokens.to(model.device), lengths.to(model.device))


def token_id(model: Model, text: str) -> int:
    """Return the id of a text that is one known token, spaces included: for GPT-2 " Mary" and "Mary" differ.

    Raises:
        TokenError: it is several tokens, none, or unknown.
        PromptError: the model has no tokenizer.
    """
    tokenizer = _tokenizer(model, f"token {text!r}")
    ids = _text_ids(tokenizer, text, special=False)
    if len(ids) != 1:  # perhaps a vocabulary entry by its own spelling, such as "\u2581Mary"
        entry = tokenizer.get_vocab().get(text)
        ids = ids if entry is None else [int(entry)]
    if len(ids) != 1:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise TokenError(
            f"{text!r} is {len(ids)} tokens: {pieces}",
            rule="a readout token must be exactly one token",
            remedy="check the leading space, or choose another word",
        )
    _check_known(tokenizer, text, ids, f"token {text!r}")
    _check_range(model, ids, f"token {text!r}")
    return ids[0]


def _encode(model: Model, prompt: str | Sequence[int], name: str) -> list[int]:
    if isinstance(prompt, str):
        tokenizer = _tokenizer(model, name)
        if not prompt:
            raise PromptError(f"{name} is empty", rule="a prompt has at least one token", remedy="remove it")
        _check_known(tokenizer, prompt, _text_ids(tokenizer, prompt, special=False), name)
        row = _text_ids(tokenizer, prompt, special=True)
    elif isinstance(prompt, Iterable):
        row = [_integer(token, name) for token in prompt]
    else:
        raise PromptError(
            f"{name} is {prompt!r}",
            rule="a prompt is a text or a list of token ids",
            remedy="put the token ids of one prompt in a list of their own: [[1, 2, 3]]",
        )
    if not row:
        raise PromptError(f"{name} is empty", rule="a prompt has at least one token", remedy="remove it")
    if len(row) > model.max_length:
        raise PromptError(
            f"{name} has {len(row)} tokens",
            rule=f"the model takes at most {model.max_length}",
            remedy="shorten it",
        )
    _check_range(model, row, name)
    return row


def _integer(token: object, name: str) -> int:
    try:
        if isinstance(token, bool):
            raise TypeError("a bool is no token id")
        return operator.index(cast(SupportsIndex, token))
    except TypeError as error:
        raise TokenError(f"{name} holds {token!r}", rule="token ids are integers") from error


def _check_range(model: Model, ids: Sequence[int], name: str) -> None:
    for token in ids:
        if not 0 <= token < model.d_vocab:
            raise TokenError(
                f"{name} holds token id {token}",
                rule=f"ids go from 0 to {model.d_vocab - 1}",
                remedy="check that the tokenizer belongs to this model",
            )


def _check_known(tokenizer: Any, text: str, ids: Sequence[int], name: str) -> None:
    unknown, spelling = tokenizer.unk_token_id, tokenizer.unk_token
    if unknown is not None and ids.count(unknown) > text.count(spelling):
        raise TokenError(
            f"{name} {text!r} holds a word the tokenizer does not know (it becomes {spelling!r})",
            rule="every word must be in the vocabulary, or the model would see another text",
            remedy="use words of the model's vocabulary",
        )


def _text_ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=special)["input_ids"]]


def _tokenizer(model: Model, name: str) -> Any:
    if model.tokenizer is None:
        raise PromptError(
            f"{name} is a text and {model.path or 'the model'} has no tokenizer",
            rule="texts need a tokenizer",
            remedy="add tokenizer.json to the model directory, or give token ids",
        )
    return model.tokenizer
