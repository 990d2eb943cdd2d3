"""Theorem held-cell, on SAEs whose arithmetic is exact: every "iff" is tested with ==, boundaries included."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given, settings

from sae_verify.sae import GatedSAE, JumpReLUSAE, TopKSAE

from .exact import refutation
from .integer_saes import M, Point, points

POINTWISE = ("relu", "jumprelu", "gated")
TOPK = ("topk", "topk-rescaled")


def gates(point: Point) -> tuple[list[Fraction], list[Fraction]]:
    """Gate and magnitude without the factor e^r, so that both move along the same column."""
    assert isinstance(point.sae, GatedSAE)
    factor = [Fraction(v) for v in point.sae.r_mag.exp().tolist()]
    magnitude = [Fraction(v) for v in point.sae.magnitudes(point.y).tolist()]
    gate = [Fraction(v) for v in point.sae.pre_activations(point.y).tolist()]
    return gate, [m / f for m, f in zip(magnitude, factor, strict=True)]


def rooms(point: Point, *, clip: bool = True, widest: bool = True) -> tuple[list[bool], list[Fraction]]:
    """The table of the theorem: which features are on, and the room of the others. The options are mutants."""
    if isinstance(point.sae, GatedSAE):
        gate, magnitude = gates(point)
        pick = max if widest else min
        on = [g > 0 and m > 0 for g, m in zip(gate, magnitude, strict=True)]
        return on, [pick(-g, -m) for g, m in zip(gate, magnitude, strict=True)]
    scores = point.scores()
    if isinstance(point.sae, TopKSAE):
        kth = sorted(scores, reverse=True)[point.sae.k - 1]
        level = max(Fraction(0), kth) if clip else kth
        on = [value != 0 for value in point.before]
        return on, [(level - s) / n for s, n in zip(scores, point.norms, strict=True)]
    theta = [Fraction(0)] * M
    if isinstance(point.sae, JumpReLUSAE):
        theta = [Fraction(t) for t in point.sae.threshold.tolist()]
        theta = [max(t, Fraction(0)) for t in theta] if clip else theta
    on = [s > max(t, Fraction(0)) for s, t in zip(scores, theta, strict=True)]
    return on, [t - s for s, t in zip(scores, theta, strict=True)]


def pointwise_fails(point: Point, *, clip: bool = True, widest: bool = True, scaled: bool = True) -> bool:
    """(a), or a mutant of it, is false at this point."""
    on, room = rooms(point, clip=clip, widest=widest)
    scale = point.scale if scaled else Fraction(1)
    for j in range(M):
        kept = point.before[j] == point.after[j]
        says = point.move[j] == 0 if on[j] else scale * point.move[j] <= room[j]
        if kept != says:
            return True
    return False


@given(points(POINTWISE))
@settings(max_examples=100)
def test_a_each_feature_keeps_its_value_iff(point: Point) -> None:
    assert not pointwise_fails(point)


@given(points())
@settings(max_examples=100)
def test_the_package_computes_the_table(point: Point) -> None:
    on, room = rooms(point)
    assert point.sae.active(point.y).tolist() == on
    slack = point.sae.slack(point.y).tolist()
    for j in range(M):
        if not on[j]:
            exact = room[j] / point.scale
            assert abs(slack[j] - exact) <= abs(exact) * Fraction(1, 2**51)  # a length of 3 or 5 divides


def test_a_without_clipping_the_threshold_is_refuted() -> None:
    refutation(points(("jumprelu",)), lambda p: pointwise_fails(p, clip=False))


def test_a_with_the_narrower_of_gate_and_magnitude_is_refuted() -> None:
    refutation(points(("gated",)), lambda p: pointwise_fails(p, widest=False))


def test_a_without_the_input_scale_is_refuted() -> None:
    refutation(points(POINTWISE), lambda p: pointwise_fails(p, scaled=False))


def whole_code_fails(point: Point, *, strict: bool = True, clip: bool = True, forward: bool = True) -> bool:
    """(b), or a mutant of it, is false at this point."""
    on, room = rooms(point, clip=clip)
    assert isinstance(point.sae, TopKSAE)
    level = max(Fraction(0), sorted(point.scores(), reverse=True)[point.sae.k - 1])
    same = point.before == point.after
    moves = [point.scale * m for m in point.move]
    weak = all(m == 0 if o else m <= t for m, o, t in zip(moves, on, room, strict=True))
    sharp = all(m == 0 if o else m < t for m, o, t in zip(moves, on, room, strict=True))
    sufficient = sharp if strict and level > 0 else weak
    return (forward and same and not weak) or (sufficient and not same)


@given(points(TOPK))
@settings(max_examples=100)
def test_b_a_kept_topk_code(point: Point) -> None:
    assert not whole_code_fails(point)


def test_b_with_the_boundary_is_refuted() -> None:
    refutation(points(("topk",)), lambda p: whole_code_fails(p, strict=False))


def test_b_with_a_negative_level_is_refuted() -> None:
    """Fewer than k positive scores: an off feature may rise to zero, not only to the k-th score."""
    refutation(points(TOPK), lambda p: whole_code_fails(p, clip=False))


def part_fails(
    point: Point, share: Fraction, *, nonpositive: bool = True, off_below: bool = True, ties: bool = True
) -> bool:
    """(c), or a mutant of it, is false at this point, for the level `share` of the way from off to on."""
    assert isinstance(point.sae, TopKSAE)
    before, after, held = point.before, point.after, point.held
    on = [value != 0 for value in before]
    same = all(before[j] == after[j] for j in held)
    if same and not all(point.move[j] == 0 for j in held if on[j]):
        return True
    scores, moved = point.scores(), point.scores(point.delta)
    highest_off = max((s for s, o in zip(scores, on, strict=True) if not o), default=None)
    lowest_on = min((s for s, o in zip(scores, on, strict=True) if o), default=None)
    fewer = sum(on) < point.sae.k
    top = lowest_on if lowest_on is not None else Fraction(1)
    if fewer and nonpositive:
        top = min(top, Fraction(0))
    bottom = highest_off if highest_off is not None else top - 1
    level = bottom + share * (top - bottom)
    tied = [bottom == top and s == level for s in scores]
    if ties and any(t and m != 0 for t, m in zip(tied, point.move, strict=True)):
        return False
    if not all(point.move[j] == 0 for j in held if on[j]):
        return False
    for j in range(M):
        if tied[j] and ties and not fewer:
            continue
        if not on[j] and off_below and moved[j] >= level:
            return False
        if on[j] and j not in held and (moved[j] < level or (moved[j] == level and any(tied) and ties)):
            return False
    return not same


SHARES = tuple(Fraction(i, 4) for i in range(5))


@given(points(TOPK))
@settings(max_examples=100)
def test_c_a_part_of_a_topk_code(point: Point) -> None:
    for share in SHARES:
        assert not part_fails(point, share)


def test_c_with_a_positive_level_for_fewer_than_k_is_refuted() -> None:
    refutation(points(TOPK), lambda p: any(part_fails(p, share, nonpositive=False) for share in SHARES))


def test_c_without_the_features_that_are_off_is_refuted() -> None:
    refutation(points(TOPK), lambda p: any(part_fails(p, share, off_below=False) for share in SHARES))


def test_c_a_defended_topk_feature_that_is_off_is_no_half_space() -> None:
    """Why the outer cell of a TopK SAE has none: another feature may push it out of the selection."""

    def rises_and_stays_off(point: Point) -> bool:
        on, room = rooms(point)
        return any(
            not on[j] and point.scale * point.move[j] > room[j] and point.after[j] == point.before[j]
            for j in point.held
        )

    refutation(points(TOPK), rises_and_stays_off)


@given(points())
@settings(max_examples=50)
def test_zero_is_always_admissible(point: Point) -> None:
    on, room = rooms(point)
    assert all(t >= 0 for o, t in zip(on, room, strict=True) if not o)


@given(points(POINTWISE))
@settings(max_examples=100)
def test_zero_width_and_zero_columns(point: Point) -> None:
    """A column of zeros moves nothing, however far delta goes; a room of zero still admits every fall."""
    on, room = rooms(point)
    far = Point(point.sae, point.y, point.delta * 2.0**20, point.held)
    for j in range(M):
        if not point.sae.W_enc[:, j].any():
            assert far.after[j] == far.before[j]
        if not on[j] and room[j] == 0 and far.move[j] <= 0:
            assert far.after[j] == 0


@given(points(("jumprelu",)))
@settings(max_examples=60)
def test_a_negative_threshold_acts_as_zero(point: Point) -> None:
    assume((point.sae.tensors()["threshold"] < 0).any())
    for j, theta in enumerate(point.sae.tensors()["threshold"].tolist()):
        if theta < 0:
            assert (point.before[j] != 0) == (point.scores()[j] > 0)
