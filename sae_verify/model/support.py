"""Which models are supported, from the registry of adapters: rows for a table."""

from __future__ import annotations

from dataclasses import dataclass

from sae_verify.model.adapters import ADAPTERS
from sae_verify.model.hook_point import SITES


@dataclass(frozen=True)
class ModelRow:
    """An architecture: what people call it, its `model_type`, and whether bounds go through its blocks.

    Where they do not, there are bounds after the last block, and attacks everywhere.
    """

    name: str
    family: str
    through_blocks: bool


@dataclass(frozen=True)
class HookRow:
    """A hook point: its name within a block, and whether certificates or only attacks start there."""

    name: str
    certified: bool


def supported_models() -> tuple[ModelRow, ...]:
    """Every architecture."""
    return tuple(ModelRow(adapter.name, adapter.family, adapter.enclosed) for adapter in ADAPTERS.values())


def supported_hooks() -> tuple[HookRow, ...]:
    """Every hook point; an architecture whose blocks are parallel has no `hook_resid_mid`."""
    return tuple(HookRow(site, site in ("hook_resid_pre", "hook_resid_post")) for site in SITES)


def models_cell() -> str:
    """The README's cell on models."""
    rows = supported_models()
    through, last = (
        ", ".join(row.name for row in rows if row.through_blocks is enclosed) for enclosed in (True, False)
    )
    return f"{through}; with bounds after the last block only: {last}" if last else through


def hooks_cell() -> str:
    """The README's cell on hook points."""
    rows = supported_hooks()
    proved, attacked = (
        ", ".join(f"`blocks.{{l}}.{row.name}`" for row in rows if row.certified is certified)
        for certified in (True, False)
    )
    return f"with certificates: {proved}; run and attacked: {attacked}"
