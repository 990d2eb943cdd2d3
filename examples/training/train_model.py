"""The training loop, and the accuracy of what comes out of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from examples.training.grammar import Example, Grammar

IGNORED = -100


@dataclass(frozen=True)
class Schedule:
    """How a model is trained; the defaults are shared by all cases unless a case says otherwise."""

    steps: int = 700
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 40
    answer_weight: float = 3.0
    prompt_weight: float = 0.3
    seed: int = 0


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Token ids and loss weights of prompts with completions, padded on the right.

    Returns:
        ids and is_answer, both (batch, length); `is_answer` marks tokens of the completion, padding is id 0.

    """
    prompts = [tokenizer(e.prompt)["input_ids"] for e in examples]
    full = [tokenizer(f"{e.prompt} {e.completion}")["input_ids"] for e in examples]
    length = max(map(len, full))
    ids = torch.zeros(len(full), length, dtype=torch.long)  # (batch, length)
    is_answer = torch.zeros(len(full), length, dtype=torch.bool)  # (batch, length)
    for row, (prompt, tokens) in enumerate(zip(prompts, full, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        is_answer[row, len(prompt) : len(tokens)] = True
    return ids, is_answer


def loss(model: PreTrainedModel, ids: Tensor, is_answer: Tensor, schedule: Schedule) -> Tensor:
    """Weighted next-token cross-entropy; padding has no weight."""
    logits = model(input_ids=ids).logits[:, :-1]  # (batch, length - 1, vocab)
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    weight = torch.where(is_answer[:, 1:], schedule.answer_weight, schedule.prompt_weight)
    weight = weight * (ids[:, 1:] != 0)  # (batch, length - 1)
    return (each * weight).sum() / weight.sum()


def train_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, grammar: Grammar, schedule: Schedule
) -> PreTrainedModel:
    """Train in place with AdamW and a cosine schedule; progress goes to stderr."""
    rng = random.Random(schedule.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=schedule.learning_rate,
        total_steps=schedule.steps,
        pct_start=schedule.warmup / schedule.steps,
        cycle_momentum=False,
    )
    model.train()
    for step in range(schedule.steps):
        ids, is_answer = encode(tokenizer, grammar.batch(rng, schedule.batch))
        value = loss(model, ids, is_answer, schedule)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cosine.step()
        if step % 100 == 0 or step == schedule.steps - 1:
            print(f"{grammar.name}: step {step}, loss {value.item():.4f}", file=sys.stderr, flush=True)
    return model.eval()


@torch.no_grad()
def accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
) -> tuple[float, float]:
    """Shares of examples whose first answer token, and whose whole completion, is the model's first choice."""
    ids, is_answer = encode(tokenizer, examples)
    right = model(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]  # (batch, length - 1)
    answer = is_answer[:, 1:]  # (batch, length - 1)
    whole = (right | ~answer).all(-1)  # (batch,)
    first = right[torch.arange(len(ids)), answer.int().argmax(-1)]  # (batch,)
    return first.float().mean().item(), whole.float().mean().item()
