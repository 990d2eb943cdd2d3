"""Tiny models, saved and loaded once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import save

from sae_verify.model import Model, load_model

Load = Callable[..., Model]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a tiny model by name; shared, so never written to."""
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name), tokenizer=True)
        return made[name]

    return directory


@pytest.fixture(scope="session")
def load(saved: Callable[[str], Path]) -> Load:
    """A loaded tiny model by name and dtype; shared, so never changed."""
    made: dict[tuple[str, torch.dtype], Model] = {}

    def model(name: str, dtype: torch.dtype = torch.float64) -> Model:
        if (name, dtype) not in made:
            made[name, dtype] = load_model(saved(name), dtype=dtype)
        return made[name, dtype]

    return model
