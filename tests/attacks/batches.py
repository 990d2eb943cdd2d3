"""Batches of tiny problems, prepared once a session."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.tiny import tiny_model, tiny_sae

from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.model import load_model
from sae_verify.problem import AtMost, Clamp, ErrorBall, LogitDifference, Problem
from sae_verify.sae import load_sae

PROMPTS = [[1, 2, 3], [4, 5, 6, 7], [8], [9, 10, 11]]
Make = Callable[..., Batch]


def maker(directory: Path) -> Make:
    """A function from options to a prepared batch; models and SAEs are written once."""

    @cache
    def model(family: str, layers: int, dtype: torch.dtype) -> Any:
        path = directory / f"{family}-{layers}-{dtype}"
        return load_model(tiny_model(path, family, layers=layers, dtype=dtype), dtype=dtype)

    @cache
    def sae(architecture: str, hook: str, bias: float, dtype: torch.dtype) -> Any:
        path = directory / f"{architecture}-{hook}-{bias}-{dtype}"
        return load_sae(tiny_sae(path, architecture, hook=hook, bias=bias, dtype=dtype, m=16))

    def make(
        family: str = "llama",
        architecture: str = "jumprelu",
        *,
        layers: int = 1,
        hook: str = "blocks.0.hook_resid_post",
        held: str = "code",
        at: str | None = None,
        radius: float = 0.3,
        tau: float = 0.0,
        clamp: Clamp | None = None,
        bias: float = -1.5,
        features: tuple[int, ...] | None = None,
        dtype: torch.dtype = torch.float32,
        readout: Any = None,
        positions: int = 1,
        prompts: Any = None,
    ) -> Batch:
        return prepare(
            Problem(
                model=model(family, layers, dtype),
                sae=sae(architecture, hook, bias, dtype),
                prompts=prompts or PROMPTS,
                clamp=clamp or Clamp.set({2: 0.0, 5: 0.0}),
                threat=ErrorBall(radius, held=held, at=at, features=features, positions=positions),  # type: ignore[arg-type]
                readout=readout or LogitDifference(3, 7),
                claim=AtMost(tau),
            )
        )

    return make


def with_tau(batch: Batch, tau: Array) -> Batch:
    """The same batch with a claim a prompt."""
    pairs = zip(batch.instances, tau, strict=True)
    return dataclasses.replace(batch, instances=tuple(dataclasses.replace(i, tau=float(t)) for i, t in pairs))


def as_proven(batch: Batch) -> Batch:
    """The same batch with the attack's cell as the outer one, so that bound and attack speak of the same set."""
    return dataclasses.replace(batch, instances=tuple(dataclasses.replace(i, outer=i.inner) for i in batch.instances))


def random_points(batch: Batch, count: int, size: float, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return size * rng.normal(size=(len(batch.instances), count, batch.h.shape[1]))
