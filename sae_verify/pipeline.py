"""The pipeline: bounds from cheap to costly, attacks replayed on the real model, evidence written and re-read."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_verify import checker
from sae_verify.attacks import Pgd, Replay, attack, replay, smallest_radius
from sae_verify.bounds import METHODS, Bound, EveryRadius, Interval, LinearRelaxation, Method, ThroughBlocks
from sae_verify.bounds.confined import confined
from sae_verify.bounds.diagnosis import diagnose
from sae_verify.certificates import Weights, Witness, certificate, locate_weights, open_problem, write_certificate
from sae_verify.certificates.multipliers import evidence
from sae_verify.errors import CertificateRejectedError, InputError, SoundnessError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, Instance, prepare
from sae_verify.problem import Problem
from sae_verify.verdict import Certified, RadiusBracket, Refuted, Result, Undecided, Unsupported, Verdict

OUTWARD = 1e-9
"""Relative. Bounds are sought at a radius this much larger than the problem's, so that it covers the exact one, which
the checker encloses: ||e|| is a difference and known less sharply than ||h||."""
INWARD = 1e-9
"""Relative. Attacks are sought at a radius this much smaller, so that witnesses are exactly within the problem's."""
TAIL_ROUNDING = 1e-9
"""Relative to the readout's cap: what float64 rounding in the attack's tail may amount to in the sandwich check."""

RUN_ROUNDING = 1e-5
"""The same where blocks follow: there the tail's keys and values come from a run in the model's own dtype."""
EFFORT = 12
"""Passes through the blocks for each bound."""
LINEAR_EFFORT = 2
"""Most passes for each linear bound: quadratic models make better use of more."""

SHORTENED = (1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3)
"""Factors for perturbations whose replay turned a held feature on or off: any shorter one is admissible too."""

Progress = Callable[[str, float], None]
"""Called with the stage and the fraction done."""


def _silent(stage: str, fraction: float) -> None:
    del stage, fraction


@dataclass(frozen=True, eq=False)
class _Found:
    """What bounds and attacks found for one prompt, before it is written."""

    instance: Instance
    bounds: tuple[Bound, ...]
    witnesses: tuple[tuple[Array, Replay], ...]
    seconds: float
    run_dtype: str | None
    run_gap: float | None

    def upper(self, radius: float) -> float:
        return min((b.value for b in self.bounds if b.radius is None or b.radius >= radius), default=np.inf)


def certify(
    problem: Problem,
    *,
    out: Path | str | None = None,
    settings: Pgd | None = None,
    effort: int = EFFORT,
    seconds: float | None = None,
    progress: Progress = _silent,
) -> Iterator[Result]:
    """Decide a problem, prompt by prompt.

    Args:
        problem: the question, for a batch of prompts.
        out: directory for the certificates; None uses a temporary one (the evidence is still written and re-read).
        settings: of the attack.
        effort: passes through the blocks, at most, for each bound that needs them; more gives tighter bounds.
        seconds: for the largest certified radius of each prompt through blocks: rounds of growing effort until then.
        progress: told the stage and the fraction done.

    Yields:
        One `Result` a prompt, in order.

    Raises:
        InputError and its kinds: the problem is ill-formed.
        SoundnessError: an attack exceeded a bound, or the checker refused evidence of this package.

    """
    settings = settings or Pgd()
    if effort < 1:
        raise InputError(f"effort is {effort!r}", rule="effort counts passes, at least 1", remedy="give a larger one")
    if seconds is not None and not 0 < seconds < np.inf:
        raise InputError(
            f"seconds is {seconds!r}", rule="a positive, finite number", remedy="leave it out for no limit"
        )
    if out is not None:
        _check_directory(Path(out))
    if problem.hook_point.inside:
        why = f"the checker has no rule for {problem.hook_point}, which is inside a block: it starts at a residual "
        yield from _unsupported(problem, f"{why}stream before or after one. `attack` searches there, too")
        return
    try:
        batch = prepare(problem)
        weights = locate_weights(problem)
    except UnsupportedError as missing:
        yield from _unsupported(problem, str(missing))
        return
    except checker.Rejected as missing:
        yield from _unsupported(problem, f"the checker cannot read the weights: {missing}")
        return
    found = search(batch, settings, progress, _through_blocks(problem, weights, effort, seconds))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(out) if out is not None else Path(scratch)
        for one in found:
            yield _conclude(problem, one, weights, directory, effort, keep=out is not None)


