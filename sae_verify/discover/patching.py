"""Activation patching: which attention, feed-forward network or head carries a behaviour from one prompt to another.

A component's output in the run of `clean` is put into the run of `corrupt`, one component at a time, and the effect is
`(patched - corrupt) / (clean - corrupt)` of the readout: 0 for nothing, 1 for the whole difference. Effects of several
components do not add up, and one that a later component makes up for looks small.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sae_verify.discover.subject import Readouts, Subject, chunks, logits
from sae_verify.errors import InputError, PromptError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import readout_values
from sae_verify.model import HookPoint, Model, Prompts, run
from sae_verify.model.sites import edit_at, on_input
from sae_verify.problem import Prompt

Where = Literal["suffix", "last"]
LEAST = 1e-3
"""A pair whose readouts differ by less has no effect to normalise by."""


@dataclass(frozen=True)
class Component:
    """`attention` or `mlp` of a layer, or one head of its attention."""

    layer: int
    kind: Literal["attention", "mlp", "head"]
    head: int | None = None

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}" + ("" if self.head is None else f".{self.head}")


@dataclass(frozen=True, eq=False)
class Patched:
    """Effects of every component on every pair.

    Attributes:
        components: in the order of the columns below; per layer attention, mlp, then heads.
        clean, corrupt: (B,) readouts of the two prompts of each pair.
        values: (B, components) readout of the corrupt prompt with the component patched.
        positions: (B,) how many positions, counted from the end, were patched.
    """

    components: tuple[Component, ...]
    clean: Array
    corrupt: Array
    values: Array
    positions: tuple[int, ...]

    @property
    def effects(self) -> Array:
        """Normalised effects, (B, components)."""
        return (self.values - self.corrupt[:, None]) / (self.clean - self.corrupt)[:, None]

    def top(self, count: int = 10) -> tuple[tuple[Component, float], ...]:
        """Components with the largest mean effect in size, and that effect."""
        mean = self.effects.mean(axis=0)
        return tuple((self.components[i], float(mean[i])) for i in np.argsort(-np.abs(mean), kind="stable")[:count])

    def grid(self, kind: str) -> Array:
        """Mean effects of one kind by layer, (layers,), or (layers, heads) for heads."""
        mean = self.effects.mean(axis=0)
        chosen = [mean[i] for i, c in enumerate(self.components) if c.kind == kind]
        layers = 1 + max(c.layer for c in self.components)
        return np.array(chosen).reshape(layers, -1) if kind == "head" else np.array(chosen)


def patch(
    subject: Subject,
    clean: Sequence[Prompt],
    corrupt: Sequence[Prompt],
    to: Readouts,
    *,
    where: Where = "suffix",
    heads: bool = True,
) -> Patched:
    """Patch every component of every layer, from each clean prompt into the corrupt one it is paired with.

    Args:
        subject: only the model counts.
        clean: prompts whose outputs are put in.
        corrupt: prompts that they are put into, one a clean prompt.
        to: readout, one for all pairs or one a pair.
        where: positions that are patched: `suffix` takes all that both prompts have, counted from the end (for prompts
            of one length, all), `last` the last alone.
        heads: also each head, before the output projection mixes them.

    Cost: layers times (2 + heads) forward passes a pair, and three more.

    Raises:
        PromptError, InputError: the lists do not pair up, or a pair does not differ in the readout.
        UnsupportedError: heads are asked for, and the architecture's are not known.
    """
    if len(clean) != len(corrupt):
        raise PromptError(f"{len(clean)} clean and {len(corrupt)} corrupt prompts", rule="they are pairs")
    if where not in ("suffix", "last"):
        raise InputError(f"where is {where!r}", rule="it must be 'suffix' or 'last'")
    good, bad = subject.prompts(clean), subject.prompts(corrupt)
    readouts = subject.readouts(to, len(good))
    right, wrong = (readout_values(logits(subject, p), readouts).numpy() for p in (good, bad))
    weak = np.flatnonzero(np.abs(right - wrong) < LEAST)
    if weak.size:
        raise InputError(
            f"pair {weak[0]}: the readout is {right[weak[0]]:.4g} on the clean and {wrong[weak[0]]:.4g} on the corrupt",
            rule=f"they must differ by {LEAST:g}, or there is no effect to share out",
            remedy="leave the pair out, or choose another readout",
        )
    shared = torch.minimum(good.lengths, bad.lengths) if where == "suffix" else torch.ones_like(good.lengths)
    components = _components(subject.model, heads)
    values = np.zeros((len(good), len(components)))
    with torch.no_grad():
        for place, some in chunks(good):
            other = bad.select(range(*place.indices(len(bad))))
            source = _outputs(subject.model, some, components)
            for i, component in enumerate(components):
                state = source[component.layer, component.kind]
                part = _span(subject.model, component)
                put = partial(_with_suffix, source=state, good=some, bad=other, shared=shared[place], part=part)
                patched = _run(subject.model, other, [(component, put)]).double()
                values[place, i] = readout_values(patched, readouts[place]).numpy()
    return Patched(components, right, wrong, values, tuple(shared.tolist()))


def _components(model: Model, heads: bool) -> tuple[Component, ...]:
    count = int(model.config.num_attention_heads) if heads else 0
    found = []
    for layer in range(model.n_layers):
        found += [Component(layer, "attention"), Component(layer, "mlp")]
        found += [Component(layer, "head", head) for head in range(count)]
    return tuple(found)


def _outputs(model: Model, prompts: Prompts, components: tuple[Component, ...]) -> dict[tuple[int, str], Tensor]:
    """What every component writes on these prompts, (n, T, w), by layer and kind; the heads of a layer unmixed."""
    kept: dict[tuple[int, str], Tensor] = {}

    def keep(output: Tensor, place: tuple[int, str]) -> Tensor:
        kept[place] = output
        return output

    first = {(c.layer, c.kind): c for c in reversed(components)}
    _run(model, prompts, [(c, partial(keep, place=place)) for place, c in first.items()])
    return kept


def _run(model: Model, prompts: Prompts, changes: Sequence[tuple[Component, Callable[[Tensor], Tensor]]]) -> Tensor:
    """Logits (n, V) of a run in which each change acts on its component's output (for a head: on all, unmixed)."""
    with contextlib.ExitStack() as stack:
        for component, change in changes:
            if component.kind == "head":
                handle = on_input(_projection(model, component.layer), change)
            else:
                site = "hook_attn_out" if component.kind == "attention" else "hook_mlp_out"
                handle = edit_at(model.adapter, model.module, HookPoint(component.layer, site), change)
            stack.callback(handle.remove)
        return run(model, prompts, HookPoint(0, "hook_resid_pre")).logits


