"""Regions: every point of a region is in its frame, cuts keep what lies beyond them, and splits cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.proof import Split, beyond, parted
from sae_verify.checker.tail.readout import Affine
from sae_verify.checker.tail.region import Region
from sae_verify.checker.tail.relaxation import Relaxation, free_basis

SEEDS = st.integers(0, 10**6)
RADII = st.sampled_from([1e-9, 0.3, 1.0, 1e8])


def unit(rng: np.random.Generator, k: int) -> Array:
    n = rng.normal(size=k)
    return n / np.linalg.norm(n)


def inside(region: Region, points: Array) -> Array:
    """Which of the points (N, k) lie in the region, in exact reals but for rounding: those near an end are left out."""
    shares = points @ region.axes
    margin = 1e-12 * region.radius
    good = (shares >= region.low + margin) & (shares <= region.high - margin)
    return good.all(axis=1) & (np.linalg.norm(points, axis=1) <= region.radius * (1 - 1e-13))


def assert_covered(region: Region, points: Array) -> None:
    """Each of the points has coordinates in the domain of the frame, up to its slip."""
    frame = region.frame()
    points = points[inside(region, points)]
    if not len(points):
        return
    assert frame is not None
    m, k = frame.box.shape[1], points.shape[1]
    widths = np.linalg.norm(frame.columns, axis=0)
    s = (points - frame.centre) @ frame.columns / np.square(widths)  # orthogonal columns
    slip = (frame.slip + 1e-14 * region.radius) / widths
    assert (np.abs(s[:, :m]) <= 1 + slip[:m]).all()
    if m < k:
        assert (np.linalg.norm(s[:, m:], axis=1) <= 1 + slip[m]).all()
    assert (
        np.linalg.norm(points - frame.centre - s @ frame.columns.T, axis=1) <= frame.slip + 1e-14 * region.radius
    ).all()


def points_in(rng: np.random.Generator, k: int, radius: float, axes: Array, count: int = 600) -> Array:
    """All over the ball, much of it near its surface, near the axes, and near the ends of what the axes say."""
    y = rng.normal(size=(count, k))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    near = axes.shape[1] and rng.integers(axes.shape[1], size=count)
    if axes.shape[1]:
        y[::2] += 3 * axes.T[near][::2] * rng.choice([-1, 1], (len(y[::2]), 1)) * rng.random((len(y[::2]), 1))
        y /= np.linalg.norm(y, axis=1, keepdims=True)
    return radius * y * (1 - 1e-12) * np.where(rng.random((count, 1)) < 0.6, 1.0, rng.random((count, 1)) ** (1 / k))


@given(SEEDS, st.integers(1, 6), RADII)
def test_chains_of_cuts_and_splits(seed: int, k: int, radius: float) -> None:
    """Also in so few dimensions that the axes come to span the space, and with axes nearly parallel."""
    rng = np.random.default_rng(seed)
    region = Region.whole(k, radius)
    normal = unit(rng, k)
    everything = points_in(rng, k, radius, np.eye(k))
    for _ in range(6):
        kept = everything[inside(region, everything)]
        if rng.random() < 0.3 and region.axes.shape[1]:
            axis = int(rng.integers(region.axes.shape[1]))
            at = tuple(sorted(radius * rng.uniform(-1, 1, int(rng.integers(1, 4)))))
            parts = region.split(axis, at)
            assert (
                sum(np.where(inside(p, kept), 1, 0) for p in parts) >= away(kept, region.axes[:, axis], at, radius)
            ).all()
            region = parts[int(rng.integers(len(parts)))]
        else:
            normal = normal + 10.0 ** -rng.integers(0, 9) * rng.normal(size=k)
            normal /= np.linalg.norm(normal)
            least = radius * rng.uniform(-1, 0.6)
            cut = region.cut(normal, least)
            beyond_plane = kept[kept @ normal >= least + 1e-11 * radius]
            # The region is shrunk by nothing else: an axis that was turned says no more than it said.
            assert inside(
                Region(radius, cut.axes, cut.low - 1e-10 * radius, cut.high + 1e-10 * radius), beyond_plane
            ).all()
            region = cut
        everything = np.concatenate([everything, points_in(rng, k, radius, region.axes)])
        assert_covered(region, everything)


def away(points: Array, axis: Array, at: tuple[float, ...], radius: float) -> Array:
    """One for points that are not on a border, where rounding decides."""
    distance = np.abs((points @ axis)[:, None] - np.array(at)).min(axis=1)
    return np.where(distance > 1e-11 * radius, 1, 0)


def test_what_is_empty() -> None:
    whole = Region.whole(3, 1.0)
    e = np.eye(3)
    far = whole.cut(e[0], 0.8).cut(e[1], 0.8)  # 0.8^2 + 0.8^2 > 1
    assert far.frame() is None
    assert whole.cut(e[0], 0.7).cut(e[1], 0.7).frame() is not None  # 0.98 < 1
    assert whole.cut(e[0], 0.3).cut(-e[0], 0.0).frame() is not None  # an axis is dropped rather than believed
    assert whole.with_axis(e[0]).split(0, (-2.0, 2.0))[2].frame() is None
    assert whole.cut(e[0], 1.0).frame() is not None  # the pole itself
    nothing = whole.cut(e[0], 0.5)
    assert Region(1.0, nothing.axes, np.array([0.5]), np.array([0.4])).frame() is None


def test_axes_that_are_not_orthonormal_are_refused() -> None:
    whole = Region.whole(3, 1.0)
    e = np.eye(3)
    for axes in (2 * e[:, :1], np.stack([e[0], e[0]], 1), np.stack([e[0], (e[0] + e[1]) / 2**0.5], 1), 0 * e[:, :1]):
        m = axes.shape[1]
        with pytest.raises(Rejected, match="orthonormal"):
            Region(1.0, axes, -np.ones(m), np.ones(m)).frame()
    with pytest.raises(Rejected, match="orthonormal"):
        Region(1.0, np.full((3, 1), np.nan), -np.ones(1), np.ones(1)).frame()
    with pytest.raises(Rejected, match="axes"):
        Region(1.0, np.eye(3)[:, [0, 1, 2, 0]], -np.ones(4), np.ones(4)).frame()
    with pytest.raises(Rejected, match="orthonormal"):
        whole.cut(e[0], 0.0).with_axis(e[0]).frame()


@given(SEEDS, st.sampled_from([0.991, 1.009]))
def test_normals_of_nearly_unit_length(seed: int, size: float) -> None:
    """A certificate's directions need not be of length 1 exactly."""
    rng = np.random.default_rng(seed)
    normal = size * unit(rng, 3)
    region = Region.whole(3, 1.0).cut(normal, 0.2)
    points = points_in(rng, 3, 1.0, normal[:, None])
    frame = region.frame()
    assert frame is not None
    kept = points[points @ normal >= 0.2 + 1e-12]
    s = np.linalg.solve(frame.columns, (kept - frame.centre).T).T
    assert (np.abs(s[:, 0]) <= 1 + 1e-12).all()
    assert (np.linalg.norm(s[:, 1:], axis=1) <= 1 + 1e-12).all()


