"""A clamp, and a perturbation that undoes it, as ordinary hooks on a Hugging Face model; generate() works as usual."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.hosts.passes import Pass, watch_passes
from sae_verify.model import HookPoint, Model
from sae_verify.model.adapters import adapter_for
from sae_verify.model.sites import edit_at
from sae_verify.problem import Clamp, trained_hook
from sae_verify.sae import SAE
from sae_verify.sae.clamp import clamped as clamp_state


@contextlib.contextmanager
def clamped(
    model: nn.Module | Model,
    sae: SAE,
    clamp: Clamp | None,
    *,
    delta: Any = None,
    hook: str | HookPoint | None = None,
    position: int | Sequence[int] | None = None,
    generated: bool = False,
) -> Iterator[nn.Module]:
    """Within the context every forward pass of the model has the clamp, and `delta` after it.

    The state at the hook becomes h + delta, with h the clamped state, as in `certify`'s replay. Forward passes, also
    those of generate() with its cache, work as usual; padding on either side is left alone.

    Args:
        model: a Hugging Face causal language model of a supported architecture, or one from `load_model`. It is
            neither copied nor changed, and keeps its dtype, device and attention implementation.
        sae: the SAE that reads the hook point; a copy is moved to the model's device, if it is elsewhere.
        clamp: what is written into the code; None for only `delta`. At every step of a generation: `all` means each
            token, `last` the last of each forward pass, and numbers count each prompt's real tokens from 0.
        delta: (d,), or (prompts, d) with one row a prompt (copies of a prompt, as in beam search, get its row): a
            witness, or any perturbation; None for only the clamp. With p d numbers for d, the last p positions are
            perturbed, the last one by the last d.
        hook: name of the hook point; None takes the SAE's metadata.
        position: of `delta`, among each prompt's real tokens; one number, or one a prompt. None means the prompt's last
            token, the prompt being what a pass with an empty cache reads. So without a cache, or where a prompt is read
            in pieces, say which it is.
        generated: also perturb every later position.

    Yields:
        The Hugging Face model. The hooks are removed on leaving, also by an exception.

    Raises:
        InputError and its kinds: SAE, hook point, features or `delta` do not fit the model.
        UnsupportedError: an architecture that is not modelled; in a pass: positions that cannot be told.
    """
    held = model if isinstance(model, Model) else bare_model(model)
    point = trained_hook(held, sae, hook)
    width = held.d_model
    if sae.d_in != width:
        raise ShapeError(f"the SAE reads {sae.d_in} dimensions and the model has {width}", rule="they must be equal")
    outside = [feature for feature in (clamp.features if clamp else ()) if feature >= sae.d_sae]
    if outside:
        raise InputError(f"the clamp names features {outside}", rule=f"this SAE has features 0 to {sae.d_sae - 1}")
    edit = _Edit(
        sae=sae.to(torch.float64) if held.dtype == torch.float64 else sae,  # it reads nothing wider than itself
        clamp=clamp,
        push=None if delta is None else _rows(delta, width),
        position=None if position is None else torch.as_tensor(position).reshape(-1, 1),
        generated=generated,
    )
    with contextlib.ExitStack() as stack:
        body: Any = held.module.get_submodule(_body_name(held.module))
        stack.callback(watch_passes(body, edit.begin).remove)
        stack.callback(edit_at(held.adapter, held.module, point, edit).remove)
        yield held.module


def bare_model(module: Any) -> Model:
    """A user's Hugging Face model as it is, for running: no files, no tokenizer.

    Raises:
        InputError: it is no Hugging Face model. UnsupportedError: its architecture is not modelled.
    """
    config = getattr(module, "config", None)
    if not isinstance(module, nn.Module) or config is None or not hasattr(config, "model_type"):
        raise InputError(
            f"the model is a {type(module).__module__}.{type(module).__qualname__}",
            rule="it must be a Hugging Face causal language model, or come from load_model",
            remedy="pass the transformers model itself",
        )
    adapter = adapter_for(config.model_type)
    adapter.check(config)
    return Model(module, None, adapter, None, False)


@dataclasses.dataclass(eq=False)
class _Edit:
    """The change at the hook; `now` is the pass that runs."""

    sae: SAE
    clamp: Clamp | None
    push: Tensor | None  # (p d,) or (prompts, p d)
    position: Tensor | None  # (prompts or 1, 1)
    generated: bool
    now: Pass | None = None

    def begin(self, this: Pass) -> None:
        self.now = this

    def __call__(self, x: Tensor) -> Tensor:
        assert self.now is not None  # a block runs within the decoder's forward pass
        place = self.now.place.to(x.device)  # (B, T)
        if self.clamp is not None:
            if self.sae.W_enc.device != x.device:  # blocks of one model may lie on several devices
                self.sae = _moved(self.sae, x.device)
            where = self._acts(self.clamp, place)[..., None]
            x = torch.where(where, clamp_state(self.sae, self.clamp, x).to(x.dtype), x)
        if self.push is not None:
            push = _spread(self.push, len(x)).to(x)  # (B or 1, p d)
            for back, row in enumerate(reversed(push.split(x.shape[-1], dim=-1))):
                x = torch.where(self._perturbed(place, back)[..., None], x + row[:, None], x)
        return x

    @staticmethod
    def _acts(clamp: Clamp, place: Tensor) -> Tensor:
        """Where the clamp acts, (B, T)."""
        if clamp.positions == "all":
            return place >= 0
        if clamp.positions == "last":
            return place == place.amax(dim=1, keepdim=True)
        return torch.isin(place, torch.tensor(clamp.positions, device=place.device))

    def _perturbed(self, place: Tensor, back: int) -> Tensor:
        """Where the perturbation acts, `back` positions before its last one, (B, T)."""
        assert self.now is not None
        later = self.generated and back == 0
        if self.position is not None:
            target = _spread(self.position, len(place)).to(place.device) - back
            return place >= target if later else (place == target) & (place >= 0)
        if self.now.cached == 0:
            return (place == place.amax(dim=1, keepdim=True) - back) & (place >= 0)
        if place.shape[1] > 1:
            raise UnsupportedError(
                f"a pass reads {place.shape[1]} tokens after {self.now.cached} cached ones",
                rule="the perturbation is put at the prompt's last token, which such a pass does not show",
                remedy="give position=, the token's number in the prompt",
            )
        return (place >= 0) if later else torch.zeros_like(place, dtype=torch.bool)


def _rows(delta: Any, width: int) -> Tensor:
    rows = delta.detach() if isinstance(delta, Tensor) else torch.as_tensor(delta)
    whole = rows.ndim in (1, 2) and rows.shape[-1] > 0 and rows.shape[-1] % width == 0
    if not whole or not rows.is_floating_point():
        raise ShapeError(
            f"delta has shape {tuple(rows.shape)} and dtype {rows.dtype}",
            rule=f"it must be real numbers of shape ({width},), or (prompts, {width}); p {width} for p positions",
        )
    if not bool(rows.isfinite().all()):
        raise InputError("delta has values that are NaN or infinite", rule="a perturbation is finite")
    return rows


def _spread(rows: Tensor, batch: int) -> Tensor:
    """One row for all, or one a prompt, each repeated for the copies that a batch holds of its prompt."""
    if rows.ndim == 1 or len(rows) == 1:
        return rows.reshape(1, -1)
    if batch % len(rows):
        raise ShapeError(
            f"{len(rows)} rows for a batch of {batch}", rule="there is one row for all prompts, or one a prompt"
        )
    return rows.repeat_interleave(batch // len(rows), dim=0)


def _moved(sae: SAE, device: torch.device) -> SAE:
    return dataclasses.replace(sae, **{name: tensor.to(device) for name, tensor in sae.tensors().items()})


def _body_name(module: Any) -> str:
    """The decoder within a causal language model, which gets the tokens of every pass."""
    return str(module.base_model_prefix)
