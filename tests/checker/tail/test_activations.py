"""Activations against mpmath; what is known of them over the whole line is proved here by subdivision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import TINY, Array, Ball, U
from sae_verify.checker.tail import activations
from sae_verify.checker.tail.activations import FACTS, Facts, curvature, facts, jet, slope, third, value, value_range
from sae_verify.checker.tail.elementary import exp, tanh

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

KINDS = tuple(FACTS)


def inner(kind: str, u: Any) -> tuple[Any, Any, Any, Any]:
    """y(u) of u/2 (1 + tanh y) and its three derivatives."""
    if kind == "silu":
        return u / 2, mpmath.mpf(1) / 2, mpmath.mpf(0), mpmath.mpf(0)
    a, b = mpmath.sqrt(2 / mpmath.pi), mpmath.mpf("0.044715")
    return a * (u + b * u**3), a * (1 + 3 * b * u**2), 6 * a * b * u, 6 * a * b


def exact(kind: str, u: Any) -> tuple[Any, Any, Any, Any]:
    """sigma and three derivatives, by other formulas than the checker's, free of cancellation for u << 0."""
    u = mpmath.mpf(u)
    if kind == "tanh":
        t, s = mpmath.tanh(u), mpmath.sech(u) ** 2
        return t, s, -2 * t * s, -2 * s * (s - 2 * t**2)
    if kind == "gelu":
        density = mpmath.exp(-(u**2) / 2) / mpmath.sqrt(2 * mpmath.pi)
        whole = mpmath.erfc(-u / mpmath.sqrt(2)) / 2 if abs(u) < 1e4 else mpmath.mpf(u > 0)  # exp(-1e8 / 2) off
        return u * whole, whole + u * density, density * (2 - u**2), density * (u**3 - 4 * u)
    y, y1, y2, y3 = inner(kind, u)
    half, t, s = 1 / (1 + mpmath.exp(-2 * y)), mpmath.tanh(y), mpmath.sech(y) ** 2  # half = (1 + t) / 2
    f1, f2 = s * y1, s * (y2 - 2 * t * y1**2)
    f3 = s * ((6 * t**2 - 2) * y1**3 - 6 * t * y1 * y2 + y3)
    return u * half, half + u * f1 / 2, f1 + u * f2 / 2, (3 * f2 + u * f3) / 2


def points() -> Array:
    rng = np.random.default_rng(0)
    ends = [0.0, 5e-324, 1e-308, 1e-300, 1e-160, 1e-17, 1e-9, 8.5, 25.0, 27.0, 37.6, 40.0, 350.0, 400.0, 745.2, 790.0]
    critical = [
        1.41421356,
        1.4185,
        2.0,
        2.0134808,
        2.39935728,
        3.435840993,
        0.6584789484,
        0.5493061443,
        1e3,
        1e16,
        1e300,
    ]
    turns = [end for about in FACTS.values() for turn in about.turns for end in turn[:2]]
    values = np.array([*ends, *critical, *turns, 1.7976931348623157e308])
    values = np.concatenate([values, np.nextafter(values, 0.0), np.nextafter(values, np.inf)])
    values = np.concatenate([values, -values, *(rng.normal(size=300) * scale for scale in (1e-6, 0.3, 1, 3, 10, 100))])
    return values[np.isfinite(values)]


def test_the_reference_is_right() -> None:
    sigma: dict[str, Callable[[Any], Any]] = {
        "gelu": lambda u: u * mpmath.ncdf(u),
        "gelu_tanh": lambda u: (
            u / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (u + mpmath.mpf("0.044715") * u**3)))
        ),
        "silu": lambda u: u / (1 + mpmath.exp(-u)),
        "tanh": mpmath.tanh,
    }
    with mpmath.workdps(50):
        for kind in KINDS:
            for u in ("-3.1", "-0.7", "0.01", "1.9", "2.6"):
                for n, got in enumerate(exact(kind, u)):
                    assert abs(got - mpmath.diff(sigma[kind], mpmath.mpf(u), n)) < 1e-20
                got = fourth(kind, Ball.exact(np.array([float(u)])))
                reference = mpmath.diff(sigma[kind], mpmath.mpf(float(u)), 4) / density(kind, abs(float(u)))
                assert got.low[0] <= reference <= got.high[0], (kind, u)


