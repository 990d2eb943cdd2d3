from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from sae_verify.study import Plan, Sweep, bundled_plan
from sae_verify.study.items import Items
from sae_verify.study.subjects import Setup, load, set_up

EXAMPLES = Path(__file__).parents[2] / "examples"


def small_plan(study, **changes) -> Plan:
    """A plan on a bundled model that takes seconds."""
    # The features that are found with the shipped prompts; finding them is tested on its own.
    given = {
        "refusal": (234, 14, 196, 202, 10, 63, 12, 216),
        "indirect-object": (76, 183, 15, 12, 74, 66, 174, 164),
    }
    # Set to a high value, the features are on at h, so that their drift is a share of something.
    amplified = {"kind": "set", "value": 8.0} if study == "refusal" else {}
    quick = amplified | {
        "features": given.get(study),
        "also": (),
        "limit": 2,
        "steps": 6,
        "budgets": (0.1, 0.8),
        "suffix": 1,
        "soft": 0,
        "certify": (),
        "generate": 0,
        "sweep": Sweep(),
        "controls": False,
        "attribution": False,
    }
    return bundled_plan(study, EXAMPLES, **quick | changes)


@cache
def _setup(study) -> tuple[Plan, Setup, Items]:
    plan = small_plan(study)
    subject, items = load(plan)
    return plan, set_up(plan, subject, items), items


@pytest.fixture(scope="session")
def refusal():
    return _setup("refusal")


@pytest.fixture(scope="session")
def indirect_object():
    return _setup("indirect-object")
