"""One prompt's question in numbers: the residual, the defended state, the radius, the held cell, the readout.

A problem becomes a `Batch`: two runs of the real model (plain and clamped), one tail, and one `Instance` a prompt.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sae_verify.errors import InputError, TokenError
from sae_verify.geometry.cell_product import product
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell, within
from sae_verify.model import Edit, Prompts, Run, Tail, encode_prompts, make_tail, run, token_id
from sae_verify.model.operations import LayerNorm
from sae_verify.problem import LogitDifference, Problem, Readout
from sae_verify.sae.base import SAE
from sae_verify.sae.clamp import apply_clamp, clamp_positions, clamped


@dataclass(frozen=True)
class TokenReadout:
    """A readout by token ids; `negative` is None for one token against all others."""

    positive: int
    negative: int | None


@dataclass(frozen=True, eq=False)
class FinalNorm:
    """readout = gain * P(z) / rho . (U_a - U_b) + shift .

    (U_a - U_b), rho^2 = ||P z||^2 / d + epsilon; P centres or not.
    """

    centred: bool
    gain: Array  # (d,)
    shift: Array  # (d,)
    epsilon: float

    def centre(self, v: Array) -> Array:
        """P v, (..., d)."""
        return v - v.mean(axis=-1, keepdims=True) if self.centred else v

    def functional(self, row: Array) -> tuple[Array, float]:
        """(w, constant) with readout = w . P z / sqrt(||P z||^2 + d epsilon) + constant, for row = U_a - U_b, (d,)."""
        return self.centre(np.sqrt(len(row)) * self.gain * row), float(row @ self.shift)


@dataclass(frozen=True, eq=False)
class Place:
    """A perturbed position before the last: its residual x and defended state h, (d,) each, and its held cell."""

    x: Array
    h: Array
    outer: HeldCell


@dataclass(frozen=True, eq=False)
class Instance:
    """One prompt. A perturbation of several positions is one vector, position after position, the last one last.

    Attributes:
        index: of the prompt in the problem.
        tokens: the prompt.
        x: residual at the hook and the last position, from the run of the plain model, widened to float64, (d,).
        h: defended state, in float64 from x, (d,).
        context: residuals at the hook and the earlier positions, from the same run as x, (T - 1, d).
        norm_h: ||h||. norm_e: ||x - D(E(x))||.
        radius: in absolute units.
        outer, inner: held cells, for bounds that of the last position and for attacks that of all perturbed ones.
        readout: by token ids.
        tau: the claim is readout <= tau.
        base, defended: readout of the plain and of the clamped model, as run.
        blocks_after: transformer blocks between the hook and the final norm.
        final_norm: the end of the model.
        unembedding: (V, d) float64, shared by the batch.
        ranking: token ids by falling logit of the defended tail, for choosing members of a family.
        earlier: the perturbed positions before the last, in order.

    """

    index: int
    tokens: tuple[int, ...]
    x: Array
    h: Array
    norm_h: float
    norm_e: float
    radius: float
    outer: HeldCell
    inner: HeldCell
    readout: TokenReadout
    tau: float
    base: float
    defended: float
    blocks_after: int
    final_norm: FinalNorm
    unembedding: Array
    ranking: tuple[int, ...]
    context: Array = field(default_factory=lambda: np.zeros((0, 0)))
    earlier: tuple[Place, ...] = ()

    @property
    def start(self) -> Array:
        """The defended states of the perturbed positions, (positions d,): what a perturbation is added to."""
        return np.concatenate([*(place.h for place in self.earlier), self.h])

    @property
    def trivial(self) -> bool:
        """Whether what is held leaves no perturbation but zero."""
        return self.outer.trivial and all(place.outer.trivial for place in self.earlier)

    def functional(self, against: int | None) -> tuple[Array, float]:
        """(w, constant) of the final norm for the readout, or for the member `against` of its family."""
        return self.final_norm.functional(self.row(against))

    def row(self, against: int | None) -> Array:
        """U_a - U_b of the readout, or of the member `against` of its family, (d,)."""
        negative = self.readout.negative if against is None else against
        assert negative is not None
        return self.unembedding[self.readout.positive] - self.unembedding[negative]

    def members(self, at_most: int) -> tuple[int | None, ...]:
        """Members of the readout's family most likely to give the least bound; (None,) for a logit difference."""
        if self.readout.negative is not None:
            return (None,)
        return tuple(token for token in self.ranking if token != self.readout.positive)[:at_most]


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything about a problem that does not depend on the radius.

    Attributes:
        problem: the question.
        sae: in float64. run_sae: in the dtype that runs.
        prompts: tokens and lengths.
        tail: float64, from the hook to the logits, constants of the clamped run.
        instances: one a prompt.

    """

    problem: Problem
    sae: SAE
    prompts: Prompts
    tail: Tail
    instances: tuple[Instance, ...]

    @cached_property
    def h(self) -> Tensor:
        """Defended states of the perturbed positions, (B, positions d) float64."""
        return torch.from_numpy(np.stack([instance.start for instance in self.instances]))

    @cached_property
    def radii(self) -> Array:
        """Radii in absolute units, (B,)."""
        return np.array([instance.radius for instance in self.instances])

    def readout(self, resid: Tensor) -> Tensor:
        """The readout of the float64 tail, (B, R), for residuals (B, R, positions d); differentiable."""
        hidden = self.tail.hidden(resid)  # (B, R, d)
        if self._rows is not None:
            return torch.einsum("brd,bd->br", hidden, self._rows)
        logits = hidden @ self.tail.unembed.T  # (B, R, V)
        return readout_values(logits, tuple(instance.readout for instance in self.instances))

    @cached_property
    def _rows(self) -> Tensor | None:
        """Unembedding rows of the readouts, (B, d), when all are logit differences."""
        readouts = [instance.readout for instance in self.instances]
        if any(r.negative is None for r in readouts):
            return None
        positive = self.tail.unembed[[r.positive for r in readouts]]
        return positive - self.tail.unembed[[r.negative for r in readouts]]

    def within(self, radii: Array) -> Batch:
        """The same with inner cells that leave out what no ball of these radii, (B,), reaches."""
        near = (
            dataclasses.replace(instance, inner=within(instance.inner, float(radius)))
            for instance, radius in zip(self.instances, radii, strict=True)
        )
        return dataclasses.replace(self, instances=tuple(near))

    def select(self, indices: list[int]) -> Batch:
        """The same for some prompts."""
        chosen = torch.tensor(indices)
        lengths = self.prompts.lengths[chosen]
        return Batch(
            self.problem,
            self.sae,
            Prompts(self.prompts.tokens[chosen, : int(lengths.max())], lengths),
            self.tail.select(indices),
            tuple(self.instances[i] for i in indices),
        )


def readout_values(logits: Tensor, readouts: tuple[TokenReadout, ...]) -> Tensor:
    """Readouts of logits (B, ..., V), one readout a prompt: (B, ...)."""
    values = []
    for row, readout in zip(logits, readouts, strict=True):
        if readout.negative is not None:
            values.append(row[..., readout.positive] - row[..., readout.negative])
        else:
            others = row.index_fill(-1, torch.tensor([readout.positive], device=row.device), -torch.inf)
            values.append(row[..., readout.positive] - others.amax(dim=-1))
    return torch.stack(values)


def token_readout(problem: Problem, readout: Readout) -> TokenReadout:
    """Token ids of a readout.

    Raises:
        TokenError: a token is unknown, or not one token.
        InputError: both tokens are the same.

    """
    if isinstance(readout, LogitDifference):
        positive, negative = _token(problem, readout.positive), _token(problem, readout.negative)
        if positive == negative:
            raise InputError(f"the readout compares token {positive} with itself", rule="two tokens must differ")
        return TokenReadout(positive, negative)
    return TokenReadout(_token(problem, readout.token), None)


def _token(problem: Problem, token: str | int) -> int:
    if isinstance(token, str):
        return token_id(problem.model, token)
    if isinstance(token, bool) or not 0 <= token < problem.model.d_vocab:
        raise TokenError(f"token id {token!r}", rule=f"ids run from 0 to {problem.model.d_vocab - 1}")
    return token


def prepare(problem: Problem) -> Batch:
    """Run the model, plain and clamped, and gather what bounds and attacks need.

    Raises:
        InputError and its kinds for bad prompts or tokens; UnsupportedError; TailMismatchError.

    """
    model, hook, clamp = problem.model, problem.hook_point, problem.clamp
    readouts = tuple(token_readout(problem, readout) for readout in problem.readouts)
    prompts = encode_prompts(model, problem.prompts)
    _check_positions(problem, prompts)
    plain: Run = run(model, prompts, hook)
    count = problem.threat.positions
    tail, defended = make_tail(model, prompts, hook, clamp_edit(problem, prompts), count)
    sae = problem.sae.to(torch.float64)
    places = torch.arange(len(prompts))[:, None], prompts.ends(count)
    x = plain.resid[places].double().flatten(0, 1)  # (B positions, d)
    acts = clamp_positions(clamp, prompts.lengths, prompts.tokens.shape[1])[places].flatten()
    h = torch.where(acts[:, None], clamped(sae, clamp, x), x)
    error = sae.error(x)
    base = readout_values(plain.logits.double(), readouts)
    guarded = readout_values(defended.logits.double(), readouts)
    final = _final_norm(tail)
    unembedding = tail.unembed.numpy()
    ranking = defended.logits.argsort(dim=-1, descending=True)
    instances = []
    for i in range(len(prompts)):
        seen, inner = [], []
        for xi, hi in zip(*(states[i * count : (i + 1) * count].numpy() for states in (x, h)), strict=True):
            outer, cell = (
                held_cell(sae, problem.threat, problem.held_features, xi, hi, side) for side in ("outer", "inner")
            )
            seen.append(Place(xi, hi, outer))
            inner.append(_with_room(cell, float(np.linalg.norm(xi) + np.linalg.norm(hi))))
        *earlier, last = seen
        norm_h, norm_e = float(np.linalg.norm(last.h)), float(error[(i + 1) * count - 1].norm())
        unit = {"absolute": 1.0, "h": norm_h, "e": norm_e}[problem.threat.relative_to]
        radius = problem.threat.radius * unit
        instances.append(
            Instance(
                index=i,
                tokens=tuple(prompts.tokens[i, : int(prompts.lengths[i])].tolist()),
                x=last.x,
                h=last.h,
                context=plain.resid[i, : int(prompts.last[i])].double().numpy(),
                norm_h=norm_h,
                norm_e=norm_e,
                radius=radius,
                outer=last.outer,
                inner=product(inner),
                readout=readouts[i],
                tau=problem.claim.tau,
                base=float(base[i]),
                defended=float(guarded[i]),
                blocks_after=len(tail.blocks),
                final_norm=final,
                unembedding=unembedding,
                ranking=tuple(ranking[i, :64].tolist()),
                earlier=tuple(earlier),
            )
        )
    return Batch(problem, sae, prompts, tail, tuple(instances))


def _final_norm(tail: Tail) -> FinalNorm:
    norm = tail.final_norm
    centred = isinstance(norm, LayerNorm)
    shift = norm.bias.numpy() if centred else np.zeros(norm.gain.shape)
    return FinalNorm(centred, norm.gain.numpy(), shift, norm.epsilon)


def clamp_edit(problem: Problem, prompts: Prompts) -> Edit:
    """The clamp as an edit of the residuals at the hook, (B, T, d) -> (B, T, d), in the dtype that runs."""
    return lambda x: apply_clamp(problem.sae, problem.clamp, x, prompts.lengths)


def _check_positions(problem: Problem, prompts: Prompts) -> None:
    positions = problem.clamp.positions
    shortest = int(prompts.lengths.min())
    if isinstance(positions, tuple) and max(positions) >= shortest:
        raise InputError(
            f"the clamp acts at positions {positions} and a prompt has {shortest} tokens",
            rule="every clamped position must exist in every prompt",
            remedy="use positions='all' or 'last'",
        )
    if problem.threat.positions > shortest:
        raise InputError(
            f"{problem.threat.positions} positions are perturbed and a prompt has {shortest} tokens",
            rule="every perturbed position must exist in every prompt",
            remedy="perturb fewer, or leave that prompt out",
        )


RUN_ROUNDING = 2.0**-24
"""Unit roundoff of float32, in which the held features are checked when a witness is replayed."""


def _with_room(cell: HeldCell, length: float) -> HeldCell:
    """Slacks reduced by a typical float32 rounding of a pre-activation, so that features stay off when replayed.

    Whether they do is checked in the replay; a larger margin would cost the attack strength.
    """
    families = []
    for half in cell.half_spaces:
        margin = RUN_ROUNDING * length * np.linalg.norm(half.normals, axis=1)
        families.append(dataclasses.replace(half, slack=np.maximum(half.slack - margin, 0.0)))
    return HeldCell(cell.width, cell.equal, cell.rows, tuple(families))