@pytest.mark.parametrize("kind", KINDS)
def test_encloses_value_and_derivatives(kind: str) -> None:
    x = points()
    balls = (*jet(kind, x), value(kind, x))
    worst = [mpmath.mpf(0)] * 4
    with mpmath.workdps(50):
        for i, u in enumerate(x):
            real = exact(kind, float(u))
            for n, (ball, wanted) in enumerate(zip(balls, (*real[:3], real[0]), strict=True)):
                error = abs(wanted - mpmath.mpf(float(ball.mid[i])))
                assert error <= ball.rad[i], (kind, n, u)
                worst[n] = max(worst[n], error / float(ball.rad[i]))
    for ball in balls:
        assert (ball.rad > 0).all()
        assert (ball.rad <= 1e-14 + 2 * U * np.abs(ball.mid)).all()
    assert min(worst) > 0.05  # radii are not padded so much that a wrong formula could hide in them


@pytest.mark.parametrize("kind", KINDS)
@given(v=st.floats(allow_nan=False, allow_infinity=False))
def test_encloses_whatever_float(kind: str, v: float) -> None:
    balls = jet(kind, np.array(v))
    with mpmath.workdps(50):
        for ball, wanted in zip(balls, exact(kind, v)[:3], strict=True):
            assert abs(wanted - mpmath.mpf(float(ball.mid))) <= ball.rad


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_known_of_what_is_no_number(kind: str) -> None:
    bad = np.array([np.nan, np.inf, -np.inf])
    unknown = Ball(np.array([1.0, np.inf, np.nan, 1.0]), np.array([np.inf, 0.0, 0.0, np.nan]))
    for ball in (*jet(kind, bad), value(kind, bad), value_range(kind, unknown)):
        assert (ball.low == -np.inf).all()
        assert (ball.high == np.inf).all()
    centres, reaches = np.array([np.nan, np.inf, -np.inf, 0.0, 0.0]), np.array([1.0, 1.0, np.inf, np.nan, -1e-300])
    assert (third(kind, centres, reaches) == np.inf).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    for ball, flat in zip(
        (*jet(kind, x), value(kind, x)), (*jet(kind, x.ravel()), value(kind, x.ravel())), strict=True
    ):
        assert ball.mid.shape == ball.rad.shape == shape
        assert (ball.mid.ravel() == flat.mid).all()
    assert third(kind, x, np.abs(x)).shape == shape
    assert third(kind, x, np.asarray(0.5)).shape == shape
    assert value_range(kind, Ball(x, np.abs(x))).mid.shape == shape


def test_an_unknown_activation_is_rejected() -> None:
    for call in (
        slope,
        curvature,
        lambda kind: jet(kind, np.zeros(1)),
        lambda kind: third(kind, np.zeros(1), np.ones(1)),
    ):
        with pytest.raises(Rejected, match="'relu' is none of gelu, gelu_tanh, silu, tanh"):
            call("relu")


# What `third` claims of an interval


def intervals() -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    c = np.concatenate([rng.normal(size=150) * 2, rng.normal(size=20) * 20, [0.0, 3.0, -3.0, 1e300, -5e-324, 0.7923]])
    w = np.concatenate([10.0 ** rng.uniform(-6, 1, size=170), [0.0, 0.0, 1e-300, 1.0, 5e-324, 1e-9]])
    return c, w


