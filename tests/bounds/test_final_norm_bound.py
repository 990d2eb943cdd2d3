"""FinalNormBound: never below an admissible value, proven by its evidence, and exact where the theory says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from geometry.cells import KINDS, Case, admissible_samples, cases, cell_of, make_case, violation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sae_verify.bounds import Cap, FinalNormBound
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.instance import Instance, TokenReadout

from .instances import NORMS, excess, final_norm_of, instance_of, readout_at

METHOD = FinalNormBound()


def paid(instance: Instance) -> float:
    """What evidence above the cap costs: rounding on a ball far larger than sqrt(d epsilon) is paid for by epsilon."""
    dues = [0.0]
    for against in instance.members(8):
        w, shift = instance.functional(against)
        size, d_epsilon = float(np.linalg.norm(w)), len(w) * instance.final_norm.epsilon
        terms = float(np.abs(instance.row(against)) @ np.abs(instance.final_norm.shift))
        noise = 2.0**-40 * terms + 2.0**-48 * abs(shift) + 2.0**-51 * len(w) * size
        noise *= instance.norm_h + np.sqrt(d_epsilon) + instance.radius
        dues.append(2 * noise**2 / (d_epsilon * max(size, 1e-300)))
    return max(dues)


def build(
    case: Case, kind: str, seed: int, epsilon: float = 1e-5, size: float = 1.0, against_all: bool = False
) -> Instance:
    rng = np.random.default_rng(seed)
    d = case.cell.width
    norm, unembedding = final_norm_of(kind, d, rng, epsilon), rng.normal(size=(4, d))
    readout = TokenReadout(0, None if against_all else 1)
    return instance_of(size * rng.normal(size=d), unembedding, norm, case.cell, radius=case.radius, readout=readout)


def scale(instance: Instance) -> float:
    """The size of the readout's range: ||w|| + |b|, over the family."""
    pairs = [instance.functional(against) for against in instance.members(8)]
    return max(float(np.linalg.norm(w)) + abs(b) for w, b in pairs)


def swapped(instance: Instance) -> Instance:
    """Tokens exchanged, so that levels change sign."""
    return dataclasses.replace(instance, unembedding=instance.unembedding[[1, 0, 2, 3]])


def with_claim(instance: Instance, tau: float) -> Instance:
    return dataclasses.replace(instance, tau=tau)


problems = st.builds(
    build,
    cases(max_width=6, radii=(1e-3, 0.1, 1.0, 1.0, 10.0, 1e3)).filter(lambda c: c.cell.width > 1),
    st.sampled_from(NORMS),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-12, 1e-5, 0.1, 1.0]),
    st.sampled_from([0.1, 1.0, 1.0, 10.0]),
    st.booleans(),
)
practical = problems.filter(lambda instance: instance.radius <= 100 * instance.norm_h)


@given(practical)
@example(build(make_case("random", 0, 2, 0, 0, 1000.0), "layer", 74509, 1e-12, 10.0, False))
@settings(max_examples=60)
def test_bound_is_sound_proven_and_below_the_cap(instance: Instance) -> None:
    for one in (instance, swapped(instance)):
        bound = METHOD.bound(one, one.radius)
        assert bound.radius == one.radius
        assert excess(one, bound) <= 0
        samples = admissible_samples(one.outer, one.radius, 100, 0)
        reached = float(readout_at(one, np.concatenate([samples, np.zeros((1, len(one.h)))])).max())
        assert reached <= bound.value + 1e-12 * scale(one)
        assert bound.value <= Cap().bound(one, 0.0).value + 1e-6 * scale(one) + paid(one)


@given(practical)
@settings(max_examples=40)
def test_radius_zero_is_the_value(instance: Instance) -> None:
    here = float(readout_at(instance, np.zeros_like(instance.h)))
    bound = METHOD.bound(instance, 0.0)
    assert excess(instance, bound) <= 0
    assert here - 1e-12 * scale(instance) <= bound.value <= here + 1e-9 * scale(instance)


@given(practical, st.floats(0.0, 1.0))
@settings(max_examples=30)
def test_monotone_in_the_radius(instance: Instance, share: float) -> None:
    values = [METHOD.bound(instance, share * instance.radius).value, METHOD.bound(instance, instance.radius).value]
    assert values[0] <= values[1] + 1e-7 * scale(instance)


