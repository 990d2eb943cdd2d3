"""Lower bounds on the worst case: admissible perturbations, found by search and replayed on the real model."""

from sae_verify.attacks.closed_form import first_order
from sae_verify.attacks.pgd import Attack, Pgd, ascend, attack, settle
from sae_verify.attacks.projection import project_batch
from sae_verify.attacks.radius import smallest_radius
from sae_verify.attacks.replay import Replay, replay

__all__ = [
    "Attack",
    "Pgd",
    "Replay",
    "ascend",
    "attack",
    "first_order",
    "project_batch",
    "replay",
    "settle",
    "smallest_radius",
]
