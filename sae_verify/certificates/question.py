"""The question of a certificate as JSON data, and the digest that names a whole problem."""

from __future__ import annotations

import dataclasses
from typing import Any

from sae_verify.certificates.weights import Weights
from sae_verify.checker.files import digest_json
from sae_verify.geometry.instance import Instance
from sae_verify.problem import Problem


def shared_question(problem: Problem) -> dict[str, Any]:
    """What all prompts of a problem have in common: hook, clamp, threat and claim."""
    threat, clamp = problem.threat, problem.clamp
    return {
        "hook": str(problem.hook_point),
        "clamp": {
            "kind": clamp.kind,
            "features": list(clamp.features),
            "values": list(clamp.values),
            "positions": clamp.positions if isinstance(clamp.positions, str) else list(clamp.positions),
        },
        "threat": {
            "radius": threat.radius,
            "relative_to": threat.relative_to,
            "held": threat.held,
            "at": threat.at,
            "features": None if threat.features is None else list(threat.features),
            **({} if threat.drift is None else {"drift": threat.drift}),
            **({} if threat.positions == 1 else {"positions": threat.positions}),
        },
        "at_most": problem.claim.tau,
    }


def question(problem: Problem, instance: Instance) -> dict[str, Any]:
    """The `problem` object of one prompt's certificate; see theory/certificate_format.md."""
    prompt, readout = problem.prompts[instance.index], instance.readout
    return shared_question(problem) | {
        "tokens": list(instance.tokens),
        "text": prompt if isinstance(prompt, str) else "",
        "readout": {
            "kind": "token-against-all" if readout.negative is None else "logit-difference",
            "positive": readout.positive,
            "negative": readout.negative,
        },
    }


def problem_digest(problem: Problem, weights: Weights) -> str:
    """SHA-256 over everything a problem consists of: weights, hook, prompts, clamp, threat, readouts and claim."""
    content = shared_question(problem) | {
        "sae": weights.sae_digest,
        "input_scale": weights.input_scale,
        "model": weights.model_digest,
        "prompts": [prompt if isinstance(prompt, str) else list(prompt) for prompt in problem.prompts],
        "readouts": [{"kind": readout.kind, **dataclasses.asdict(readout)} for readout in problem.readouts],
    }
    return digest_json(content)
