"""From a file and the user's weights to a verdict: the checker's one public function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from .bounds import check_bound
from .errors import Rejected
from .format import Certificate, read_certificate
from .model import Head, load_head
from .sae import Sae
from .setting import Setting
from .tail.weights import BlockWeights, load_blocks
from .weights import load_weights
from .witness import AcceptedWitness, check_witness


@dataclass(frozen=True)
class AcceptedBound:
    """A proven statement: readout <= value for every admissible delta within `radius` (None: of every length)."""

    method: str
    theorem: str
    radius: float | None
    value: float


@dataclass(frozen=True)
class Report:
    """What an accepted certificate proves.

    Attributes:
        verdict: `certified` (a bound at the problem's radius meets the claim), `refuted` (a witness within the radius
            breaks it in exact reals), `refuted by replay` (the witness is admissible, its readout is the recorded run
            of
            the real model, which this checker cannot repeat) or `undecided`.
        digest: of the problem and the weights.
        radius: an upper bound of the problem's radius in absolute units.
        at_most: the claim's threshold.
        bounds: accepted bound steps.
        witnesses: accepted witnesses.
        certified_radius: the largest radius at which a bound meets the claim; inf for all; None when there is none.

    """

    verdict: str
    digest: str
    radius: float
    at_most: float
    bounds: tuple[AcceptedBound, ...]
    witnesses: tuple[AcceptedWitness, ...]

    @property
    def upper(self) -> float:
        """The smallest accepted bound at the problem's radius; inf if there is none."""
        return min((b.value for b in self.bounds if b.radius is None or b.radius >= self.radius), default=np.inf)

    @property
    def certified_radius(self) -> float | None:
        """See the class."""
        radii = [np.inf if b.radius is None else b.radius for b in self.bounds if b.value <= self.at_most]
        return max(radii, default=None)


ASSUMPTIONS = (
    "the recorded residuals (of the last position and, through blocks, of all earlier ones) are what this model "
    "computes at the hook for these tokens (recomputed by `check --replay`)",
    "the model runs its tail as written, rotary angles being exact; what float32 or bf16 adds is not part of the claim",
    "IEEE 754 double precision, and SHA-256",
)
"""What an accepted certificate still rests on."""


@lru_cache(maxsize=4)
def _sae(path: Path, input_scale: float | None, _stamp: tuple[int, ...]) -> Sae:
    return load_weights(path, input_scale)


@lru_cache(maxsize=4)
def _head(path: Path, _stamp: tuple[int, ...]) -> Head:
    return load_head(path)


@lru_cache(maxsize=4)
def _blocks(path: Path, first: int, _stamp: tuple[int, ...]) -> tuple[BlockWeights, ...]:
    return load_blocks(path, first)


def forget_weights() -> None:
    """Drop the decoded weights that are kept between certificates."""
    _sae.cache_clear()
    _head.cache_clear()
    _blocks.cache_clear()


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when any file below `path` is written, so that a cached decoding is not reused for other bytes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [f.stat() for f in files if f.is_file()]
    return tuple(v for s in facts for v in (s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino))


def check(path: Path | str, *, sae: Path | str | None = None, model: Path | str | None = None) -> Report:
    """Check one certificate file against weights on disk.

    Args:
        path: the certificate.
        sae: the SAE's files; None takes the path recorded in the certificate, relative to it.
        model: the model's directory; None likewise.

    Raises:
        Rejected: the file, the weights or any step of it is not accepted.

    """
    try:
        return _check(Path(path), None if sae is None else Path(sae), None if model is None else Path(model))
    except Rejected:
        raise
    except Exception as error:  # hostile bytes find ways that nobody thought of; none of them is acceptance
        raise Rejected(f"cannot be checked ({type(error).__name__}: {str(error)[:200]})") from error


def _check(path: Path, sae: Path | None, model: Path | None) -> Report:
    certificate = read_certificate(path)
    sae_path = path.parent / certificate.sae_path if sae is None else sae
    model_path = path.parent / certificate.model_path if model is None else model
    for what, place, option in (("SAE", sae_path, "--sae"), ("model", model_path, "--model")):
        if not _exists(place):
            raise Rejected(f"the {what} is not at {str(place)[:300]}; say where it is with {option}")
    return check_certificate(certificate, open_setting(certificate, sae_path, model_path))


def open_setting(certificate: Certificate, sae_path: Path, model_path: Path) -> Setting:
    """A parsed certificate's problem with the weights it speaks of, from these paths."""
    stamp = _stamp(model_path)
    return Setting(
        certificate,
        *_matching(
            certificate,
            _sae(sae_path.resolve(), certificate.input_scale, _stamp(sae_path)),
            _head(model_path.resolve(), stamp),
        ),
        lambda first: _blocks(model_path.resolve(), first, stamp),
    )


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name too long, or a directory that may not be entered
        return False


def check_certificate(certificate: Certificate, setting: Setting) -> Report:
    """The same for a parsed certificate and its problem."""
    with np.errstate(all="ignore"):  # overflow and NaN end in a comparison that rejects
        for step in certificate.bounds:
            check_bound(setting, step)
        witnesses = tuple(check_witness(setting, step) for step in certificate.witnesses)
        bounds = tuple(AcceptedBound(s.method, s.theorem, s.radius, s.value) for s in certificate.bounds)
        tau, radius = certificate.problem.at_most, float(setting.radius.high)
        report = Report("undecided", certificate.digest, radius, tau, bounds, witnesses)
    if not radius < np.inf:
        raise Rejected("the problem's radius is not finite")
    proven = any(w.within and w.readout is not None and w.readout > tau for w in witnesses)
    replayed = any(w.within and w.readout is None and w.replay > tau for w in witnesses)
    if report.upper <= tau and proven:
        raise Rejected("a bound and a witness contradict each other")
    if report.upper <= tau:
        verdict = "certified"
    elif proven:
        verdict = "refuted"
    else:
        verdict = "refuted by replay" if replayed else "undecided"
    return replace(report, verdict=verdict)


def _matching(certificate: Certificate, sae: Sae, head: Head) -> tuple[Sae, Head]:
    """The weights, if they are those that the certificate speaks of."""
    for what, found, claimed in (
        ("SAE", sae.digest, certificate.sae_digest),
        ("model", head.digest, certificate.model_digest),
    ):
        if found != claimed:
            raise Rejected(f"the {what}'s weights are {found[:16]}, and the certificate speaks of {claimed[:16]}")
    return sae, head