@given(SEEDS, st.integers(1, 5), st.integers(0, 3), RADII)
def test_cuts_keep_every_point_where_the_bound_is_positive(seed: int, k: int, axes: int, radius: float) -> None:
    """For directions along the gradient and far from it."""
    rng = np.random.default_rng(seed)
    region = Region.whole(k, radius)
    for _ in range(min(axes, k)):
        region = region.cut(unit(rng, k), radius * rng.uniform(-0.9, 0.1))
    frame = region.frame()
    if frame is None or not np.linalg.norm(frame.columns, axis=0).min() > 1e-9 * radius:
        return
    m = frame.box.shape[1]
    g = rng.normal(size=k) * 10.0 ** rng.integers(-8, 8)
    constant = float(rng.uniform(-1, 0.3) * np.linalg.norm(g))
    bound = Affine(Domain(m), constant, g, constant, 0.0, {})
    direction = frame.columns @ (g / np.square(np.linalg.norm(frame.columns, axis=0)))
    direction = direction / np.linalg.norm(direction) + rng.choice([0.0, 0.1, 1.0]) * unit(rng, k)
    if not np.linalg.norm(direction) > 0:
        return
    normal = direction / np.linalg.norm(direction)
    try:
        rest = beyond(region, frame, bound, normal)
    except Rejected:
        return
    s = rng.normal(size=(2000, k))
    s[:, m:] /= np.maximum(np.linalg.norm(s[:, m:], axis=1, keepdims=True), 1e-9)
    s[:, :m] = np.clip(3 * s[:, :m], -1, 1)
    y = frame.centre + s @ frame.columns.T
    positive = (constant + s @ g > 0) & (np.linalg.norm(y, axis=1) <= radius)
    if rest is None:
        assert not (positive & inside(region, y)).any()
        return
    shares = y[positive & inside(region, y)] @ rest.axes
    assert (shares[:, 0] >= rest.low[0]).all()
    assert (shares >= rest.low - 1e-11 * radius).all()
    assert (shares <= rest.high + 1e-11 * radius).all()


