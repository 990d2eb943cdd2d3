"""What a grammar is: a seeded source of prompts with the completion a model has to learn.

A grammar says which prompts show the behaviour that a clamp is meant to suppress, and between which two tokens the
readout is taken. Everything else (training, SAEs, choice of clamps) works on this interface alone.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One prompt, in lower-case words separated by blanks.

    Attributes:
        prompt: the text up to the position at which the readout is taken.
        completion: what the trained model has to say next.
        positive: the word whose logit counts for the behaviour.
        negative: the word whose logit counts against it.
        shows: whether the right completion shows the behaviour (`completion` starts with `positive`).

    """

    prompt: str
    completion: str
    positive: str
    negative: str
    shows: bool

    @property
    def answer(self) -> str:
        """The first word of the completion."""
        return self.completion.split()[0]


class Grammar(ABC):
    """A seeded source of examples over a fixed vocabulary."""

    name: str
    behaviour: str
    uses_bos: bool

    @abstractmethod
    def vocabulary(self) -> list[str]:
        """Every word that can occur, without repetition, in a fixed order."""

    @abstractmethod
    def example(self, rng: random.Random, held_out: bool = False) -> Example:
        """A random example; `held_out` draws from combinations that training never sees, where there are some."""

    @abstractmethod
    def showing(self, rng: random.Random) -> Example:
        """A random example that shows the behaviour."""

    @abstractmethod
    def contrast(self, rng: random.Random) -> Example:
        """A random example that is close to a showing one and does not show the behaviour."""

    def batch(self, rng: random.Random, size: int, held_out: bool = False) -> list[Example]:
        """`size` independent examples."""
        return [self.example(rng, held_out) for _ in range(size)]


def words(text: str) -> list[str]:
    """The words of a block of text, in order."""
    return text.split()


def unique(*groups: list[str]) -> list[str]:
    """All words of all groups in order of first occurrence."""
    return list(dict.fromkeys(word for group in groups for word in group))