def _check_directory(out: Path) -> None:
    """InputError now, rather than after the work is done, when certificates cannot be written there."""
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"certificates cannot be written to {out}: {existing} is no directory that can be written to",
            rule="the output is a directory",
            remedy="give another one with -o",
        )


DeepBounds = Callable[[Instance, float, Callable[[float], None]], tuple[Bound, ...]]
"""Bounds that cost passes through blocks: of one prompt, from the length of its shortest known recovery; the last
argument is told each radius that is proved."""


def _through_blocks(problem: Problem, weights: Weights, effort: int, seconds: float | None) -> DeepBounds:
    """Bounds that see what the checker will see; none where no block follows the hook."""

    def bounds(instance: Instance, shortest: float, tell: Callable[[float], None]) -> tuple[Bound, ...]:
        if instance.blocks_after == 0:
            return ()
        try:
            setting = open_problem(problem, instance, weights)
            ceiling = shortest * (1.0 - OUTWARD)
            relaxation = confined(setting, instance, ceiling)
            everywhere: Method = EveryRadius(setting, evidence, effort, ceiling)
            interval: Method = Interval(relaxation, setting.functional, ceiling)
            linear: Method = LinearRelaxation(relaxation, setting.functional, min(effort, LINEAR_EFFORT), ceiling)
            quadratic: Method = ThroughBlocks(relaxation, setting.functional, effort, ceiling, seconds, tell)
        except checker.Rejected:
            return ()  # the attack and the cap stand without it
        # For the largest radius the strongest first: where it finds one, a cheaper method has nothing to add.
        return _bounds(instance, (everywhere, interval, linear, quadratic), (quadratic, linear, interval))

    return bounds


def search(
    batch: Batch,
    settings: Pgd,
    progress: Progress = _silent,
    deep: DeepBounds = lambda instance, shortest, tell: (),
) -> tuple[_Found, ...]:
    """Bounds, attacks and replays of all prompts; nothing is written and no verdict given."""
    count = len(batch.instances)
    start = time.perf_counter()
    cheap = [_bounds(instance, METHODS, METHODS) for instance in batch.instances]
    progress("attack", 0.05)
    inward = batch.radii * (1.0 - INWARD)
    worst = attack(batch, inward, settings)
    certified = np.array([_certified_radius(found, i.tau) for found, i in zip(cheap, batch.instances, strict=True)])
    rounds = iter(np.linspace(0.1, 0.3, 60))
    lengths, shortest = smallest_radius(
        batch, settings, certified, worst, lambda: progress("radius", float(next(rounds, 0.3)))
    )
    progress("replay", 0.3)
    shortest = np.where(np.isfinite(lengths)[:, None], shortest, worst.delta)
    witnesses = [_replayed(batch, delta) for delta in (worst.delta, shortest)]
    bounds = []
    for i, instance in enumerate(batch.instances):
        length = float(lengths[i])

        def tell(radius: float, i: int = i, size: float = instance.norm_h, length: float = length) -> None:
            known = f"proved to {radius / size:.3g} ‖h‖, breaks at {length / size:.3g} ‖h‖"
            progress(f"bounds, prompt {i + 1} of {count}, {known}", 0.35 + 0.6 * i / count)

        tell(_certified_radius(cheap[i], instance.tau))
        bounds.append((*cheap[i], *deep(instance, length, tell)))
    seconds = (time.perf_counter() - start) / count
    for instance, value, found in zip(batch.instances, worst.value, bounds, strict=True):
        _sandwich(instance, float(value), found)
    progress("done", 1.0)
    agreement = batch.tail.agreement
    gaps = [None] * count if agreement is None else agreement.difference.amax(dim=0).tolist()
    dtype = None if agreement is None else str(agreement.dtype).removeprefix("torch.")
    return tuple(
        _Found(instance, bounds[i], _distinct(*(found[i] for found in witnesses)), seconds, dtype, gaps[i])
        for i, instance in enumerate(batch.instances)
    )


