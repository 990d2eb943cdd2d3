"""What a file format is: one value of this type, at the end of the format's own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sae_verify.sae.formats.stored import Stored


@dataclass(frozen=True)
class Format:
    """A source of SAEs.

    Attributes:
        name: short, for `load_sae(..., format=name)` and `Source.format`.
        title: what people call it.
        layout: the files, as they are named.
        architectures: what is loaded from it, by SAELens name where there is one.
        recognises: whether a file or directory looks like one; it reads names and configs, never weights.
        read: the SAE as stored, from that path and the caller's constant input scale.
        downloads: patterns, within a folder, of the files that are fetched from a hub.
        checked: whether the checker reads these files as they lie; otherwise `save_sae` comes before a certificate.

    """

    name: str
    title: str
    layout: str
    architectures: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[[Path, float | None], Stored]
    downloads: tuple[str, ...]
    checked: bool = False
