"""Where in the model the SAE reads and the clamp writes, by TransformerLens name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from sae_verify.errors import HookPointError

Site = Literal["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"]
SITES: tuple[Site, ...] = get_args(Site)

_PATTERN = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.(\w+)")


@dataclass(frozen=True)
class HookPoint:
    """A point of the residual stream or a write to it; `str(hook)` is its TransformerLens name.

    Attributes:
        layer: index of the block.
        site: the residual stream before the block (`hook_resid_pre`), between attention and feed-forward network
            (`hook_resid_mid`) or after the block (`hook_resid_post`); or what the attention (`hook_attn_out`) or the
            feed-forward network (`hook_mlp_out`) adds to it, after their post norms where the architecture has some.

    Raises:
        HookPointError: the layer is not an integer >= 0, or the site is unknown.
    """

    layer: int
    site: Site

    def __post_init__(self) -> None:
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 0:
            raise HookPointError(f"layer {self.layer!r}", rule="a layer is an integer from 0")
        if self.site not in SITES:
            raise HookPointError(f"site {self.site!r}", rule=f"a site is one of {', '.join(SITES)}")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a TransformerLens name.

        Raises:
            HookPointError: bad spelling; suggests the nearest valid name.
        """
        match = _PATTERN.fullmatch(name) if isinstance(name, str) else None
        if match is None or match[2] not in SITES:
            raise HookPointError(
                f"hook point {name!r}",
                rule=f"a hook point is blocks.{{layer}}. and one of {', '.join(SITES)}",
                remedy=f"did you mean {_nearest(str(name))}?",
            )
        return cls(int(match[1]), cast(Site, match[2]))

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{self.site}"

    @property
    def first_block(self) -> int:
        """Index of the first block that runs, at least in part, after the hook; the number of blocks if none does."""
        return self.layer + (self.site == "hook_resid_post")

    @property
    def inside(self) -> bool:
        """Whether the hook is within a block, so that a part of it runs afterwards."""
        return self.site not in ("hook_resid_pre", "hook_resid_post")

    def same_state(self, other: HookPoint) -> bool:
        """Whether both name the same vector: resid_post of one block is resid_pre of the next."""
        return self == other or (not self.inside and not other.inside and self.first_block == other.first_block)

    def check(self, n_layers: int) -> None:
        """Check that the model has this layer.

        Raises:
            HookPointError: it does not.
        """
        if self.layer >= n_layers:
            raise HookPointError(
                f"hook point {self}",
                rule=f"the model has blocks 0 to {n_layers - 1}",
                remedy=f"use a layer up to {n_layers - 1}, or check that the SAE belongs to this model",
            )


def _nearest(name: str) -> str:
    number = re.search(r"\d+", name)
    layer = int(number[0][:6]) if number else 0
    candidates = [f"blocks.{layer}.{site}" for site in SITES]
    return next(iter(difflib.get_close_matches(name, candidates, n=1, cutoff=0.0)))