@pytest.mark.parametrize("kind", KINDS)
def test_third_is_never_below_samples_and_close_above_them(kind: str) -> None:
    c, w = intervals()
    bounds = third(kind, c, w)
    turns = [sign * (start + end) / 2 for start, end, _ in facts(kind).turns for sign in (-1, 1)]
    with mpmath.workdps(30):
        for centre, reach, bound in zip(c, w, bounds, strict=True):
            middle, half = mpmath.mpf(float(centre)), mpmath.mpf(float(reach))
            places = [middle + half * mpmath.mpf(k) / 16 for k in range(-16, 17)]
            places += [mpmath.mpf(turn) for turn in turns if abs(turn - middle) <= half]
            sampled = max(abs(exact(kind, place)[3]) for place in places)
            assert sampled <= bound, (kind, centre, reach)
            assert bound <= 1.02 * sampled + 1e-12, (kind, centre, reach)


@pytest.mark.parametrize("kind", KINDS)
def test_third_of_a_point_and_of_the_line(kind: str) -> None:
    x = np.concatenate([np.linspace(-9, 9, 61), [1e300, -1e300]])
    with mpmath.workdps(30):
        values = np.array([float(abs(exact(kind, float(u))[3])) for u in x])
    at = third(kind, x, np.zeros_like(x))
    assert (at >= values).all()
    near = np.array([all(abs(abs(u) - (a + b) / 2) > 1e-3 for a, b, _ in facts(kind).turns) for u in x])
    assert (at[near] <= values[near] + 1e-13).all()
    highest = max(height for _, _, height in facts(kind).turns)
    assert (third(kind, x, np.full(x.shape, np.inf)) == highest).all()
    assert (third(kind, np.zeros(1), np.array([1e308])) == highest).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_ball_is_mapped_into_its_image(kind: str) -> None:
    rng = np.random.default_rng(3)
    mid = np.concatenate([rng.normal(size=150) * 4, [0.0, 1e300, -1e300, -50.0]])
    rad = np.concatenate([10.0 ** rng.uniform(-18, 2, size=150), [0.0, 1e290, 1.0, 1e-3]])
    image = value_range(kind, Ball(mid, rad))
    with mpmath.workdps(50):
        for i, (m, r) in enumerate(zip(mid, rad, strict=True)):
            for k in range(-8, 9):
                real = exact(kind, mpmath.mpf(float(m)) + mpmath.mpf(float(r)) * k / 8)[0]
                assert abs(real - mpmath.mpf(float(image.mid[i]))) <= image.rad[i], (kind, m, r)
    assert (image.rad <= (slope(kind) * rad + 1e-14) * (1 + 1e-12) + 2 * U * np.abs(image.mid)).all()
    assert image.rad[-1] < 1e-6  # flat there for silu, and flat for the others: the local slope counts


# What FACTS claims of the line, proved: every cell of [0, beyond] is decided in interval arithmetic or split


def rising(function: Callable[[Array], Ball], a: Ball) -> Ball:
    """A rising function of a ball, from its values at the ends."""
    return Ball.between(function(a.low).low, function(a.high).high)


def whole(number: float) -> Ball:
    return Ball.exact(number)


def density(kind: str, u: float) -> Any:
    """The positive factor that `fourth` leaves out."""
    if kind == "gelu":
        return mpmath.npdf(u)
    if kind == "tanh":
        return mpmath.sech(u) ** 2
    return mpmath.sech(inner(kind, mpmath.mpf(u))[0]) ** 2 / 4


def chain(kind: str, v: Ball) -> tuple[Ball, Ball, Ball, Ball, Ball]:
    """z, z', z'', z''' and t = tanh(z / 2) for a logistic gate, over balls."""
    if kind == "silu":
        z, z1, z2, z3 = v, whole(1.0), whole(0.0), whole(0.0)
    else:
        a = Ball(np.asarray(1.5957691216057308), np.asarray(1e-15))
        b = Ball(np.asarray(0.044715), np.asarray(1e-17))
        square = b * v * v
        z, z1 = a * v * (whole(1.0) + square), a * (whole(1.0) + whole(3.0) * square)
        z2, z3 = whole(6.0) * a * b * v, whole(6.0) * a * b
    return z, z1, z2, z3, rising(tanh, whole(0.5) * z)


