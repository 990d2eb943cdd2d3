"""Every property can fail: a deliberately wrong variant of each theorem, or of the code that computes it, is found.

`MUTANTS` is the list, with what is wrong in one line. Each is put in the place of the code under test and has to fall
within BUDGET attempts on the cases on which the true ones hold (test_properties.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from sae_verify.checker.independence import approximate_inverse, defect, rescaled
from sae_verify.errors import SaeVerifyError
from sae_verify.geometry.cell_recession import recession
from sae_verify.geometry.cell_size import inscribed_ball, nearest_thresholds
from sae_verify.geometry.clamp_effect import clamp_effect, undo
from sae_verify.geometry.closing import closes, closing_set
from sae_verify.geometry.cone import reach
from sae_verify.geometry.curve import free_until
from sae_verify.geometry.held_cell import Array, HeldCell, held_cell
from sae_verify.geometry.rank import ModularRank, rank
from sae_verify.geometry.sparse_code import sparse_code
from sae_verify.geometry.spectral_gap import singular_values_step
from sae_verify.geometry.subspace import complement
from sae_verify.geometry.whole_cone import WholeCone, whole_cone
from sae_verify.geometry.worst_case import worst_case
from sae_verify.sae import SAE, GatedSAE, JumpReLUSAE, TopKSAE
from sae_verify.sae.clamp import clamped
from sae_verify.testing.properties import (
    PROPERTIES,
    AllRadiusCapProperty,
    BypassCostProperty,
    CellSizeProperty,
    ConeMembershipProperty,
    DecoderBlindnessProperty,
    ErrorKeptProperty,
    FinalNormProperty,
    FirstOrderClosureProperty,
    HeldCellProperty,
    LinearDualProperty,
    ModularRankProperty,
    PinnedProperty,
    Property,
    SpectralGapProperty,
    UndoProperty,
    WholeConeProperty,
    WitnessNearbyProperty,
)
from sae_verify.testing.properties.all_radius_cap import capped
from sae_verify.testing.properties.final_norm import bounded
from sae_verify.testing.properties.linear_dual import dual_value
from sae_verify.testing.properties.spectral_gap import claims

from .library import BUDGET, attack


@dataclass(frozen=True)
class Mutant:
    """A property with one wrong part, what is wrong, and the architectures where it matters."""

    theorem: Property
    wrong: str
    architectures: tuple[str, ...] = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")

    def __str__(self) -> str:
        return f"{self.theorem.name}: {self.wrong}"


# --- cells ----------------------------------------------------------------------------------------------------------


def with_slack(change: Callable[[SAE, Array, Array], Array]) -> Callable[..., HeldCell]:
    """held_cell with other slacks; `change` gets the SAE, x and the true slack, all in float64."""

    def cells(sae: SAE, threat: Any, chosen: Any, x: Array, h: Array, side: Any) -> HeldCell:
        cell = held_cell(sae, threat, chosen, x, h, side)
        families = tuple(replace(half, slack=change(sae, x, half.slack)) for half in cell.half_spaces)
        return replace(cell, half_spaces=families)

    return cells


def kth(sae: SAE, x: Array, place: int) -> tuple[float, Array, Array]:
    """The score of that rank from above, scores and norms of a TopK SAE."""
    assert isinstance(sae, TopKSAE)
    scores = sae.scores(torch.from_numpy(x)).numpy()
    norms = sae.W_dec.norm(dim=1).numpy() if sae.rescale_by_decoder_norm else np.ones(sae.d_sae)
    return float(np.sort(scores)[::-1][min(place, len(scores)) - 1]), scores, norms


def without_threshold(sae: SAE, x: Array, slack: Array) -> Array:
    assert isinstance(sae, JumpReLUSAE)
    theta = sae.threshold.clamp(min=0).numpy() / sae.normalization.linear_scale("a test")
    return np.maximum(slack - theta, 0.0)


def unclipped_threshold(sae: SAE, x: Array, slack: Array) -> Array:
    assert isinstance(sae, JumpReLUSAE)
    return np.maximum(slack + sae.threshold.clamp(max=0).numpy() / sae.normalization.linear_scale("a test"), 0.0)


def from_the_next_score(sae: SAE, x: Array, slack: Array) -> Array:
    level, scores, norms = kth(sae, x, sae.k + 1)  # type: ignore[attr-defined]
    wrong = (max(0.0, level) - scores) / norms / sae.normalization.linear_scale("a test")
    return np.where(np.isfinite(slack), np.maximum(wrong, 0.0), slack)


def from_a_negative_level(sae: SAE, x: Array, slack: Array) -> Array:
    level, scores, norms = kth(sae, x, sae.k)  # type: ignore[attr-defined]
    wrong = (level - scores) / norms / sae.normalization.linear_scale("a test")
    return np.where(np.isfinite(slack), np.maximum(wrong, 0.0), slack)


def in_units_of_the_score(sae: SAE, x: Array, slack: Array) -> Array:
    return slack * kth(sae, x, 1)[2]


def narrower_of_gate_and_magnitude(sae: SAE, x: Array, slack: Array) -> Array:
    assert isinstance(sae, GatedSAE)
    point = torch.from_numpy(x)
    gate, size = -sae.pre_activations(point), -sae.magnitudes(point) / sae.r_mag.exp()
    wrong = torch.minimum(gate, size).clamp(min=0).numpy() / sae.normalization.linear_scale("a test")
    return np.where(np.isfinite(slack), wrong, slack)


def of_the_input_scale(sae: SAE, x: Array, slack: Array) -> Array:
    return slack * sae.normalization.linear_scale("a test")


def wrong_sign(sae: SAE, threat: Any, chosen: Any, x: Array, h: Array, side: Any) -> HeldCell:
    cell = held_cell(sae, threat, chosen, x, h, side)
    return replace(cell, half_spaces=tuple(replace(half, sign=-half.sign) for half in cell.half_spaces))


def decoder_projector(sae: SAE, threat: Any, chosen: Any, x: Array, h: Array, side: Any) -> HeldCell:
    cell = held_cell(sae, threat, chosen, x, h, side)
    return replace(cell, equal=sae.W_dec.numpy()[[row.feature for row in cell.rows]])


def active_forgotten(sae: SAE, threat: Any, chosen: Any, x: Array, h: Array, side: Any) -> HeldCell:
    cell = held_cell(sae, threat, chosen, x, h, side)
    return replace(cell, equal=cell.equal[1:], rows=cell.rows[1:])


def outer_taken_for_inner(sae: SAE, threat: Any, chosen: Any, x: Array, h: Array, side: Any) -> HeldCell:
    return held_cell(sae, threat, chosen, x, h, "outer")


HELD = [
    (with_slack(without_threshold), "slack without the threshold", ("jumprelu",)),
    (with_slack(unclipped_threshold), "negative thresholds that do not act as zero", ("jumprelu",)),
    (with_slack(from_the_next_score), "TopK slack from the (k+1)-th score", ("topk", "topk-rescaled")),
    (with_slack(from_a_negative_level), "TopK level that may be negative", ("topk", "topk-rescaled")),
    (with_slack(in_units_of_the_score), "rescaled scores not divided by the row's length", ("topk-rescaled",)),
    (with_slack(narrower_of_gate_and_magnitude), "gate and magnitude both below, not either", ("gated",)),
    (with_slack(of_the_input_scale), "slack in units of the scaled input", ("relu", "jumprelu", "gated")),
    (wrong_sign, "half-spaces with the wrong sign", ("relu", "jumprelu", "topk", "gated")),
    (decoder_projector, "projector of the decoder instead of the encoder", ("relu", "jumprelu", "topk", "gated")),
    (active_forgotten, "one active feature is not held", ("relu", "jumprelu", "topk", "gated")),
    (outer_taken_for_inner, "some features of a TopK SAE held by their equalities alone", ("topk", "topk-rescaled")),
]


# --- linear worst cases and the final norm --------------------------------------------------------------------------


def no_ball(cell: HeldCell, g: Array, radius: float, equal: Array, upper: Any) -> float:
    return dual_value(cell, g, 0.0, equal, upper)


def no_slack(cell: HeldCell, g: Array, radius: float, equal: Array, upper: Any) -> float:
    families = tuple(replace(half, slack=np.zeros_like(half.slack)) for half in cell.half_spaces)
    return dual_value(replace(cell, half_spaces=families), g, radius, equal, upper)


def half_the_ball(cell: HeldCell, g: Array, radius: float, equal: Array, upper: Any) -> float:
    return dual_value(cell, g, 0.5 * radius, equal, upper)


def negative_multipliers(cell: HeldCell, g: Array, radius: float, equal: Array, upper: Any) -> float:
    """The best of nu and of one -nu_j beyond, as if their sign did not matter."""
    best = dual_value(cell, g, radius, equal, upper)
    for half in cell.half_spaces:
        for j in np.flatnonzero(np.isfinite(half.slack))[:20]:
            square = float(half.normals[j] @ half.normals[j])
            if square > 0:
                rest = g - equal @ cell.equal
                nu = half.sign * float(half.normals[j] @ rest) / square
                single = tuple((np.array([j]), np.array([nu])) if h is half else no_rows() for h in cell.half_spaces)
                best = min(best, dual_value(cell, g, radius, equal, single))
    return best


def no_rows() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=np.intp), np.zeros(0)


def solved_too_early(cell: HeldCell, g: Array, radius: float) -> Any:
    found = worst_case(cell, g, radius)
    return replace(found, dual=found.value * (1.0 - 1e-6))


def smaller_ball(instance: Any, radius: float) -> Any:
    return bounded(instance, 0.9 * radius)


def with_norm(bound: Callable[..., Any], **change: Any) -> Callable[..., Any]:
    """The bound for another final norm; `change` maps its fields."""

    def wrong(instance: Any, *radius: float) -> Any:
        norm = instance.final_norm
        other = replace(norm, **{name: of(getattr(norm, name)) for name, of in change.items()})
        return bound(replace(instance, final_norm=other), *radius)

    return wrong


def mean_square_for_square(instance: Any) -> Any:
    found, size = capped(instance), np.sqrt(len(instance.x))
    _, constant = instance.functional(found.against)
    return replace(found, value=constant + (found.value - constant) / size)


# --- bypasses -------------------------------------------------------------------------------------------------------


def count_of_active(cell: HeldCell) -> int:
    return min(len(cell.equal), cell.width)


def readout_as_it_is(cell: HeldCell, g: Array) -> Array:
    return g


def one_row_after_the_other(cell: HeldCell, g: Array) -> Array:
    """Each row's own part taken off, as if the rows were orthogonal."""
    size = np.linalg.norm(cell.equal, axis=1)
    unit = cell.equal[size > 0] / size[size > 0, None]
    return g - (unit @ g) @ unit