@given(practical)
@settings(max_examples=30)
def test_holding_more_never_raises_the_bound(instance: Instance) -> None:
    cell = instance.outer
    families = [(h.sign, h.normals[::2], h.slack[::2]) for h in cell.half_spaces]
    fewer = dataclasses.replace(instance, outer=cell_of(cell.width, cell.equal[::2], *families))
    assert METHOD.bound(instance, 1.0).value <= METHOD.bound(fewer, 1.0).value + 1e-7 * scale(instance)


# --- against independent optimisers ---------------------------------------------------------------------------------


def slsqp(instance: Instance, cell: HeldCell, radius: float, seed: int, starts: int = 5) -> float:
    """The best admissible readout that a multi-start of scipy's SLSQP finds, in coordinates of the null space."""
    left = np.linalg.svd(np.eye(cell.width) - cell.basis @ cell.basis.T)[0][:, : cell.width - cell.rank]  # (d, free)
    limits = [{"type": "ineq", "fun": lambda y: radius**2 - y @ y, "jac": lambda y: -2 * y}]
    for half in cell.half_spaces:
        length = np.linalg.norm(half.normals, axis=1)
        there = np.isfinite(half.slack) & (np.linalg.norm(half.normals @ left, axis=1) > 1e-9 * length)
        rows, slack = half.sign * half.normals[there] @ left, half.slack[there]
        if len(rows):
            limits.append({"type": "ineq", "fun": lambda y, r=rows, s=slack: s - r @ y, "jac": lambda y, r=rows: -r})
    best = float(readout_at(instance, np.zeros(cell.width)))
    for start in [np.zeros((1, cell.width)), *admissible_samples(cell, radius, starts, seed)[:, None]]:
        found = minimize(
            lambda y: -float(readout_at(instance, left @ y)),
            start[0] @ left,
            method="SLSQP",
            constraints=limits,
            options={"ftol": 1e-14, "maxiter": 300},
        )
        delta = left @ found.x
        if violation(cell, delta, radius) <= 1e-8:  # its own tolerance; the comparison below allows for it
            best = max(best, float(readout_at(instance, delta)))
    return best


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("seed", range(6))
def test_exact_without_half_spaces(kind: str, seed: int) -> None:
    """Nothing or equalities held: the worst case is on the sphere, and the bound is exact for both signs."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(4, 7))
    equal = rng.normal(size=(seed % 3, d))
    if seed % 3 == 2:
        equal[0] = 1.0  # the mean direction itself
    case = Case("equalities", cell_of(d, equal), rng.normal(size=d), float(rng.choice([0.05, 0.5, 1.5])))
    for instance in (build(case, kind, seed, 1e-3), swapped(build(case, kind, seed, 1e-3))):
        bound = METHOD.bound(instance, case.radius)
        attacked = slsqp(instance, case.cell, case.radius, seed)
        assert attacked <= bound.value + 1e-7 * scale(instance)
        assert bound.value <= attacked + 2e-7 * scale(instance)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("seed", range(8))
def test_exact_with_half_spaces_above_the_constant(kind: str, seed: int) -> None:
    """Levels of at least zero: exact whatever holds the perturbation back."""
    rng = np.random.default_rng(100 + seed)
    case = make_case(KINDS[seed % len(KINDS)], seed, 5, 1, 8, float(rng.choice([0.3, 1.0, 3.0])))
    for instance in (build(case, kind, seed, 1e-2), swapped(build(case, kind, seed, 1e-2))):
        bound = METHOD.bound(instance, case.radius)
        attacked = slsqp(instance, case.cell, case.radius, seed, starts=8)
        assert attacked <= bound.value + 1e-7 * scale(instance)
        if bound.value >= instance.functional(None)[1]:
            assert bound.value <= attacked + 1e-5 * scale(instance)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("epsilon", [1e-9, 0.1])
def test_closed_form_without_a_cell(centred: bool, epsilon: float) -> None:
    """Nothing held: the worst case lies in the plane of w and Ph, where a dense circle finds it."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        d = 7
        norm = final_norm_of("layer" if centred else "rms", d, rng, epsilon)
        instance = instance_of(rng.normal(size=d), rng.normal(size=(2, d)), norm, cell_of(d))
        for radius in (0.1, 1.0, 2.0):
            w, constant = instance.functional(None)
            plane = np.linalg.qr(np.stack([w, norm.centre(instance.h)], axis=1))[0]  # (d, 2)
            angle = np.linspace(0, 2 * np.pi, 40001)
            reach = radius * np.array([1.0, 0.999, 0.5])[:, None, None]
            circle = reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (3, n, 2)
            dense = float(readout_at(instance, circle @ plane.T).max())
            value = METHOD.bound(instance, radius).value
            assert dense <= value + 1e-12 * scale(instance)
            assert value <= dense + 1e-7 * scale(instance), (seed, radius, constant)