def derivatives(kind: str, v: Ball) -> tuple[Ball, Ball, Ball]:
    """sigma', sigma'' and sigma''' over balls in u >= 0 (sigma' without its tail's precision)."""
    one, two, three = whole(1.0), whole(2.0), whole(3.0)
    if kind == "tanh":
        t = rising(tanh, v)
        s = one - t * t
        return s, -(two * t * s), -(two * s * (one - three * t * t))
    if kind == "gelu":
        q = rising(exp, whole(-0.5) * v * v) * Ball(np.asarray(0.3989422804014327), np.asarray(1e-16))
        phi = value_of_normal(v)
        return phi + v * q, q * (two - v * v), q * v * (v * v - whole(4.0))
    _, z1, z2, z3, t = chain(kind, v)
    q = whole(0.25) * (one - t * t)
    f1, f2 = q * z1, q * (z2 - t * z1 * z1)
    f3 = q * ((one - whole(6.0) * q) * z1 * z1 * z1 - three * t * z1 * z2 + z3)
    return whole(0.5) * (one + t) + v * f1, two * f1 + v * f2, three * f2 + v * f3


def value_of_normal(v: Ball) -> Ball:
    """Phi over balls, from erf at the ends of v / sqrt(2)."""
    scaled = v * Ball(np.asarray(0.7071067811865476), np.asarray(1e-16))
    return whole(0.5) * (whole(1.0) + rising(activations.erf, scaled))


def fourth(kind: str, v: Ball) -> Ball:
    """sigma'''' over balls, divided by a positive factor (`density`)."""
    one, three, four = whole(1.0), whole(3.0), whole(4.0)
    if kind == "gelu":
        square = v * v
        return whole(7.0) * square - square * square - four
    if kind == "tanh":
        t = rising(tanh, v)
        return whole(8.0) * t * (whole(2.0) - three * t * t)
    _, z1, z2, z3, t = chain(kind, v)
    six = one - whole(1.5) * (one - t * t)  # 1 - 6 q
    twelve = one - three * (one - t * t)  # 1 - 12 q
    square = z1 * z1
    g3 = six * square * z1 - three * t * z1 * z2 + z3
    g4 = six * whole(6.0) * square * z2 - twelve * t * square * square - t * (three * z2 * z2 + four * z1 * z3)
    return four * g3 + v * g4


def proved(decided: Callable[[Ball], Array], start: float, end: float, cells: int = 64, most: int = 400_000) -> bool:
    """Whether `decided` holds for every cell of [start, end], split until it does; False after `most` cells."""
    edges = np.linspace(start, end, cells + 1)
    low, high = edges[:-1], edges[1:]
    seen = 0
    while len(low):
        seen += len(low)
        if seen > most or (high - low).min() < 1e-13 * end:
            return False
        open_ = ~decided(Ball.between(low, high))
        low, high = low[open_], high[open_]
        middle = 0.5 * (low + high)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    return True


def at_most(bound: float, function: Callable[[Ball], Ball], change: Callable[[Ball], Ball]) -> Callable[[Ball], Array]:
    """|function| <= bound over a cell: its value in the middle plus its change, by the mean value theorem."""

    def decided(cell: Ball) -> Array:
        return function(Ball.exact(cell.mid)).magnitude + change(cell).magnitude * cell.rad * (1 + 1e-12) <= bound

    return decided


