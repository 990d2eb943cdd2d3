"""From a problem to verdicts: search, write the evidence, and conclude what the checker accepts of it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sae_verify import checker
from sae_verify.attacks import Pgd, Replay
from sae_verify.certificates import Weights, Witness, certificate, locate_weights, write_certificate
from sae_verify.errors import CertificateRejectedError, InputError, PromptError, UnsupportedError
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Instance, prepare
from sae_verify.pipeline.deep import EFFORT, through_blocks
from sae_verify.pipeline.search import Found, Progress, search, silent
from sae_verify.problem import Problem
from sae_verify.verdict import Certified, RadiusBracket, Refuted, Result, Undecided, Unsupported, Verdict


def certify(
    problem: Problem,
    *,
    out: Path | str | None = None,
    settings: Pgd | None = None,
    effort: int = EFFORT,
    seconds: float | None = None,
    progress: Progress = silent,
    only: Sequence[int] | None = None,
) -> Iterator[Result]:
    """Decide a problem, prompt by prompt.

    Args:
        problem: the question, for a batch of prompts.
        out: directory for the certificates; None uses a temporary one (the evidence is still written and re-read).
        settings: of the attack.
        effort: passes through the blocks, at most, for each bound that needs them; more gives tighter bounds.
        seconds: for the largest certified radius of each prompt through blocks: rounds of growing effort until then.
        progress: told the stage and the fraction done.
        only: places of the prompts that are decided, counted from zero; None for all.

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
    chosen = _chosen(problem, only)
    if out is not None:
        _check_directory(Path(out))
    if problem.hook_point.inside:
        why = f"the checker has no rule for {problem.hook_point}, which is inside a block: it starts at a residual "
        yield from _unsupported(problem, chosen, f"{why}stream before or after one. `attack` searches there, too")
        return
    try:
        batch = prepare(problem).select(chosen)
        weights = locate_weights(problem)
    except UnsupportedError as missing:
        yield from _unsupported(problem, chosen, str(missing))
        return
    except checker.Rejected as missing:
        yield from _unsupported(problem, chosen, f"the checker cannot read the weights: {missing}")
        return
    found = search(batch, settings, progress, through_blocks(problem, weights, effort, seconds))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(out) if out is not None else Path(scratch)
        for one in found:
            yield _conclude(problem, one, weights, directory, effort, keep=out is not None)


def _chosen(problem: Problem, only: Sequence[int] | None) -> list[int]:
    """The places of the prompts that are decided."""
    count = len(problem.prompts)
    chosen = list(range(count) if only is None else only)
    if not chosen or any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < count for i in chosen):
        raise PromptError(
            f"only is {only!r}", rule=f"places of the problem's prompts, 0 to {count - 1}", remedy="name at least one"
        )
    if len(set(chosen)) < len(chosen):
        raise PromptError(f"only is {only!r}", rule="each place once", remedy="leave out what is there twice")
    return chosen


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


def _conclude(problem: Problem, found: Found, weights: Weights, directory: Path, effort: int, *, keep: bool) -> Result:
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
        verdict = Undecided(_why(found, report, effort, replayed=bool(good)))
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
    problem: Problem, found: Found, weights: Weights, good: list[tuple[Array, Replay]], path: Path
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


def _why(found: Found, report: checker.Report, effort: int, *, replayed: bool) -> str:
    """Why neither side was proved; through blocks also what loses most, and what would help."""
    if not replayed:
        return "the attack's perturbations did not keep the held features in the run's own dtype"
    instance, deep = found.instance, found.deep
    reason = f"the bound {report.upper:.6g} exceeds the claim and no admissible perturbation was found that breaks it"
    if instance.blocks_after == 0:
        return reason
    reason += f"; {instance.blocks_after} blocks follow the hook"
    if deep.missing:
        return f"{reason}, and the checker does not enclose them: {deep.missing}"
    if report.certified_radius:
        reason += f", and the claim is proved up to {report.certified_radius / instance.norm_h:.4g} ‖h‖"
    if deep.diagnosis is None:
        return reason
    return f"{reason}: {deep.diagnosis}. What would help (effort was {effort}): {deep.diagnosis.advice()}"


def _text(problem: Problem, instance: Instance) -> str:
    prompt = problem.prompts[instance.index]
    return prompt if isinstance(prompt, str) else " ".join(map(str, instance.tokens))


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "problem"


def _unsupported(problem: Problem, chosen: Sequence[int], reason: str) -> Iterator[Result]:
    for prompt in (problem.prompts[i] for i in chosen):
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
