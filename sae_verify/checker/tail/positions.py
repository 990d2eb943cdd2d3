"""What config.json says of rotary positions, strictly."""

from __future__ import annotations

import math
from typing import Any

from .keys import flag, positive, refuse
from .rotary import Rotary

_ROTARY_BASE = 10000.0
"""Where config.json gives none."""
_ROTARY_KEYS = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "truncate"}
    ),
}
"""Of each rotary type, beside its name, its base and how much of a head turns."""


def rotary(
    config: dict[str, Any], d_head: int, *, partial: bool = False, scaled: bool = True
) -> tuple[float | Rotary, float]:
    """The base of plain rotary positions, or how they are scaled, and the gain of the tables.

    Every place that names the base, the part of a head that turns or a scaling must name the same.

    Args:
        config: config.json.
        d_head: width of a head.
        partial: a part of each head may turn.
        scaled: other types than the default one have their usual meaning.

    """
    if d_head % 2:
        refuse("head_dim", d_head, "even, for its halves are rotated against each other")
    bases = [positive(config, "rope_theta")] if config.get("rope_theta") is not None else []
    parts = [config["partial_rotary_factor"]] if config.get("partial_rotary_factor") is not None else []
    scalings: list[dict[str, Any]] = []
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        if rope is None:
            continue
        names = {rope[name] for name in ("rope_type", "type") if rope.get(name) is not None} if _plain(rope) else {None}
        kind = next(iter(names), "default")
        known = sorted(_ROTARY_KEYS) if scaled else ["default"]
        if len(names) > 1 or kind not in known:
            refuse(f"{key}, rope_type", rope, f"null or one of {known}")
        shared = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        if not rope.keys() <= _ROTARY_KEYS[kind] | shared:
            refuse(key, rope, f"null or hold at most {sorted(_ROTARY_KEYS[kind] | shared)}")
        if rope.get("rope_theta") is not None:
            bases.append(positive(rope, "rope_theta"))
        if rope.get("partial_rotary_factor") is not None:
            parts.append(rope["partial_rotary_factor"])
        scalings.append({"rope_type": kind} | {name: rope[name] for name in _ROTARY_KEYS[kind] if name in rope})
    for key, found in (("rope_theta", bases), ("partial_rotary_factor", parts), ("rope_scaling", scalings)):
        if any(other != found[0] for other in found):
            refuse(key, found, "one number wherever it is given" if found is not scalings else "the same everywhere")
    base = bases[0] if bases else _ROTARY_BASE
    if base < 1.0:
        refuse("rope_theta", base, "at least 1")
    width = _turning(parts[0] if parts else 1.0, d_head, partial=partial)
    scaling = scalings[0] if scalings else {"rope_type": "default"}
    return _scaled(config, scaling, base, width, d_head)


def rotary_by_window(
    config: dict[str, Any], d_head: int
) -> tuple[tuple[float | Rotary, float], tuple[float | Rotary, float]]:
    """The same for blocks that see everything and for those with a window, which do not share settings (Gemma-3)."""
    nested = config.get("rope_parameters")
    if nested is None:
        # Older exports: one scaling, for the blocks that see everything, and two bases.
        far = {"rope_theta": 1000000.0, "rope_scaling": None}
        near = {"rope_theta": config.get("rope_local_base_freq", 10000.0)}
        return (
            rotary(far | {key: config[key] for key in far if key in config}, d_head),
            rotary(near, d_head),
        )
    kinds = {"full_attention": 1000000.0, "sliding_attention": 10000.0}
    if not isinstance(nested, dict) or not nested.keys() <= kinds.keys() or config.get("rope_scaling") is not None:
        refuse("rope_parameters", nested, f"null or hold {sorted(kinds)}, without rope_scaling")
    for key in ("rope_theta", "rope_local_base_freq"):
        if config.get(key) is not None:
            refuse(key, config[key], "null where rope_parameters is given")
    found = []
    for kind, base in kinds.items():
        settings = nested.get(kind)
        if settings is not None and (not isinstance(settings, dict) or "truncate" in settings):
            refuse(f"rope_parameters, {kind}", settings, "an object without truncate, which loaders look for elsewhere")
        found.append(rotary({"rope_parameters": {"rope_theta": base} | (settings or {})} | _trained(config), d_head))
    return found[0], found[1]


def _trained(config: dict[str, Any]) -> dict[str, Any]:
    return {"max_position_embeddings": config.get("max_position_embeddings")}


def _plain(rope: object) -> bool:
    """Whether rotary settings are an object whose values are numbers, text, flags or null."""
    return isinstance(rope, dict) and all(v is None or isinstance(v, (str, int, float)) for v in rope.values())


def _turning(part: object, d_head: int, *, partial: bool) -> int:
    """How many entries of a head turn."""
    if isinstance(part, bool) or not isinstance(part, (int, float)) or not 0 < part <= 1 or (part != 1 and not partial):
        refuse("partial_rotary_factor", part, "a number from 0 to 1" if partial else "1")
    width = int(d_head * part)
    if width % 2 or width == 0:
        refuse("partial_rotary_factor", part, f"so that an even number of a head's {d_head} entries turn")
    return width


def _scaled(
    config: dict[str, Any], scaling: dict[str, Any], base: float, width: int, d_head: int
) -> tuple[float | Rotary, float]:
    """The frequencies of a rotary type, and the gain of its tables."""
    kind = scaling["rope_type"]
    if kind == "default":
        return (base if width == d_head else Rotary(base, width)), 1.0
    factor = positive(scaling, "factor")
    if factor < 1.0:
        refuse("factor", factor, "at least 1")
    if kind == "linear":
        return Rotary(base, width, kind, factor), 1.0
    trained = scaling.get("original_max_position_embeddings") or config.get("max_position_embeddings")
    if type(trained) is not int or trained < 1:
        refuse("original_max_position_embeddings", trained, "a positive whole number")
    assert type(trained) is int
    if kind == "llama3":
        low, high = positive(scaling, "low_freq_factor"), positive(scaling, "high_freq_factor")
        if not low < high:
            refuse("high_freq_factor", high, f"more than low_freq_factor = {low}")
        return Rotary(base, width, kind, factor, low, high, float(trained)), 1.0
    fast = positive(scaling, "beta_fast") if scaling.get("beta_fast") is not None else 32.0
    slow = positive(scaling, "beta_slow") if scaling.get("beta_slow") is not None else 1.0
    if base == 1.0 or not slow < fast:
        refuse("beta_fast", fast, f"more than beta_slow = {slow}, with a rope_theta above 1")

    def index(turns: float) -> float:
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = index(fast), index(slow)
    if flag(scaling, "truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    high = high + 0.001 if low == high else high
    if not low < high:
        refuse("original_max_position_embeddings", trained, "long enough for the frequencies to be told apart")
    gain = scaling.get("attention_factor")
    gain = 0.1 * math.log(factor) + 1.0 if gain is None else positive(scaling, "attention_factor")
    if gain != 1.0 and width < d_head:  # entries that do not turn have no gain, so scores have none of their own
        refuse("attention_factor", gain, f"1 where only {width} of a head's {d_head} entries turn")
    return Rotary(base, width, kind, factor, float(low), float(high)), gain