def _projection(model: Model, layer: int) -> nn.Module:
    """The module that mixes the heads of a layer: its input is (B, T, n_heads * d_head)."""
    block: Any = model.adapter.blocks(model.module)[layer]
    if model.family == "gpt2":
        return block.attn.c_proj
    if model.family in ("llama", "gemma2"):
        return block.self_attn.o_proj
    raise UnsupportedError(
        f"heads of {model.family!r}",
        rule="heads are known of gpt2, llama and gemma2",
        remedy="use heads=False",
    )


def _span(model: Model, component: Component) -> slice:
    """Which numbers of the output belong to the component."""
    if component.head is None:
        return slice(None)
    projection = _projection(model, component.layer)
    weight = projection.weight
    assert isinstance(weight, Tensor)
    inputs = weight.shape[0] if model.family == "gpt2" else weight.shape[1]  # Conv1D stores (in, out)
    width = inputs // int(model.config.num_attention_heads)
    return slice(component.head * width, (component.head + 1) * width)


def _with_suffix(output: Tensor, source: Tensor, good: Prompts, bad: Prompts, shared: Tensor, part: slice) -> Tensor:
    """`output` (n, T, w) with the last `shared` positions of each prompt taken from `source` (n, T', w)."""
    result = output.clone()
    for row in range(len(bad)):
        count, here, there = int(shared[row]), int(bad.lengths[row]), int(good.lengths[row])
        result[row, here - count : here, part] = source[row, there - count : there, part]
    return result
