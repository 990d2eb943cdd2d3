"""A theorem as something that can be attacked: what a property is, and what one attack on it brought."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE


@dataclass(frozen=True, eq=False)
class Attempt:
    """One search for a counter-example.

    Attributes:
        margin: how far the strongest candidate stayed from being one, at most 1. 0 or less: the theorem, or the code
            that is said to compute it, is falsified. It is 1 - found / allowed, where `allowed` is what the statement
            allows and what rounding may add to it; the property's `reads` says what is compared.
        tried: candidates that were examined; 0 if the statement says nothing here, for the `reason`.
        reason: why nothing was tried.
        witness: the strongest candidate, JSON-ready, complete enough to be checked by hand.
    """

    margin: float
    tried: int
    witness: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def falsified(self) -> bool:
        """Whether a counter-example was found; a margin that is not a number counts as one."""
        return self.tried > 0 and not self.margin > 0


@runtime_checkable
class Property(Protocol):
    """A theorem's statement, attackable on any SAE and residual."""

    @property
    def name(self) -> str:
        """The theorem's slug, as in theory/."""
        ...

    @property
    def statement(self) -> str:
        """What is claimed, in one line."""
        ...

    @property
    def reads(self) -> str:
        """What `found` and `allowed` are in a margin 1 - found / allowed."""
        ...

    def attempt(self, sae: SAE, x: Array, rng: np.random.Generator) -> Attempt:
        """Search hard for a counter-example.

        Args:
            sae: any dtype; the statement is about its stored weights, computed with in float64.
            x: (d,) residual, float64 and finite.
            rng: the only source of chance.

        Raises:
            UnsupportedError: the statement is not about SAEs like this one.
        """
        ...


def nothing(reason: str) -> Attempt:
    """The statement says nothing here."""
    return Attempt(1.0, 0, reason=reason)


@dataclass
class Strongest:
    """Collects candidates and keeps the strongest."""

    ratio: float = 0.0
    tried: int = 0
    witness: dict[str, Any] = field(default_factory=dict)

    def offer(self, found: float, allowed: float, witness: Callable[[], dict[str, Any]], tried: int = 1) -> None:
        """One candidate, or the strongest of `tried` alike.

        Args:
            found: what the candidate reaches, 0 or less for nothing.
            allowed: what the statement and rounding allow; not negative.
            witness: the candidate, made only when it is the strongest.
            tried: how many it stands for.
        """
        self.tried += tried
        ratio = 0.0 if found <= 0 else found / allowed if allowed > 0 else np.inf
        if np.isnan(found) or np.isnan(allowed):
            ratio = np.inf
        if ratio > self.ratio or not self.witness:
            self.ratio = max(self.ratio, ratio)
            self.witness = plain({"found": found, "allowed": allowed} | witness())

    def attempt(self, reason: str = "nothing to try") -> Attempt:
        """What was found."""
        return Attempt(1.0 - self.ratio, self.tried, self.witness) if self.tried else nothing(reason)


def plain(value: Any) -> Any:
    """Arrays and numpy numbers as lists and numbers of Python, for JSON."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return value