def test_dense_sampling_in_two_dimensions() -> None:
    """RMSNorm in the plane, with half-spaces: every admissible point of a fine grid, both signs."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 801)] * 2), axis=-1).reshape(-1, 2)
    grid = grid[np.linalg.norm(grid, axis=1) <= 1]
    for seed in range(10):
        case = make_case("random", seed, 2, 0, 4, 1.0)
        for instance in (build(case, "rms", seed, 0.1, 2.0), swapped(build(case, "rms", seed, 0.1, 2.0))):
            inside = grid
            for half in case.cell.half_spaces:
                inside = inside[(half.sign * inside @ half.normals.T <= half.slack).all(axis=1)]
            dense = float(readout_at(instance, inside).max())
            value = METHOD.bound(instance, 1.0).value
            assert dense <= value + 1e-12
            if value >= 0:
                assert value <= dense + 0.03 * scale(instance)  # the grid's width


# --- special cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NORMS)
def test_equal_unembedding_rows(kind: str) -> None:
    """w = 0: the readout is constant."""
    rng = np.random.default_rng(0)
    norm, row = final_norm_of(kind, 4, rng), rng.normal(size=4)
    case = make_case("random", 0, 4, 1, 6, 1.0)
    instance = instance_of(rng.normal(size=4), np.stack([row, row]), norm, case.cell)
    for radius in (0.0, 1.0, 1e6):
        assert METHOD.bound(instance, radius).value == pytest.approx(0.0, abs=1e-12)
    bound = METHOD.certified(with_claim(instance, 0.0))
    assert bound is not None
    assert excess(instance, bound) <= 0
    assert METHOD.certified(with_claim(instance, -1e-3)) is None


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("radius", [1e2, 1e3, 1e5])
def test_huge_radius_reaches_the_supremum(kind: str, radius: float) -> None:
    """Nothing held: beyond ||h|| the state can point along w, and the bound tends to the cap from below."""
    rng = np.random.default_rng(1)
    norm = final_norm_of(kind, 5, rng)
    instance = instance_of(rng.normal(size=5), rng.normal(size=(2, 5)), norm, cell_of(5))
    w, constant = instance.functional(None)
    z = norm.centre(w / np.linalg.norm(w) * (radius - np.linalg.norm(instance.h)))
    reached = w @ z / np.sqrt(z @ z + 5 * norm.epsilon) + constant
    bound = METHOD.bound(instance, radius)
    cap = float(np.linalg.norm(w)) + constant
    assert excess(instance, bound) <= 0
    assert reached - 1e-12 * scale(instance) <= bound.value <= cap + 1e-9 * scale(instance)


@pytest.mark.parametrize(
    "far", [30.0, pytest.param(1e3, marks=pytest.mark.slow), pytest.param(1e5, marks=pytest.mark.slow)]
)
@given(instance=problems)
@settings(max_examples=8)
def test_far_beyond_the_state_the_bound_stays_sound_and_below_the_cap(instance: Instance, far: float) -> None:
    """Regression: the level search used to run away, to values millions of times the cap."""
    instance = dataclasses.replace(instance, radius=far * instance.norm_h)
    bound = METHOD.bound(instance, instance.radius)
    assert excess(instance, bound) <= 0
    # Evidence that survives rounding over so large a ball costs a little; the cap itself is intersected with.
    more = 1e-9 * scale(instance) + paid(instance) if far < 100 else 1e-3 * scale(instance)
    assert bound.value <= Cap().bound(instance, 0.0).value + more


def test_the_mean_direction_is_free_under_a_layer_norm() -> None:
    rng = np.random.default_rng(3)
    norm, unembedding, h = final_norm_of("layer", 5, rng), rng.normal(size=(2, 5)), rng.normal(size=5)
    ones, other = np.ones((1, 5)), rng.normal(size=(1, 5))
    for rows in (np.zeros((0, 5)), other):
        for order in (unembedding, unembedding[::-1].copy()):
            free = METHOD.bound(instance_of(h, order, norm, cell_of(5, rows)), 0.7)
            held = METHOD.bound(instance_of(h, order, norm, cell_of(5, np.vstack([rows, ones]))), 0.7)
            if len(rows):
                assert held.value <= free.value + 1e-9  # an equality couples the mean with the rest
            else:
                assert held.value == pytest.approx(free.value, abs=1e-8)
    half = (1.0, ones, np.zeros(1))  # a half-space on the mean alone takes nothing away either
    value = METHOD.bound(instance_of(h, unembedding, norm, cell_of(5, None, half)), 0.7).value
    assert value == pytest.approx(METHOD.bound(instance_of(h, unembedding, norm, cell_of(5)), 0.7).value, abs=1e-8)


def test_an_rms_norm_sees_the_mean_direction() -> None:
    rng = np.random.default_rng(3)
    norm, unembedding, h = final_norm_of("rms", 5, rng), rng.normal(size=(2, 5)), rng.normal(size=5)
    free = METHOD.bound(instance_of(h, unembedding, norm, cell_of(5)), 0.7).value
    assert METHOD.bound(instance_of(h, unembedding, norm, cell_of(5, np.ones((1, 5)))), 0.7).value < free - 1e-3


@pytest.mark.parametrize("kind", NORMS)
def test_token_against_all_is_the_best_member(kind: str) -> None:
    rng = np.random.default_rng(4)
    norm, unembedding = final_norm_of(kind, 5, rng), rng.normal(size=(6, 5))
    case = make_case("random", 4, 5, 1, 6, 0.5)
    h = rng.normal(size=5)
    instance = instance_of(h, unembedding, norm, case.cell, readout=TokenReadout(2, None))
    bound = METHOD.bound(instance, 0.5)
    members = [
        METHOD.bound(instance_of(h, unembedding, norm, case.cell, readout=TokenReadout(2, o)), 0.5).value
        for o in range(6)
        if o != 2
    ]
    assert bound.value == pytest.approx(min(members), abs=1e-9)
    assert bound.against not in (None, 2)
    assert excess(instance, bound) <= 0
    assert readout_at(instance, admissible_samples(case.cell, 0.5, 500, 0)).max() <= bound.value


def test_it_does_not_apply_with_blocks_after_the_hook() -> None:
    rng = np.random.default_rng(0)
    norm = final_norm_of("rms", 3, rng)
    assert not METHOD.applies(
        instance_of(rng.normal(size=3), rng.normal(size=(2, 3)), norm, cell_of(3), blocks_after=1)
    )


# --- the largest certified radius -----------------------------------------------------------------------------------


@given(practical, st.sampled_from([0.02, 0.3, 0.7]))
@settings(max_examples=40)
def test_certified_radius_fits_the_bound(instance: Instance, share: float) -> None:
    here, unit = float(readout_at(instance, np.zeros_like(instance.h))), scale(instance)
    top = METHOD.bound(instance, instance.radius).value
    one = with_claim(instance, here + share * (top - here) + 1e-4 * unit)
    bound = METHOD.certified(one)
    assert bound is not None
    assert bound.radius is not None
    assert bound.value <= one.tau
    assert excess(one, bound) <= 0
    assert METHOD.bound(one, bound.radius * (1 - 1e-6)).value <= one.tau + 1e-6 * unit
    if bound.radius < 999 * one.norm_h:
        # Tightness, not soundness. Far out the readout is all but flat in the radius, and the evidence less sharp.
        flat = bound.radius >= 100 * one.norm_h
        assert METHOD.bound(one, bound.radius * 1.001).value >= one.tau - (1e-3 if flat else 1e-6) * unit
    samples = admissible_samples(one.outer, bound.radius, 100, 0)
    assert readout_at(one, samples).max() <= one.tau + 1e-12 * unit


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_claims_at_the_constant(kind: str, seed: int) -> None:
    """Regression: at tau = b (every sign claim of an RMSNorm) the level is zero, and evidence of the wrong side was
    given, so that the certificate was refused.
    """
    case = make_case("random", seed, 5, 1, 6, 1.0)
    instance = build(case, kind, seed)
    w, constant = instance.functional(None)
    if w @ instance.h > 0:
        instance = swapped(instance)
        constant = instance.functional(None)[1]
    for tau in (constant, np.nextafter(constant, np.inf), np.nextafter(constant, -np.inf), constant + 1e-13, 0.0):
        bound = METHOD.certified(with_claim(instance, float(tau)))
        if bound is None:
            assert tau == 0.0 < constant or tau == 0.0 > constant
            continue
        assert bound.value <= tau
        assert excess(instance, bound) <= 0
        for wobble in (-1e-15, 0.0, 1e-15):  # a reader who sums the constant in another order sees the same side
            side = bound.value - constant + wobble * (1 + abs(constant)) >= 0
            if abs(bound.value - constant) < 1e-6:
                assert side == (bound.tangent is not None)


@pytest.mark.parametrize("kind", NORMS)
def test_claims_that_fail_at_zero_or_hold_everywhere(kind: str) -> None:
    instance = build(make_case("random", 0, 5, 1, 6, 1.0), kind, 0)
    here = float(readout_at(instance, np.zeros(5)))
    assert METHOD.certified(with_claim(instance, here - 1e-6)) is None
    cap = Cap().bound(instance, 0.0).value
    bound = METHOD.certified(with_claim(instance, cap + 1e-6))
    assert bound is not None
    assert bound.radius == pytest.approx(1e3 * instance.norm_h)


def test_flip_radius_of_an_rms_norm_in_closed_form() -> None:
    """The sign of w . (h + delta) flips at |w . h| / ||w_N||, N the null space of the equalities."""
    rng = np.random.default_rng(5)
    for seed in range(10):
        case = Case("equalities", cell_of(6, rng.normal(size=(seed % 4, 6))), rng.normal(size=6), 1.0)
        instance = build(case, "rms", seed)
        if instance.functional(None)[0] @ instance.h > 0:
            instance = swapped(instance)
        w = instance.functional(None)[0]
        bound = METHOD.certified(with_claim(instance, 0.0))
        assert bound is not None
        assert bound.radius == pytest.approx(abs(w @ instance.h) / np.linalg.norm(case.cell.free_part(w)), rel=1e-8)


def no_nans(array: Array | None) -> bool:
    return array is None or bool(np.isfinite(array).all())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_at_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    radius = float(10.0 ** rng.choice([-3, -1, 0, 0, 1, 3]))
    case = make_case(
        KINDS[seed % 8], seed, int(rng.integers(2, 9)), int(rng.integers(0, 6)), int(rng.integers(0, 12)), radius
    )
    instance = build(
        case,
        NORMS[(seed // 8) % 4],
        seed,
        float(rng.choice([1e-12, 1e-5, 0.1, 1.0])),
        float(rng.choice([0.1, 1, 10])),
        seed % 3 == 0,
    )
    for one in (instance, swapped(instance)):
        bound = METHOD.bound(one, radius)
        assert excess(one, bound) <= 0
        assert no_nans(bound.tangent)
        assert readout_at(one, admissible_samples(case.cell, radius, 500, seed)).max() <= bound.value + 1e-12 * scale(
            one
        )
        here = float(readout_at(one, np.zeros_like(one.h)))
        for tau in (here + 0.3 * (bound.value - here) + 1e-3 * scale(one), 0.0):
            found = METHOD.certified(with_claim(one, tau))
            if found is None:
                assert here > tau - 1e-6 * scale(one)
            else:
                assert found.value <= tau
                assert excess(one, found) <= 0
