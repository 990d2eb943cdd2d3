"""Recovery studies: the published experiments with radii, certificates, controls and the same metrics."""

from sae_verify.study.items import Item, Items, read_items
from sae_verify.study.metrics import Rate, cluster_bootstrap, rate, wilson
from sae_verify.study.plan import Plan, Sweep, bundled_plan, default_plan
from sae_verify.study.run import run_study
from sae_verify.study.together import run_studies

__all__ = [
    "Item",
    "Items",
    "Plan",
    "Rate",
    "Sweep",
    "bundled_plan",
    "cluster_bootstrap",
    "default_plan",
    "rate",
    "read_items",
    "run_studies",
    "run_study",
    "wilson",
]
