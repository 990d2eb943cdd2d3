"""One maker of batches a session."""

from __future__ import annotations

import pytest

from .batches import Make, maker


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return maker(tmp_path_factory.mktemp("attacks"))