def _distinct(*witnesses: tuple[Array, Replay]) -> tuple[tuple[Array, Replay], ...]:
    """The witness at the radius and, if it is another one, the shortest."""
    first, shortest = witnesses
    return (first,) if np.array_equal(first[0], shortest[0]) else (first, shortest)


def _bounds(instance: Instance, methods: tuple[Method, ...], for_radius: tuple[Method, ...]) -> tuple[Bound, ...]:
    """Of each method that applies a bound at the problem's radius, and the claim at a radius by the first that can."""
    radius = instance.radius * (1.0 + OUTWARD)
    found: list[Bound] = []
    for method in methods:
        here = method.bound(instance, radius) if method.applies(instance) else None
        found += [] if here is None else [here]
        if here is not None and here.radius is None and here.value <= instance.tau:
            break  # proven for every radius
    else:
        applicable = (method for method in for_radius if method.applies(instance))
        largest = next((bound for method in applicable if (bound := method.certified(instance)) is not None), None)
        found += [] if largest is None else [largest]
    least = min((b.value for b in found if b.radius is None or b.radius >= radius), default=np.inf)
    # A bound that neither meets the claim nor is the best at the radius would only cost the checker time; nor is one of
    # use that another covers.
    useful = [b for b in found if b.value <= max(least, instance.tau)]
    return tuple(b for b in useful if not any(_better(other, b) for other in useful))


def _better(a: Bound, b: Bound) -> bool:
    """Whether a says all that b does, and more."""
    a_reach, b_reach = (np.inf if bound.radius is None else bound.radius for bound in (a, b))
    return a_reach >= b_reach and a.value <= b.value and (a_reach, -a.value) != (b_reach, -b.value)


def _certified_radius(bounds: tuple[Bound, ...], tau: float) -> float:
    return max((np.inf if b.radius is None else b.radius for b in bounds if b.value <= tau), default=0.0)


def _sandwich(instance: Instance, value: float, bounds: tuple[Bound, ...]) -> None:
    """An attack above a bound is a defect, never a verdict."""
    for bound in bounds:
        covers = bound.radius is None or bound.radius >= instance.radius
        rounding = RUN_ROUNDING if instance.blocks_after else TAIL_ROUNDING
        allowance = rounding * (1.0 + float(np.linalg.norm(instance.functional(bound.against)[0])))
        if covers and value > bound.value + allowance:
            raise SoundnessError(
                f"prompt {instance.index}: an attack reached {value!r}, above the {bound.method} bound {bound.value!r}",
                rule="a bound holds for every admissible perturbation",
                remedy="report this with the problem file",
            )


def _replayed(batch: Batch, delta: Array) -> tuple[tuple[Array, Replay], ...]:
    """Each perturbation with its replay; where rounding flips a held feature, a slightly shorter one is tried."""
    found = list(zip(delta, replay(batch, delta), strict=True))
    for factor in SHORTENED:
        rows = [i for i, (_, result) in enumerate(found) if not result.held]
        if not rows:
            break
        shorter = delta[rows] * factor
        for i, one, result in zip(rows, shorter, replay(batch.select(rows), shorter), strict=True):
            if result.held:
                found[i] = (one, result)
    return tuple(found)


