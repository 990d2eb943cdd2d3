"""The four verdicts and the result of one prompt. A verdict cannot be built without its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_verify.attacks import Replay
from sae_verify.checker import Report
from sae_verify.errors import SoundnessError


@dataclass(frozen=True)
class Certified:
    """No admissible perturbation breaks the claim; `report` is the independent checker's acceptance."""

    report: Report
    name = "certified"

    def __post_init__(self) -> None:
        if self.report.verdict != "certified" or not self.report.upper <= self.report.at_most:
            raise SoundnessError(
                f"the checker's verdict is {self.report.verdict!r}", rule="Certified needs an accepted certificate"
            )


@dataclass(frozen=True)
class Refuted:
    """An exactly admissible perturbation, replayed through the real model with the clamp active, breaks the claim."""

    report: Report
    replay: Replay
    name = "refuted"

    def __post_init__(self) -> None:
        accepted = self.report.verdict in ("refuted", "refuted by replay")
        if not (accepted and self.replay.held and self.replay.value > self.report.at_most):
            raise SoundnessError(
                f"the checker says {self.report.verdict!r} and the replay gave {self.replay.value!r}",
                rule="Refuted needs an accepted witness and a replay above the claim",
            )


@dataclass(frozen=True)
class Undecided:
    """Neither proven nor broken; the bracket says how near it is, `reason` why."""

    reason: str
    name = "undecided"


@dataclass(frozen=True)
class Unsupported:
    """The question is well-formed and cannot be handled yet; `reason` says what is missing."""

    reason: str
    name = "unsupported"


Verdict = Certified | Refuted | Undecided | Unsupported


@dataclass(frozen=True)
class RadiusBracket:
    """Where the claim breaks, in absolute units: never below `certified`, at the latest at `attacked`.

    Attributes:
        certified: largest radius with an accepted certificate; inf for every radius; None when there is none.
        attacked: length of the shortest replayed witness; None when none was found.
        norm_h: ||h||. norm_e: ||e||, the units that tables use.

    """

    certified: float | None
    attacked: float | None
    norm_h: float
    norm_e: float


@dataclass(frozen=True)
class Result:
    """What `certify` found for one prompt.

    Attributes:
        case: title of the problem. prompt: its text, or its token ids as text. held: what is held, and where.
        verdict: with its evidence.
        readout_base, readout_defended: of the real model, plain and clamped.
        lower: readout that the best replayed witness within the radius reached (the clamped readout if none is better).
        upper: the smallest accepted bound at the radius.
        radius: bracket of the recovery radius.
        trivial: the held equalities leave only delta = 0.
        certificate: the file, if one was written. digest: of the prompt's question and the weights.
        seconds: wall time spent on this prompt; shared work is divided evenly.
        run_dtype: what the model ran in; proofs are about exact arithmetic on its stored weights.
        run_gap: largest difference of a logit between that run and the float64 tail, over the perturbations that were
            compared (see `Agreement`); None where nothing was run.

    """

    case: str
    prompt: str
    held: str
    verdict: Verdict
    readout_base: float
    readout_defended: float
    lower: float
    upper: float
    radius: RadiusBracket
    trivial: bool
    certificate: Path | None
    digest: str | None
    seconds: float
    run_dtype: str | None = None
    run_gap: float | None = None
