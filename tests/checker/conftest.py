"""Certificates are made once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from .cases import Case, make_case


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """A certificate by the name of its recipe."""

    @cache
    def make(name: str) -> Case:
        return make_case(name, tmp_path_factory.mktemp(name))

    return make
