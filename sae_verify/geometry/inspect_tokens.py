"""What a model's residuals see of an SAE: the held cell of each prompt, and the first-order effect of its error term.

At the last position of each prompt: how many features are on, what they leave free, how near the thresholds are, how
much of the readout's gradient the error term may use, and what a clamp changes of that. First order throughout: the
readout is replaced by its gradient g at h (at x without a clamp). Nothing here is certified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.ball import Norm, Shape
from sae_verify.geometry.cell_recession import Recession, recession
from sae_verify.geometry.cell_size import nearest_thresholds
from sae_verify.geometry.clamp_effect import ClampEffect, Counterable, Restore, Undo, clamp_effect, counterable, restore
from sae_verify.geometry.clamp_effect import undo as undone
from sae_verify.geometry.closing import ClosingSet, closing_set
from sae_verify.geometry.dictionary import dictionary, encoder
from sae_verify.geometry.ellipsoid import error_ellipsoid
from sae_verify.geometry.held_cell import Array, HeldCell, held_cells
from sae_verify.geometry.rows import active_features, checked_features
from sae_verify.geometry.subspace import span
from sae_verify.geometry.worst_case import LinearOptimum
from sae_verify.model import Model, encode_prompts, make_tail, run, token_id
from sae_verify.problem import Clamp, ErrorBall, LogitDifference, trained_hook
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import apply_clamp

CODE = ErrorBall(1.0, "absolute", "code", "x")
"""What is held: the whole code at x. The radius plays no part."""
FAR = 100.0
"""Times ||h||: how far a perturbation that restores a readout is searched."""
CLOSING = 8
"""Features that may be added to close a first-order effect."""


@dataclass(frozen=True, eq=False)
class ClampReport:
    """What a clamp does at one prompt, and what the error term can do about it, to first order, with the code held.

    Attributes:
        effect: x, h and their difference.
        clamped: readout of the clamped model, as it ran.
        undo: cancelling it. counterable: the share of it that no held equality protects.
        restore: the shortest perturbation that raises the linear readout by what the clamp took from the model's; None
            where the clamp did not lower it. The model itself may need less or more: `attack` and `certify` say.
        closing: features that, held as well, leave no first-order effect of the error term.
    """

    effect: ClampEffect
    clamped: float
    undo: Undo
    counterable: Counterable
    restore: Restore | None
    closing: ClosingSet


@dataclass(frozen=True, eq=False)
class TokenReport:
    """One prompt.

    Attributes:
        prompt: as given.
        readout: as words.
        x: (d,) residual. g: (d,) gradient of the readout.
        cell: held cell of the whole code at x.
        active: features that are on. error_share: ||e|| / ||x||.
        free_dimensions: that the active features' pre-activations leave.
        unreachable_dimensions: that no setting of the active features reaches.
        gradient_free: ||P g|| / ||g||, P onto the free dimensions.
        gradient_unreachable: the same onto the unreachable ones.
        nearest: features whose thresholds bind first. distances: theirs, absolute; the first is the inner radius.
        shape, radius: of the ball of the worst cases; the radius is absolute.
        optimum: worst first-order change with the code held.
        preactivations: the same with the active features' pre-activations held.
        recession: whether the cell ends.
        base: readout of the plain model, as it ran.
        clamp: None without one.
    """

    prompt: str
    readout: str
    x: Array
    g: Array
    cell: HeldCell
    active: int
    error_share: float
    free_dimensions: int
    unreachable_dimensions: int
    gradient_free: float
    gradient_unreachable: float
    nearest: tuple[int, ...]
    distances: tuple[float, ...]
    shape: Shape
    radius: float
    optimum: LinearOptimum
    preactivations: float
    recession: Recession
    base: float
    clamp: ClampReport | None

    @property
    def worst(self) -> dict[str, float]:
        """Largest first-order change of the readout with nothing, the active pre-activations, and the code held."""
        free = self.radius * self.shape.free(self.g)
        return {"free": free, "preactivations": self.preactivations, "code": self.optimum.value}


def inspect_tokens(
    sae: SAE,
    model: Model,
    prompts: Sequence[str],
    *,
    hook: str | None = None,
    clamp: Clamp | None = None,
    readout: LogitDifference | None = None,
    ball: Norm = "l2",
    share: float = 0.05,
) -> Iterator[TokenReport]:
    """Reports, one a prompt as it is ready.

    Args:
        sae: any dtype; computed with in float64.
        model: that the SAE was trained on.
        prompts: texts.
        hook: hook point; None takes the SAE's metadata.
        clamp: None for none.
        readout: None takes, for each prompt, its most likely next token against the second.
        ball: what bounds the perturbation; the ellipsoid is that of the error term at all positions of the prompts.
        share: radius in units of ||x||; for linf of ||x|| / sqrt(d), for the ellipsoid of a typical error term.

    Raises:
        InputError and its kinds for bad prompts, tokens, hooks, widths or shares; UnsupportedError; TailMismatchError.
    """
    if not (np.isfinite(share) and share > 0):
        raise InputError(f"the radius is {share!r}", rule="it must be positive and finite")
    if sae.d_in != model.d_model:
        raise ShapeError(f"the SAE has width {sae.d_in} and the model {model.d_model}", rule="they must agree")
    if clamp is not None:
        checked_features(clamp.features, sae.d_sae)
    place, tokens = trained_hook(model, sae, hook), encode_prompts(model, prompts)
    wide = sae.to(torch.float64)
    with torch.no_grad():
        plain = run(model, tokens, place)
    edit = None if clamp is None else (lambda x: apply_clamp(sae, clamp, x, tokens.lengths))
    tail, edited = make_tail(model, tokens, place, edit)
    x = plain.resid[torch.arange(len(tokens)), tokens.lengths - 1].double().cpu()  # (B, d)
    pairs = [_pair(model, logits, readout) for logits in plain.logits.double().cpu()]
    contrast = torch.stack([tail.unembed[a] - tail.unembed[b] for a, b in pairs])  # (B, d)
    _, gradient = tail.value_and_grad(tail.base, contrast[:, None])  # (B, 1, d)
    g = gradient[:, 0].numpy()
    actual = [_readouts(logits, pairs) for logits in (plain.logits, edited.logits)]  # base, clamped
    cells = held_cells(wide, CODE, (), x.numpy(), x.numpy(), "outer")
    shape, unit = _shape(wide, ball, plain.resid.double().cpu(), tokens.lengths)
    radii = share * (np.linalg.norm(x.numpy(), axis=1) if unit is None else np.full(len(x), unit))
    radii = radii / np.sqrt(sae.d_in) if ball == "linf" else radii
    rows = encoder(sae)
    optima = shape.worst_cases(rows, cells, g, radii)
    equalities = [HeldCell(cell.width, cell.equal, cell.rows, ()) for cell in cells]
    fewer = shape.worst_cases(dictionary(torch.zeros(0, sae.d_in)), equalities, g, radii)
    for i, prompt in enumerate(prompts):
        words = " - ".join(repr(_word(model, token)) for token in pairs[i])
        at = _At(prompt, words, x[i], g[i], cells[i], float(actual[0][i]), float(actual[1][i]))
        report = _report(wide, at, clamp)
        yield report(shape=shape, radius=float(radii[i]), optimum=optima[i], preactivations=fewer[i].value)


def _shape(sae: SAE, ball: Norm, resid: torch.Tensor, lengths: torch.Tensor) -> tuple[Shape, float | None]:
    """The ball's shape, and its unit of length; None for that of the residual."""
    if ball != "ellipsoid":
        return Shape(ball), None
    real = torch.arange(resid.shape[1]) < lengths[:, None]  # (B, T)
    found = error_ellipsoid(sae, resid[real])
    return Shape(ball, found.factor), found.typical