def more_than_attained(cell: HeldCell, g: Array, radius: float) -> Any:
    found = worst_case(cell, g, radius)
    return replace(found, value=found.value * (1.0 + 1e-6))


def never_ends(cell: HeldCell, g: Array) -> float:
    return np.inf


def until_the_whole_readout(cell: HeldCell, g: Array) -> float:
    return free_until(HeldCell(cell.width, cell.equal[:0], (), cell.half_spaces), g)


def either_sign(cell: HeldCell, g: Array) -> float:
    return min(free_until(cell, g), free_until(cell, -g))


# --- rank, spectrum, independence -----------------------------------------------------------------------------------


def count_of_rows(rows: Array) -> bool:
    return len(rescaled(rows)) >= rows.shape[1]


def right_inverse(rows: Array) -> bool:
    scaled = rescaled(rows)
    return bool(scaled.size) and bool(defect(scaled, approximate_inverse(scaled)) < 1.0)


def largest_entry(rows: Array) -> bool:
    scaled = rescaled(rows)
    if not scaled.size:
        return False
    miss = approximate_inverse(scaled) @ scaled - np.eye(rows.shape[1])
    return bool(np.abs(miss).max() < 1.0 - 1e-9)


def no_defect(rows: Array) -> float:
    return float(np.linalg.norm(np.linalg.pinv(rows)))


