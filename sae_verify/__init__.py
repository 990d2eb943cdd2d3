"""Proves or refutes that a clamp on sparse-autoencoder features can be bypassed through the SAE's error term.

Names are loaded on first use, so that `sae_verify.checker` runs with numpy alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sae_verify.version import __version__

_NAMES = {
    "AtMost": "problem",
    "Certified": "verdict",
    "Clamp": "problem",
    "ErrorBall": "problem",
    "LogitDifference": "problem",
    "Pgd": "attacks",
    "Problem": "problem",
    "Refuted": "verdict",
    "Result": "verdict",
    "SaeVerifyError": "errors",
    "TokenAgainstAll": "problem",
    "Undecided": "verdict",
    "Unsupported": "verdict",
    "certify": "pipeline",
    "check": "checker",
    "describe": "sae",
    "clamped": "hosts",
    "load_model": "model",
    "load_problem": "problem_file",
    "load_sae": "sae",
    "load_witnesses": "hosts",
    "save_sae": "sae",
    "wrap_model": "hosts",
}

if TYPE_CHECKING:
    from sae_verify.attacks import Pgd as Pgd
    from sae_verify.checker import check as check
    from sae_verify.errors import SaeVerifyError as SaeVerifyError
    from sae_verify.hosts import clamped as clamped
    from sae_verify.hosts import load_witnesses as load_witnesses
    from sae_verify.hosts import wrap_model as wrap_model
    from sae_verify.model import load_model as load_model
    from sae_verify.pipeline import certify as certify
    from sae_verify.problem import AtMost as AtMost
    from sae_verify.problem import Clamp as Clamp
    from sae_verify.problem import ErrorBall as ErrorBall
    from sae_verify.problem import LogitDifference as LogitDifference
    from sae_verify.problem import Problem as Problem
    from sae_verify.problem import TokenAgainstAll as TokenAgainstAll
    from sae_verify.problem_file import load_problem as load_problem
    from sae_verify.sae import describe as describe
    from sae_verify.sae import load_sae as load_sae
    from sae_verify.sae import save_sae as save_sae
    from sae_verify.verdict import Certified as Certified
    from sae_verify.verdict import Refuted as Refuted
    from sae_verify.verdict import Result as Result
    from sae_verify.verdict import Undecided as Undecided
    from sae_verify.verdict import Unsupported as Unsupported

__all__ = [*sorted(_NAMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