def _conclude(problem: Problem, found: _Found, weights: Weights, directory: Path, effort: int, *, keep: bool) -> Result:
    """Write the evidence, re-read it through the checker, and build the verdict from what it accepts."""
    start = time.perf_counter()
    instance = found.instance
    tau = instance.tau
    path = directory / f"{_slug(problem.title)}-{instance.index:03d}.cert"
    good = [(delta, r) for delta, r in found.witnesses if r.held]
    report = _written(problem, found, weights, good, path)
    if report is None:
        # A witness that is not provably admissible is no evidence; the bounds stand without it.
        good = []
        report = _written(problem, found, weights, good, path)
        assert report is not None  # without witnesses a refusal raises
    inside = [r for (_, r), w in zip(good, report.witnesses, strict=True) if w.within and r.value > tau]
    verdict: Verdict
    if report.verdict == "certified":
        verdict = Certified(report)
    elif report.verdict in ("refuted", "refuted by replay") and inside:
        verdict = Refuted(report, max(inside, key=lambda r: r.value))
    else:
        verdict = Undecided(_why(problem, instance, weights, report, effort, replayed=bool(good)))
    # In exact reals where the checker can evaluate the tail, otherwise as the real model ran.
    reached = [w.replay if w.readout is None else w.readout for w in report.witnesses if w.within]
    broken = [
        w.norm for w in report.witnesses if (w.replay if w.readout is None else w.readout) > tau and w.replay > tau
    ]
    return Result(
        case=problem.title,
        prompt=_text(problem, instance),
        held=_held(problem),
        verdict=verdict,
        readout_base=instance.base,
        readout_defended=instance.defended,
        lower=max(reached, default=instance.defended),
        upper=report.upper,
        radius=RadiusBracket(report.certified_radius, min(broken, default=None), instance.norm_h, instance.norm_e),
        trivial=instance.trivial,
        certificate=path if keep else None,
        digest=report.digest,
        seconds=found.seconds + time.perf_counter() - start,
        run_dtype=found.run_dtype,
        run_gap=found.run_gap,
    )


def _written(
    problem: Problem, found: _Found, weights: Weights, good: list[tuple[Array, Replay]], path: Path
) -> checker.Report | None:
    """Write the evidence and let the checker read it from disk; None when it refuses."""
    witnesses = [Witness(delta, r.value, r.dtype) for delta, r in good]
    write_certificate(certificate(problem, found.instance, weights, found.bounds, witnesses, path.parent), path)
    try:
        return checker.check(path)
    except checker.Rejected as reason:
        if not good:
            raise CertificateRejectedError(f"{path.name}: {reason}", rule="a search must end provable") from None
        return None


def _why(
    problem: Problem, instance: Instance, weights: Weights, report: checker.Report, effort: int, *, replayed: bool
) -> str:
    """Why neither side was proved; through blocks also what loses most, and what would help."""
    if not replayed:
        return "the attack's perturbations did not keep the held features in the run's own dtype"
    reason = f"the bound {report.upper:.6g} exceeds the claim and no admissible perturbation was found that breaks it"
    if instance.blocks_after == 0:
        return reason
    blocks = f"{instance.blocks_after} blocks follow the hook"
    try:
        setting = open_problem(problem, instance, weights)
        member = instance.members(1)[0]
        found = diagnose(setting.relaxation, setting.functional(member), instance.radius, instance.tau)
    except checker.Rejected as missing:
        return f"{reason}; {blocks}, and the checker does not enclose them: {missing}"
    radius = report.certified_radius
    proved = f", and the claim is proved up to {radius / instance.norm_h:.4g} ‖h‖" if radius else ""
    if found is None:
        return f"{reason}; {blocks}{proved}"
    return f"{reason}; {blocks}{proved}: {found}. What would help (effort was {effort}): {found.advice()}"


def _text(problem: Problem, instance: Instance) -> str:
    prompt = problem.prompts[instance.index]
    return prompt if isinstance(prompt, str) else " ".join(map(str, instance.tokens))


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "problem"


def _unsupported(problem: Problem, reason: str) -> Iterator[Result]:
    for prompt in problem.prompts:
        yield Result(
            case=problem.title,
            prompt=prompt if isinstance(prompt, str) else " ".join(map(str, prompt)),
            held=_held(problem),
            verdict=Unsupported(reason),
            readout_base=np.nan,
            readout_defended=np.nan,
            lower=-np.inf,
            upper=np.inf,
            radius=RadiusBracket(None, None, np.nan, np.nan),
            trivial=False,
            certificate=None,
            digest=None,
            seconds=0.0,
        )


def _held(problem: Problem) -> str:
    threat = problem.threat
    held = threat.held if threat.held == "free" else f"{threat.held}@{threat.at}"
    return held if threat.positions == 1 else f"{held}, last {threat.positions}"
