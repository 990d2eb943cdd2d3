"""What is supported, from the registries themselves: rows for a table."""

from __future__ import annotations

from dataclasses import dataclass

from sae_verify.sae.formats.registry import FORMATS
from sae_verify.sae.formats.settings import NOT_ONE_POSITION
from sae_verify.sae.formats.stored import ARCHITECTURES


@dataclass(frozen=True)
class FormatRow:
    """A format: its title and name, its files, what is loaded from it, whether the checker reads the files directly."""

    title: str
    name: str
    layout: str
    architectures: tuple[str, ...]
    checked: bool


@dataclass(frozen=True)
class ArchitectureRow:
    """An architecture: its name, its class, and what a threat model may hold of it (nothing: no certificates)."""

    name: str
    kind: str
    held: tuple[str, ...]
    limits: str


@dataclass(frozen=True)
class Support:
    """Everything: `refused` maps what is known and refused to the reason."""

    formats: tuple[FormatRow, ...]
    architectures: tuple[ArchitectureRow, ...]
    refused: dict[str, str]


def support() -> Support:
    """Return what is supported."""
    return Support(
        tuple(FormatRow(f.title, f.name, f.layout, f.architectures, f.checked) for f in FORMATS),
        tuple(
            ArchitectureRow(name, a.kind.__name__, a.kind.held_sets, a.kind.held_limits)
            for name, a in ARCHITECTURES.items()
        ),
        dict(NOT_ONE_POSITION),
    )