def test_cuts_that_say_nothing() -> None:
    region = Region.whole(2, 1.0)
    frame = region.frame()
    assert frame is not None
    g = np.array([1.0, 0.0])

    def bound(constant: float, gradient: Array = g) -> Affine:
        return Affine(Domain(), constant, gradient, 0.0, 0.0, {})

    for normal, what in (
        (-g, bound(-0.5)),
        (g, bound(np.inf)),
        (g, bound(np.nan)),
        (g, bound(0.0, np.full(2, np.nan))),
    ):
        with pytest.raises(Rejected):
            beyond(region, frame, what, normal)
    assert beyond(region, frame, bound(-1.1), g) is None
    rest = beyond(region, frame, bound(-0.5), g)
    assert rest is not None
    assert abs(rest.low[0] - 0.5) < 1e-7  # in the frame's units, which are a little longer


STRAIGHT = Relaxation(Ball.exact(np.zeros(2)), np.eye(2), 0.0, 1.0, (), (), 0)


def test_splits_of_no_axis() -> None:
    region = Region.whole(2, 1.0).cut(np.array([1.0, 0.0]), 0.0)
    for axis in (1, -1, 10**9, None):
        with pytest.raises(Rejected, match="axis"):
            parted(STRAIGHT, region, Split(axis, None, (), ()))


@given(SEEDS, st.integers(1, 6), st.integers(0, 8), st.sampled_from([1e-200, 1e-8, 1.0, 1e200]))
def test_what_equalities_leave_free(seed: int, width: int, count: int, scale: float) -> None:
    """Every delta that the rows hold still is B y up to the slip; dependent, repeated and zero rows among them."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(0, width + 1))
    rows = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, width)) * 10.0 ** rng.integers(-6, 6, (count, 1))
    rows[rng.random(count) < 0.2] = 0.0
    if count > 1 and rng.random() < 0.3:
        rows[0] = rows[1] * (1 + 1e-9) + 1e-11 * rng.normal(size=width)
    basis, slip, stretch = free_basis(rows * scale, width)
    assert np.linalg.svd(basis, compute_uv=False).max(initial=0.0) <= stretch
    scaled = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    _, sigma, right = np.linalg.svd(scaled, full_matrices=True) if count else (None, np.zeros(0), np.eye(width))
    free = right[int((sigma > 1e-13 * max(1.0, sigma.max(initial=0.0))).sum()) :]  # the null space, to rounding
    for _ in range(5):
        delta = free.T @ rng.normal(size=len(free))
        away_from = np.linalg.norm(delta - basis @ (basis.T @ delta))
        assert away_from <= (slip + 1e-12) * np.linalg.norm(delta)


def test_the_entry_contains_the_perturbed_state() -> None:
    rng = np.random.default_rng(0)
    d = 5
    rows = rng.normal(size=(2, d))
    basis, slip, stretch = free_basis(rows, d)
    start = Ball(rng.normal(size=d), np.full(d, 1e-9))
    relaxation = Relaxation(start, basis, slip, stretch, (), (), 0)
    for radius in (1e-6, 1.0, 1e6):
        region = relaxation.ball(radius).cut(unit(rng, 3), 0.1 * radius)
        frame = region.frame()
        assert frame is not None
        x = relaxation.entry(region, frame)
        for _ in range(200):
            delta = basis @ rng.normal(size=3)
            delta *= radius * rng.random() / np.linalg.norm(delta)
            y = basis.T @ delta
            if not inside(region, y[None])[0]:
                continue
            s = np.linalg.solve(frame.columns, y - frame.centre)
            z = start.mid + delta + 1e-9 * rng.choice([-1, 1], d)
            assert (np.abs(z - x.centre - x.jacobian @ s) <= x.loose + 1e-15 * (np.abs(z) + radius)).all()
