"""The input-only threat: tokens put into the prompt, the clamp active, nothing touched inside the model.

One token is tried exhaustively: over the whole vocabulary, which decides that threat. Longer suffixes are searched
greedily, and soft prompts (vectors in place of token embeddings) by gradient: both are lower bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_verify.errors import PromptError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import TokenReadout, readout_values
from sae_verify.model import HookPoint, Model, Prompts, Run, encode_prompts, run
from sae_verify.problem import Clamp
from sae_verify.sae import SAE
from sae_verify.sae.clamp import apply_clamp
from sae_verify.study.store import Row

ROWS = 256
"""Prompts in one forward pass."""
EXHAUSTIVE = 65_536
"""Vocabularies up to this size are tried whole; of larger ones as many tokens are drawn, and nothing is decided."""
SOFT_STEPS = 60
SOFT_RATE = 0.1
"""Of Adam, in units of the mean length of the token embeddings over the square root of the width."""


@dataclass(frozen=True)
class Suffix:
    """What a search over suffixes found for one prompt.

    Attributes:
        tokens: the best suffix; None for a soft prompt.
        length: in tokens.
        value: readout of the clamped model with it.
        recovering: how many of the last tokens tried recover, and `tried`: of how many.
        decided: every suffix of this length was tried.

    """

    tokens: tuple[int, ...] | None
    length: int
    value: float
    recovering: int
    tried: int
    decided: bool


@dataclass(frozen=True, eq=False)
class ProbeReadout:
    """A linear probe of the state after the clamp, at the last position: weight . h + bias, with weight (d,)."""

    weight: Array
    bias: float


@dataclass(frozen=True, eq=False)
class Target:
    """A clamped model and one prompt of it, cut where a suffix goes.

    Attributes:
        model, sae, hook, clamp: what runs.
        before, after: token ids on both sides of the suffix.
        readout: by token ids, or a probe.

    """

    model: Model
    sae: SAE
    hook: HookPoint
    clamp: Clamp
    before: tuple[int, ...]
    after: tuple[int, ...]
    readout: TokenReadout | ProbeReadout

    def values(self, suffixes: Tensor) -> Tensor:
        """Readouts of the clamped model, (n,) float64, for suffixes (n, length) of token ids."""
        found = []
        for some in suffixes.split(ROWS):
            prompts = self.prompts(some)
            with torch.no_grad():
                result = run(self.model, prompts, self.hook, self._edit(prompts))
            found.append(self._read(result, prompts).double())
        return torch.cat(found)

    def prompts(self, suffixes: Tensor) -> Prompts:
        """The prompts with these suffixes, (n, length), put in."""
        count = len(suffixes)
        before = torch.tensor(self.before, dtype=torch.int64).expand(count, -1)
        after = torch.tensor(self.after, dtype=torch.int64).expand(count, -1)
        tokens = torch.cat([before, suffixes, after], dim=1)
        return Prompts(tokens, torch.full((count,), tokens.shape[1]))

    def _edit(self, prompts: Prompts) -> Any:
        return lambda x: apply_clamp(self.sae, self.clamp, x, prompts.lengths)

    def soft_value(self, prompts: Prompts) -> Tensor:
        """Readout of the clamped model, with gradients to whatever the embeddings come from."""
        return self._read(run(self.model, prompts, self.hook, self._edit(prompts)), prompts)[0]

    def _read(self, result: Run, prompts: Prompts) -> Tensor:
        """Readouts of a run, (n,)."""
        if isinstance(self.readout, TokenReadout):
            return readout_values(result.logits.double(), (self.readout,) * len(prompts))
        last = result.edited[torch.arange(len(prompts)), prompts.last].double()  # (n, d)
        return last @ torch.from_numpy(self.readout.weight) + self.readout.bias


def cut(model: Model, text: str, closing: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt before and after the place of a suffix.

    Raises:
        PromptError: the closing's tokens are not the last ones of the prompt.

    """
    whole = encode_prompts(model, [text]).tokens[0].tolist()
    if not closing:
        return tuple(whole), ()
    end = [int(t) for t in model.tokenizer(closing, add_special_tokens=False)["input_ids"]]
    if whole[-len(end) :] != end or len(end) >= len(whole):
        raise PromptError(
            f"the closing {closing!r} is not the end of the prompt in tokens",
            rule="a suffix is put in between two tokens",
            remedy="begin the closing where a token begins, for example with its blank",
        )
    return tuple(whole[: -len(end)]), tuple(end)


