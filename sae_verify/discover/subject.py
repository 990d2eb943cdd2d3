"""What discovery looks at: a model, an SAE and the hook where it reads; and runs of prompts through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.errors import InputError, ShapeError, TokenError
from sae_verify.geometry.instance import TokenReadout, readout_values
from sae_verify.model import Edit, HookPoint, Model, Prompts, encode_prompts, run, token_id
from sae_verify.problem import LogitDifference, Problem, Prompt, Readout, Token, trained_hook
from sae_verify.sae.base import SAE

ROWS = 64
"""Prompts in one forward pass."""

Readouts = Readout | Sequence[Readout]
"""One for all prompts, or one a prompt."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and an SAE on it.

    Attributes:
        model: from `load_model`. sae: from `load_sae`.
        hook: TransformerLens name; None takes the SAE's own metadata.

    Raises:
        InputError, HookPointError, ShapeError: there is no such hook, or the SAE does not belong there.
    """

    model: Model
    sae: SAE
    hook: str | HookPoint | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook", trained_hook(self.model, self.sae, self.hook))
        if self.sae.d_in != self.model.d_model:
            raise ShapeError(
                f"the SAE reads {self.sae.d_in} dimensions and the residual stream has {self.model.d_model}",
                rule="they must be equal",
                remedy="load the SAE that was trained on this model",
            )

    @classmethod
    def of(cls, problem: Problem) -> Subject:
        """The subject of a problem."""
        return cls(problem.model, problem.sae, problem.hook_point)

    @property
    def point(self) -> HookPoint:
        """The parsed hook point."""
        assert isinstance(self.hook, HookPoint)
        return self.hook

    def prompts(self, prompts: Sequence[Prompt]) -> Prompts:
        """Encode prompts; errors as `encode_prompts`."""
        return encode_prompts(self.model, list(prompts))

    def readouts(self, readout: Readouts, count: int) -> tuple[TokenReadout, ...]:
        """Readouts by token ids, one a prompt.

        Raises:
            InputError: there is not one a prompt, or one compares a token with itself.
            TokenError: a token is unknown, or not one token.
        """
        given = tuple(readout) if isinstance(readout, Sequence) else (readout,) * count
        if len(given) != count:
            raise InputError(f"{len(given)} readouts for {count} prompts", rule="give one for all, or one a prompt")
        return tuple(self._readout(one) for one in given)

    def _readout(self, readout: Readout) -> TokenReadout:
        if not isinstance(readout, LogitDifference):
            return TokenReadout(self.token(readout.token), None)
        positive, negative = self.token(readout.positive), self.token(readout.negative)
        if positive == negative:
            raise InputError(f"the readout compares token {positive} with itself", rule="two tokens must differ")
        return TokenReadout(positive, negative)

    def token(self, token: Token) -> int:
        """A token's id; TokenError if there is none."""
        if isinstance(token, str):
            return token_id(self.model, token)
        if isinstance(token, bool) or not 0 <= token < self.model.d_vocab:
            raise TokenError(f"token id {token!r}", rule=f"ids run from 0 to {self.model.d_vocab - 1}")
        return token

    def word(self, token: int) -> str:
        """A token as it is written in the vocabulary; its id without a tokenizer."""
        tokenizer = self.model.tokenizer
        return str(token) if tokenizer is None else str(tokenizer.convert_ids_to_tokens(token))


def chunks(prompts: Prompts, size: int = ROWS) -> Iterator[tuple[slice, Prompts]]:
    """A few prompts at a time, in order."""
    for start in range(0, len(prompts), size):
        place = slice(start, min(start + size, len(prompts)))
        yield place, prompts.select(range(*place.indices(len(prompts))))


def words(subject: Subject, prompts: Prompts) -> Tensor:
    """Positions that hold a real token which is no special one, such as <bos>: (B, T) bool."""
    real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]
    tokenizer = subject.model.tokenizer
    special = [] if tokenizer is None else list(tokenizer.all_special_ids)
    return real & ~torch.isin(prompts.tokens, torch.tensor(special, dtype=torch.int64))


def logits(subject: Subject, prompts: Prompts, edit: Callable[[Prompts], Edit] | None = None) -> Tensor:
    """Logits of the real model at each prompt's last position, (B, V) float64, without gradients.

    Args:
        subject: where the residual is edited.
        prompts: any number.
        edit: from the prompts of one forward pass to the edit of their residuals; None for the plain model.
    """
    found = []
    with torch.no_grad():
        for _, some in chunks(prompts):
            change = None if edit is None else edit(some)
            found.append(run(subject.model, some, subject.point, change).logits.double())
    return torch.cat(found)


def readout(
    subject: Subject,
    prompts: Prompts,
    readouts: tuple[TokenReadout, ...],
    edit: Callable[[Prompts], Edit] | None = None,
) -> Tensor:
    """Readouts of the real model, (B,) float64; arguments as `logits`."""
    return readout_values(logits(subject, prompts, edit), readouts)


def residuals(subject: Subject, prompts: Prompts, edit: Callable[[Prompts], Edit] | None = None) -> Iterator[Tensor]:
    """Residuals at the hook after the edit, (n, T, d), `ROWS` prompts at a time."""
    with torch.no_grad():
        for _, some in chunks(prompts):
            change = None if edit is None else edit(some)
            yield run(subject.model, some, subject.point, change).edited