def largest_singular_value(rows: Array) -> float:
    return 1.0 / max(float(np.linalg.norm(rows, 2)), 1e-300) if rows.size else 0.0


def as_found(rows: Array, chosen: Array, columns: Array) -> ModularRank:
    return ModularRank(len(chosen), min(rows.shape), chosen, columns, 3)


def rank_by_counting(rows: Array) -> ModularRank:
    there = np.flatnonzero(rows.any(axis=1))[: rows.shape[1]]
    return as_found(rows, there, np.arange(len(there)))


def rank_of_mantissas(rows: Array) -> ModularRank:
    """Powers of two forgotten in the residues."""
    return rank(np.frexp(rows)[0])


def rank_of_floats(rows: Array) -> ModularRank:
    """Singular values that are not exactly zero."""
    count = int((np.linalg.svd(rows, compute_uv=False) > 0).sum())
    return as_found(rows, np.arange(count), np.arange(count))


def claimed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    return lambda *arguments: change(claims(*arguments))


def scaled(key: str, factor: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda step: step if step[key] is None else step | {key: factor * step[key]}


def squared(step: dict[str, Any]) -> dict[str, Any]:
    return step if step["at_least"] is None else step | {"at_least": step["at_least"] ** 2}


def one_fewer(step: dict[str, Any]) -> dict[str, Any]:
    return step | {"vectors": step["vectors"][1:]} if step["vectors"] else step


def sides_confused(sae: SAE, features: Array, matrix: Any, relative: float) -> dict[str, Any]:
    step = singular_values_step(sae, features, matrix=matrix, relative=relative)
    return step | {"side": "directions"}


# --- cones ----------------------------------------------------------------------------------------------------------


def farther(rows: Array, x: Array, **asked: Any) -> Any:
    found = reach(rows, x, **asked)
    if found.separation is None:
        return found
    return replace(found, separation=replace(found.separation, distance=found.separation.distance * (1 + 1e-6)))


def bounds_halved(rows: Array, x: Array, *, upper: Any, total: Any) -> Any:
    return reach(rows, x, upper=None if upper is None else 0.5 * upper, total=total)


def total_forgotten(rows: Array, x: Array, *, upper: Any, total: Any) -> Any:
    return reach(rows, x, upper=upper)


def wrong_residual(rows: Array, x: Array, **asked: Any) -> Any:
    found = reach(rows, x, **asked)
    return replace(found, member=replace(found.member, residual=0.999 * found.member.residual))


def one_feature_fewer(rows: Array, x: Array, active: int, **asked: Any) -> Any:
    return sparse_code(rows, x, max(active - 1, 0), **asked)


def spanning_is_enough(rows: Array) -> WholeCone:
    """A cone is everything when its rows span, as if features could be negative."""
    found = whole_cone(rows)
    if np.linalg.matrix_rank(rows) < rows.shape[1]:
        return found
    return replace(found, whole=True, total=found.total or 1.0, separated=None)


def cheaper(rows: Array) -> WholeCone:
    """The sum of a code of length 1 for the reached vector alone: every weight as small as it can be."""
    found = whole_cone(rows)
    least = float(np.max(np.linalg.norm(rows, axis=1), initial=1e-300))
    return replace(found, total=0.5 / least) if found.whole else found


def missed_by_more(rows: Array) -> WholeCone:
    found = whole_cone(rows)
    if found.separated is None or found.separated.separation is None:
        return found
    separation = replace(found.separated.separation, distance=1.001)
    return replace(found, separated=replace(found.separated, separation=separation))


# --- the cell's size, and what closes a readout ---------------------------------------------------------------------


def second_nearest(cell: HeldCell) -> float:
    distance = nearest_thresholds(cell, 2).distance
    return float(distance[-1]) if len(distance) else np.inf


def without_projection(cell: HeldCell, count: int) -> Any:
    """Distances slack / ||w_j|| instead of slack / ||P w_j||."""
    free = nearest_thresholds(HeldCell(cell.width, cell.equal[:0], (), cell.half_spaces), count)
    return replace(nearest_thresholds(cell, count), distance=free.distance[: len(nearest_thresholds(cell, count))])


def larger_ball(cell: HeldCell, limit: float) -> Any:
    found = inscribed_ball(cell, limit)
    return replace(found, radius=1.001 * found.radius)


def nearer_end(cell: HeldCell) -> Any:
    """A hundredth: the radius that is proven may be far above the least one."""
    found = recession(cell)
    return found if found.radius is None else replace(found, radius=0.01 * found.radius)


def backwards(cell: HeldCell) -> Any:
    found = recession(cell)
    return found if found.direction is None else replace(found, direction=-found.direction)


def rows_as_they_are(cell: HeldCell, g: Array, rows: Array, chosen: list[int]) -> Any:
    """What single rows explain, summed, as if they were orthogonal."""
    found = closes(cell, g, rows, chosen)
    size = np.linalg.norm(rows[chosen], axis=1)
    unit = rows[chosen] / np.where(size > 0, size, 1.0)[:, None]
    explained = float(((unit @ cell.free_part(g)) ** 2).sum())
    left = max(float(cell.free_part(g) @ cell.free_part(g)) - explained, 0.0)
    return replace(found, reach=float(np.sqrt(left)))


def share_squared(cell: HeldCell, g: Array, rows: Array, at_most: int) -> Any:
    found = closing_set(cell, g, rows, at_most)
    return replace(found, shares=found.shares**2)


def one_more_needed(cell: HeldCell, g: Array, rows: Array, at_most: int) -> Any:
    found = closing_set(cell, g, rows, at_most)
    return replace(found, at_least=found.at_least + 1)


# --- clamps ---------------------------------------------------------------------------------------------------------


def error_dropped(sae: SAE, setting: Any, x: torch.Tensor) -> torch.Tensor:
    return clamped(sae, replace(setting, kind="drop-error"), x) if setting.kind == "set" else clamped(sae, setting, x)


def written_by_the_encoder(sae: SAE, setting: Any, x: torch.Tensor) -> torch.Tensor:
    tied = replace(sae, W_dec=sae.W_enc.T.contiguous()) if not isinstance(sae, TopKSAE) else sae
    return x + clamped(tied, setting, x) - x


def unscaled(sae: SAE, setting: Any, x: torch.Tensor) -> torch.Tensor:
    """What is written is not taken back to the units of the residual."""
    return x + (clamped(sae, setting, x) - x) * sae.normalization.linear_scale("a test")


def neighbour_too(sae: SAE, setting: Any, x: torch.Tensor) -> torch.Tensor:
    """One feature more is written than was asked for."""
    return clamped(sae, setting, x) + 1e-6 * sae.W_dec[(setting.features[0] + 1) % sae.d_sae]


def encoder_complement(sae: SAE, features: Any) -> Any:
    return complement(sae, features, matrix="encoder")


def everything_orthogonal(sae: SAE, features: Any) -> Any:
    return complement(sae, list(features)[1:])


def undone_twice(cell: HeldCell, effect: Array) -> Any:
    found = undo(cell, effect)
    return replace(found, delta=-found.delta)


def half_way(cell: HeldCell, effect: Array) -> Any:
    found = undo(cell, effect)
    if found.admissible:
        return found
    return replace(found, nearest=0.999 * found.nearest)


def from_the_reconstruction(sae: SAE, setting: Any, x: Array) -> Any:
    found = clamp_effect(sae, setting, x)
    return replace(found, effect=found.h - sae.reconstruct(torch.from_numpy(x)).numpy())


MUTANTS = [
    *(Mutant(HeldCellProperty(cells), wrong, where) for cells, wrong, where in HELD),
    Mutant(LinearDualProperty(dual=no_ball), "dual without the ball term"),
    Mutant(LinearDualProperty(dual=no_slack), "multipliers of half-spaces cost nothing"),
    Mutant(LinearDualProperty(dual=half_the_ball), "half the radius"),
    Mutant(LinearDualProperty(dual=negative_multipliers), "multipliers of half-spaces of either sign"),
    Mutant(LinearDualProperty(solve=solved_too_early), "a dual value a millionth below the primal one"),
    Mutant(LinearDualProperty(cells=decoder_projector), "projector of the decoder instead of the encoder"),
    Mutant(LinearDualProperty(cells=wrong_sign), "half-spaces with the wrong sign"),
    Mutant(LinearDualProperty(cells=with_slack(without_threshold)), "slack without the threshold", ("jumprelu",)),
    Mutant(BypassCostProperty(rank=count_of_active), "as many dimensions taken away as features are on"),
    Mutant(BypassCostProperty(free=readout_as_it_is), "||g|| instead of ||P g||"),
    Mutant(BypassCostProperty(free=one_row_after_the_other), "rows projected out as if they were orthogonal"),
    Mutant(BypassCostProperty(cells=decoder_projector), "projector of the decoder instead of the encoder"),
    Mutant(BypassCostProperty(cells=active_forgotten), "one active feature is not held"),
    Mutant(BypassCostProperty(solve=more_than_attained), "a worst case a millionth larger than attained"),
    Mutant(BypassCostProperty(until=never_ends), "half-spaces that never bind"),
    Mutant(BypassCostProperty(until=until_the_whole_readout), "half-spaces met along g instead of P g"),
    Mutant(BypassCostProperty(until=either_sign), "half-spaces of either sign"),
    Mutant(AllRadiusCapProperty(mean_square_for_square), "without sqrt(d)"),
    Mutant(AllRadiusCapProperty(with_norm(capped, gain=np.ones_like)), "the norm's gain left out"),
    Mutant(AllRadiusCapProperty(with_norm(capped, shift=np.zeros_like)), "the norm's shift left out"),
    Mutant(FinalNormProperty(bound=with_norm(bounded, gain=np.ones_like)), "the norm's gain left out"),
    Mutant(FinalNormProperty(bound=with_norm(bounded, centred=lambda _: False)), "the mean not removed"),
    Mutant(FinalNormProperty(bound=smaller_ball), "nine tenths of the radius"),
    Mutant(FinalNormProperty(cells=decoder_projector), "projector of the decoder instead of the encoder"),
    Mutant(PinnedProperty(count_of_rows), "as many different rows as dimensions"),
    Mutant(PinnedProperty(right_inverse), "a right inverse instead of a left one"),
    Mutant(PinnedProperty(largest_entry), "the defect's largest entry instead of its norm"),
    Mutant(WitnessNearbyProperty(distance=no_defect), "dependent rows not refused"),
    Mutant(WitnessNearbyProperty(distance=largest_singular_value), "the largest singular value for the least"),
    Mutant(ModularRankProperty(rank_by_counting), "rows that are not zero"),
    Mutant(ModularRankProperty(rank_of_mantissas), "residues without their powers of two"),
    Mutant(ModularRankProperty(rank_of_floats), "float singular values that are not zero"),
    Mutant(SpectralGapProperty(claimed(scaled("at_least", 1.001))), "a lower side a thousandth too high"),
    Mutant(SpectralGapProperty(claimed(scaled("at_most", 0.99))), "an upper side a hundredth too low"),
    Mutant(SpectralGapProperty(claimed(squared)), "eigenvalues of the Gram matrix for singular values"),
    Mutant(SpectralGapProperty(claimed(one_fewer)), "one small singular value forgotten"),
    Mutant(SpectralGapProperty(sides_confused), "directions that no row has are forgotten"),
    Mutant(ConeMembershipProperty(nearest=farther), "a distance a millionth too large"),
    Mutant(ConeMembershipProperty(nearest=bounds_halved), "bounds on the code halved"),
    Mutant(ConeMembershipProperty(nearest=total_forgotten), "the bound on the code's sum forgotten"),
    Mutant(ConeMembershipProperty(nearest=wrong_residual), "a residual a thousandth too small"),
    Mutant(ConeMembershipProperty(sparse=one_feature_fewer), "one active feature fewer than allowed"),
    Mutant(WholeConeProperty(spanning_is_enough), "rows that span are taken for a cone that is everything"),
    Mutant(WholeConeProperty(cheaper), "the cost of the cheapest vector for that of all"),
    Mutant(WholeConeProperty(missed_by_more), "a vector that is farther away than it is long"),
    Mutant(CellSizeProperty(inner=second_nearest), "the second nearest threshold"),
    Mutant(CellSizeProperty(nearest=without_projection), "whole columns instead of their free parts"),
    Mutant(CellSizeProperty(ball=larger_ball), "a ball a thousandth too large"),
    Mutant(CellSizeProperty(far=nearer_end), "a hundredth of the outer radius"),
    Mutant(CellSizeProperty(far=backwards), "the direction without end turned round"),
    Mutant(CellSizeProperty(cells=wrong_sign), "half-spaces with the wrong sign"),
    Mutant(FirstOrderClosureProperty(one=rows_as_they_are), "rows that are not orthogonal counted as if they were"),
    Mutant(FirstOrderClosureProperty(smallest=share_squared), "squared shares"),
    Mutant(FirstOrderClosureProperty(smallest=one_more_needed), "one more feature said to be needed"),
    Mutant(FirstOrderClosureProperty(cells=decoder_projector), "projector of the decoder instead of the encoder"),
    Mutant(DecoderBlindnessProperty(apply=written_by_the_encoder), "encoder columns written instead of decoder rows"),
    Mutant(DecoderBlindnessProperty(apply=neighbour_too), "a neighbour's row written too"),
    Mutant(DecoderBlindnessProperty(orthogonal=encoder_complement), "the encoder's blind directions"),
    Mutant(DecoderBlindnessProperty(orthogonal=everything_orthogonal), "one clamped row forgotten"),
    Mutant(ErrorKeptProperty(error_dropped), "a clamp that drops the error term"),
    Mutant(ErrorKeptProperty(unscaled), "what is written in units of the scaled input"),
    Mutant(ErrorKeptProperty(neighbour_too), "a neighbour's row written too"),
    Mutant(UndoProperty(back=undone_twice), "the clamp applied again instead of taken back"),
    Mutant(UndoProperty(back=half_way), "nearly the nearest perturbation"),
    Mutant(UndoProperty(effect=from_the_reconstruction), "the effect measured from the reconstruction"),
    Mutant(UndoProperty(cells=decoder_projector), "projector of the decoder instead of the encoder"),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_wrong_variant_is_found(mutant: Mutant) -> None:
    attempts, found = attack(mutant.theorem, BUDGET, mutant.architectures)
    assert found is not None, f"{mutant} survived {attempts} attempts"
    assert found.witness


def test_every_theorem_has_mutants() -> None:
    assert {m.theorem.name for m in MUTANTS} == {p.name for p in PROPERTIES}
    assert len({str(m) for m in MUTANTS}) == len(MUTANTS)


def test_package_errors_are_no_counter_examples() -> None:
    """A refusal is not a claim: cones of rows beyond the range of squares."""

    def refuses(*_: Any, **__: Any) -> Any:
        raise SaeVerifyError("no")

    with pytest.raises(SaeVerifyError):
        attack(replace(LinearDualProperty(), solve=refuses), 3)