def hard_suffixes(target: Target, longest: int, seed: int) -> list[Suffix]:
    """The best suffix of every length up to `longest`: exhaustive for one token, then greedy. Cost: V passes each."""
    vocabulary = target.model.d_vocab
    tokens = torch.arange(vocabulary)
    if vocabulary > EXHAUSTIVE:
        tokens = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))[:EXHAUSTIVE]
    found: list[Suffix] = []
    kept = torch.zeros(0, dtype=torch.int64)
    room = target.model.max_length - len(target.before) - len(target.after)
    for length in range(1, min(longest, room) + 1):
        suffixes = torch.cat([kept.expand(len(tokens), -1), tokens[:, None]], dim=1)  # (V, length)
        reached = target.values(suffixes)
        best = int(reached.argmax())
        kept = suffixes[best]
        found.append(
            Suffix(
                tokens=tuple(kept.tolist()),
                length=length,
                value=float(reached[best]),
                recovering=int((reached > 0).sum()),
                tried=len(tokens),
                decided=length == 1 and len(tokens) == vocabulary,
            )
        )
    return found


def soft_suffix(target: Target, length: int, start: Suffix, steps: int = SOFT_STEPS) -> Suffix:
    """Vectors in place of the embeddings of `length` tokens, ascended from those of `start`.

    They are kept no longer than the longest token embedding. Cost: `steps` forward and backward passes.
    """
    table: Any = target.model.module.get_input_embeddings()  # type: ignore[operator]
    assert start.tokens is not None
    prompts = target.prompts(torch.tensor([start.tokens[:length]]))
    place = slice(len(target.before), len(target.before) + length)
    with torch.no_grad():
        every = torch.cat([table(t) for t in torch.arange(target.model.d_vocab).split(4096)])  # (V, d)
        soft = table(prompts.tokens)[0, place].clone()  # (length, d)
    longest = every.norm(dim=1).max()
    rate = SOFT_RATE * float(every.norm(dim=1).mean()) / every.shape[1] ** 0.5
    soft.requires_grad_()
    optimiser = torch.optim.Adam([soft], lr=rate)

    def put_in(_module: Any, _args: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, : place.start], soft[None], output[:, place.stop :]], dim=1)

    best = -float("inf")
    handle = table.register_forward_hook(put_in)
    try:
        for _ in range(steps):
            with torch.enable_grad():
                value = target.soft_value(prompts)
                best = max(best, float(value.detach()))
                optimiser.zero_grad()
                (-value).backward()
            optimiser.step()
            with torch.no_grad():
                soft *= (longest / soft.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
        with torch.no_grad():
            best = max(best, float(target.soft_value(prompts)))
    finally:
        handle.remove()
    return Suffix(None, length, best, int(best > 0), 1, decided=False)


def input_rows(target: Target, longest: int, soft: int, seed: int, tau: float, common: Row) -> list[Row]:
    """The rows of the input-only threat: every suffix up to `longest` tokens, and a soft prompt of `soft`, if any."""
    found = hard_suffixes(target, longest, seed)
    names = [f"suffix {one.length}" for one in found]
    if soft and len(found) >= soft:
        found.append(soft_suffix(target, soft, found[soft - 1]))
        names.append(f"soft prompt {soft}")
    return [
        common
        | {
            "kind": "input",
            "threat": name,
            "recovered": one.value > tau,
            "readout": one.value,
            "recovering_tokens": one.recovering,
            "tokens_tried": one.tried,
            "decided": one.decided,
        }
        for name, one in zip(names, found, strict=True)
    ]
