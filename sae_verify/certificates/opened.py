"""A prompt's problem as the checker will see it, before there is any evidence: for searches through blocks."""

from __future__ import annotations

from pathlib import Path

from sae_verify.certificates.weights import Weights
from sae_verify.certificates.write import certificate
from sae_verify.checker.check import open_setting
from sae_verify.checker.format import parse_certificate
from sae_verify.checker.setting import Setting
from sae_verify.geometry.instance import Instance
from sae_verify.problem import Problem


def open_problem(problem: Problem, instance: Instance, weights: Weights) -> Setting:
    """The checker's view of one prompt.

    Raises:
        checker.Rejected: the checker does not read these weights, or cannot enclose this tail.
    """
    empty = certificate(problem, instance, weights, [], [], Path())
    return open_setting(parse_certificate(empty), weights.sae_path, weights.model_path)
