"""The search for counter-examples to every theorem on one SAE, within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.testing.inputs import residuals as synthetic_residuals
from sae_verify.testing.properties import PROPERTIES, Property
from sae_verify.testing.rounding import wide

SYNTHETIC = 28
"""Residuals that are made when none are given: four of each kind."""

FIRST = 7
"""Residuals at which a theorem is tried, whatever the time, until it says something: one of each synthetic kind."""

SMALL = 10**6
"""Entries of an encoder up to which one thread is used: products are short, and on a busy machine waiting for a second
thread takes far longer than they do."""

Outcome = Literal["held", "FALSIFIED", "not applicable", "crashed"]
Progress = Callable[[str, float], None]


@dataclass
class Finding:
    """What the attacks on one theorem brought.

    Attributes:
        name, statement, reads: of the property.
        attempts: searches that were made. tried: candidates they examined.
        margin: the smallest of `Attempt.margin`; 0 or less is a counter-example.
        witness: the strongest candidate.
        attempt: number of the search that found it; `reproduce` makes it again from this number and the seed.
        reason: why the statement says nothing here, or how the package crashed.
        crashed: whether an attempt ended in an exception that is no refusal.
        refused: whether the statement is not about SAEs like this one, whatever the residual.
    """

    name: str
    statement: str
    reads: str
    attempts: int = 0
    tried: int = 0
    margin: float = 1.0
    witness: dict[str, Any] = field(default_factory=dict)
    attempt: int = -1
    reason: str = ""
    crashed: bool = False
    refused: bool = False

    @property
    def outcome(self) -> Outcome:
        """The verdict."""
        if self.tried and not self.margin > 0:
            return "FALSIFIED"
        if self.crashed:
            return "crashed"
        return "held" if self.tried else "not applicable"

    @property
    def over(self) -> bool:
        """Whether further attempts would tell nothing."""
        idle = self.tried == 0 and self.attempts >= SYNTHETIC
        return self.outcome in ("FALSIFIED", "crashed") or self.refused or idle


def falsify(
    sae: SAE,
    residuals: Array | None = None,
    *,
    seconds: float = 60.0,
    attempts: int | None = None,
    seed: int = 0,
    properties: Sequence[Property] = PROPERTIES,
    progress: Progress | None = None,
) -> list[Finding]:
    """Attack every property on one SAE.

    Every property is attacked until it has had something to say, at a few residuals at most; then the one that has had
    the least time, until the time is over. One attempt is never cut short: the last may end a few seconds late.

    Args:
        sae: any dtype and architecture; statements that are not about it are skipped with a reason.
        residuals: (n, d) float64; None makes synthetic ones of every kind.
        seconds: of wall time, when `attempts` is None.
        attempts: on each property, instead of a time: the same on every machine.
        seed: of everything.
        properties: that are attacked.
        progress: called with a stage and a fraction.

    Returns:
        One finding a property, in their order.

    Raises:
        ShapeError: the residuals do not fit the SAE.
        InputError: they are not finite, or there are none, or the time is not positive.
    """
    if not seconds > 0 or (attempts is not None and attempts < 1):
        raise InputError(f"seconds {seconds!r}, attempts {attempts!r}", rule="both are positive")
    exact = wide(sae)
    points = _points(exact, residuals, seed)
    findings = [Finding(p.name, p.statement, p.reads) for p in properties]
    with _threads(exact):
        _search(exact, points, findings, properties, seconds, attempts, seed, progress)
    return findings


@contextmanager
def _threads(sae: SAE) -> Iterator[None]:
    """One thread of torch for a small SAE, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if sae.W_enc.numel() <= SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _search(
    exact: SAE,
    points: Array,
    findings: list[Finding],
    properties: Sequence[Property],
    seconds: float,
    attempts: int | None,
    seed: int,
    progress: Progress | None,
) -> None:
    """Attack until the time is over or nothing is left to learn; fills the findings."""
    spent = np.zeros(len(findings))
    began = time.perf_counter()
    while True:
        open_ = [i for i, f in enumerate(findings) if not f.over and (attempts is None or f.attempts < attempts)]
        elapsed = time.perf_counter() - began
        fresh = [i for i in open_ if not findings[i].tried and findings[i].attempts < FIRST]
        if not open_ or (attempts is None and elapsed > seconds and not fresh):
            return
        i = fresh[0] if fresh else min(open_, key=lambda k: spent[k])
        if progress is not None:
            done = sum(f.attempts for f in findings) / (attempts * len(findings)) if attempts else elapsed / seconds
            progress(findings[i].name, min(done, 1.0))
        start = time.perf_counter()
        _attack(properties[i], findings[i], exact, points, seed, i)
        spent[i] += time.perf_counter() - start


def reproduce(
    sae: SAE,
    finding: Finding,
    residuals: Array | None = None,
    *,
    seed: int = 0,
    properties: Sequence[Property] = PROPERTIES,
) -> Finding:
    """Make the search again that found a finding's witness; arguments as they were given to `falsify`."""
    place = next(i for i, p in enumerate(properties) if p.name == finding.name)
    again = Finding(finding.name, finding.statement, finding.reads, attempts=max(finding.attempt, 0))
    exact = wide(sae)
    _attack(properties[place], again, exact, _points(exact, residuals, seed), seed, place)
    return again


def _points(sae: SAE, residuals: Array | None, seed: int) -> Array:
    if residuals is None:
        return synthetic_residuals(sae, SYNTHETIC, np.random.default_rng(seed))
    points = np.asarray(residuals, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != sae.d_in:
        raise ShapeError(f"residuals of shape {points.shape}", rule=f"they must be (n, {sae.d_in})")
    if not len(points) or not np.isfinite(points).all():
        raise InputError(f"{len(points)} residuals", rule="there must be at least one, and all must be finite")
    return points


def _attack(property_: Property, finding: Finding, sae: SAE, points: Array, seed: int, place: int) -> None:
    """One attempt; chance depends on the seed, the property's place and the attempt's number alone."""
    number = finding.attempts
    finding.attempts += 1
    rng = np.random.default_rng([seed, place, number])
    try:
        found = property_.attempt(sae, points[number % len(points)], rng)
    except UnsupportedError as error:
        finding.refused, finding.reason = True, str(error)
        return
    except Exception as error:  # a crash is a defect, and no reason to lose what the other properties showed
        finding.crashed, finding.attempt = True, number
        finding.reason = f"{type(error).__name__}: {error}"
        finding.witness = finding.witness or {"x": points[number % len(points)].tolist()}
        return
    finding.tried += found.tried
    if found.tried == 0:
        finding.reason = finding.reason or found.reason
    elif not found.margin >= finding.margin or finding.attempt < 0:
        finding.margin, finding.witness, finding.attempt = found.margin, found.witness, number
