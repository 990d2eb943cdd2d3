"""What is built: per case its grammar, training schedule, SAEs and clamps."""

from __future__ import annotations

from dataclasses import dataclass

from examples.training.choose_clamp import ClampPlan
from examples.training.grammar import Grammar
from examples.training.indirect_object import IndirectObject
from examples.training.refusal import Refusal
from examples.training.train_model import Schedule
from examples.training.train_saes import SAEPlan
from examples.training.unlearning import Unlearning


@dataclass(frozen=True)
class Case:
    """One bundled case.

    Attributes:
        grammar: what the model learns.
        title: for problem files.
        schedule: how the model is trained.
        saes: the SAE at an early layer and the one at the last layer.
        clamps: a clamp for each SAE, by folder.

    """

    grammar: Grammar
    title: str
    schedule: Schedule
    saes: tuple[SAEPlan, SAEPlan]
    clamps: dict[str, ClampPlan]


EARLY, LAST = "blocks.1.hook_resid_post", "blocks.3.hook_resid_post"

CASES = {
    "indirect_object": Case(
        IndirectObject(),
        "indirect object",
        Schedule(steps=600),
        (SAEPlan("sae_early", EARLY, "topk", 3, d_sae=192), SAEPlan("sae_last", LAST, "batchtopk", 8)),
        {"sae_early": ClampPlan("set", -5.0, "promotes"), "sae_last": ClampPlan("set", -5.0, "promotes")},
    ),
    "refusal": Case(
        Refusal(),
        "refusal",
        Schedule(steps=700, learning_rate=4e-3, prompt_weight=0.1),
        (SAEPlan("sae_early", EARLY, "batchtopk", 8), SAEPlan("sae_last", LAST, "topk", 8)),
        {"sae_early": ClampPlan("scale", -1.0, "promotes"), "sae_last": ClampPlan("scale", -1.0, "promotes")},
    ),
    "unlearning": Case(
        Unlearning(),
        "unlearning",
        Schedule(steps=600),
        (
            SAEPlan("sae_early", "blocks.0.hook_resid_post", "topk", 8),
            SAEPlan("sae_last", LAST, "batchtopk", 8),
        ),
        {
            "sae_early": ClampPlan("scale", -1.0, "promotes", spread=(0.05, 0.8)),
            "sae_last": ClampPlan("scale", -1.0, "promotes", spread=(0.05, 0.6)),
        },
    ),
}