def facts_hold(kind: str, about: Facts) -> bool:
    """Everything in Facts but the decay beyond `beyond`."""

    def order(n: int) -> Callable[[Ball], Ball]:
        return lambda v: derivatives(kind, v)[n - 1]

    def change_of_third(v: Ball) -> Ball:  # sigma'''' = fourth times a density below 1
        return Ball.between(-fourth(kind, v).magnitude, fourth(kind, v).magnitude)

    steepest = about.slope + (1e-12 if kind == "tanh" else 0.0)  # 1 - tanh^2 <= 1 needs no machine
    if not proved(at_most(steepest, order(1), order(2)), 0.0, about.beyond):
        return False
    if kind != "tanh":  # on the left sigma' is one minus that on the right
        shifted = at_most(about.slope, lambda v: whole(1.0) - order(1)(v), order(2))
        if not proved(shifted, 0.0, about.beyond):
            return False
    if not proved(at_most(about.curvature, order(2), order(3)), 0.0, about.beyond):
        return False
    last = 0.0
    for start, end, height in (*about.turns, (about.beyond, about.beyond, 0.0)):
        signed = start == last or proved(lambda v: (fourth(kind, v).low > 0) | (fourth(kind, v).high < 0), last, start)
        if not signed:
            return False
        if end > start and not proved(at_most(height, order(3), change_of_third), start, end):
            return False
        last = end
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_proved(kind: str) -> None:
    assert facts_hold(kind, FACTS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_close_to_the_truth_and_decay_is_under_way(kind: str) -> None:
    about = facts(kind)
    grid = np.linspace(0, 6, 6001)
    first, second = jet(kind, grid)[1:]
    assert about.slope <= np.abs(first.mid).max() * 1.00001
    assert about.curvature <= np.abs(second.mid).max() * 1.00001
    for start, end, height in about.turns:
        assert height <= activations.third_at(kind, np.array([(start + end) / 2]))[0] * 1.00001
    with mpmath.workdps(1200):
        left = exact(kind, -about.beyond)
        for n, wanted in enumerate((-1 if kind == "tanh" else 0, 0, 0, 0)):
            assert abs(left[n] - wanted) < TINY / 16


def damaged(about: Facts) -> list[Facts]:
    """Each number changed for the worse by little, and each turn forgotten."""
    worse = [about._replace(curvature=about.curvature * (1 - 1e-6))]
    worse.append(about._replace(slope=about.slope * (1 - 1e-6)))
    for i, (start, end, height) in enumerate(about.turns):
        rest = (about.turns[:i], about.turns[i + 1 :])
        changes = ((), ((start, end, height * (1 - 1e-6)),), ((start + 2e-4, end + 2e-4, height),))
        worse += [about._replace(turns=(*rest[0], *turns, *rest[1])) for turns in changes]
    return worse


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_facts_are_not_proved(kind: str) -> None:
    for about in damaged(FACTS[kind]):
        assert not facts_hold(kind, about), about


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("gelu", "SQRT_HALF", 1e-14),
        ("gelu", "PER_SQRT_TAU", 1e-13),
        ("gelu_tanh", "TWICE_SQRT_2_PER_PI", 1e-13),
        ("gelu_tanh", "CUBIC", 1e-12),
    ],
)
def test_a_wrong_constant_is_caught(kind: str, name: str, change: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, name, getattr(activations, name) * (1 + change))
    with pytest.raises(AssertionError):
        test_encloses_value_and_derivatives(kind)


def test_constants_hold_the_real_number_and_what_models_compute() -> None:
    with mpmath.workdps(50):
        reals = {
            "SQRT_HALF": mpmath.sqrt(0.5),
            "PER_SQRT_TAU": 1 / mpmath.sqrt(2 * mpmath.pi),
            "TWICE_SQRT_2_PER_PI": 2 * mpmath.sqrt(2 / mpmath.pi),
            "CUBIC": mpmath.mpf("0.044715"),
        }
        for name, real in reals.items():
            assert abs(mpmath.mpf(getattr(activations, name)) - real) <= U * real
    computed = activations.constant(activations.TWICE_SQRT_2_PER_PI)
    assert abs(2 * np.sqrt(2 / np.pi) - computed.mid) <= computed.rad