class _At(NamedTuple):
    """One prompt: text, readout in words, residual, gradient, held cell, and the readout of both runs."""

    prompt: str
    readout: str
    x: torch.Tensor
    g: Array
    cell: HeldCell
    base: float
    clamped: float


def _report(sae: SAE, at: _At, clamp: Clamp | None) -> Callable[..., TokenReport]:
    """All but the worst cases."""
    prompt, readout, x, g, cell, base, clamped = at
    active = active_features(sae, x)
    reached = span(sae, active)
    near = nearest_thresholds(cell, 3)
    size = float(np.linalg.norm(g))
    return partial(
        TokenReport,
        prompt=prompt,
        readout=readout,
        x=x.numpy(),
        g=g,
        cell=cell,
        active=len(active),
        error_share=float(sae.error(x).norm() / x.norm()) if bool(x.any()) else 0.0,
        free_dimensions=cell.width - cell.rank,
        unreachable_dimensions=cell.width - reached.dimension,
        gradient_free=float(np.linalg.norm(cell.free_part(g))) / size if size else 0.0,
        gradient_unreachable=float(reached.complement.share(g)) if size else 0.0,
        nearest=tuple(int(f) for f in near.feature),
        distances=tuple(float(v) for v in near.distance),
        recession=recession(cell),
        base=base,
        clamp=None if clamp is None else _clamp(sae, clamp, at, base - clamped),
    )


def _clamp(sae: SAE, clamp: Clamp, at: _At, lost: float) -> ClampReport:
    effect = clamp_effect(sae, clamp, at.x.numpy())
    back = None
    if lost > 0:
        back = restore(at.cell, at.g, lost, FAR * effect.norm_h, norm_h=effect.norm_h, norm_e=effect.norm_e)
    return ClampReport(
        effect=effect,
        clamped=at.clamped,
        undo=undone(at.cell, effect.effect),
        counterable=counterable(at.cell, effect.effect, at.g),
        restore=back,
        closing=closing_set(at.cell, at.g, sae.W_enc.T.numpy(), CLOSING),
    )


def _readouts(logits: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Logit differences of each prompt, as the model ran."""
    return [float(row[a] - row[b]) for row, (a, b) in zip(logits.detach().double().cpu(), pairs, strict=True)]


def _pair(model: Model, logits: torch.Tensor, readout: LogitDifference | None) -> tuple[int, int]:
    """Token ids of the readout."""
    if readout is None:
        first, second = logits.topk(2).indices.tolist()
        return first, second
    a, b = (
        token if isinstance(token, int) else token_id(model, token) for token in (readout.positive, readout.negative)
    )
    if a == b:
        raise InputError(f"the readout compares token {a} with itself", rule="two tokens must differ")
    return a, b


def _word(model: Model, token: int) -> str | int:
    if model.tokenizer is None:
        return token
    return model.tokenizer.decode([token])
