"""One typed hierarchy for everything that can go wrong, each message with the value, the rule and the remedy."""

from __future__ import annotations


class SaeVerifyError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: what was seen, with the value.
        rule: the rule it breaks.
        remedy: what the user can do about it.

    """

    exit_code = 2

    def __init__(self, problem: str, *, rule: str = "", remedy: str = "") -> None:
        self.problem, self.rule, self.remedy = problem, rule, remedy
        super().__init__(". ".join(part.rstrip(". ") for part in (problem, rule, remedy) if part) + ".")


class InputError(SaeVerifyError):
    """The user's input breaks a rule (exit code 2)."""


class FileFormatError(InputError):
    """A file is missing, truncated, hostile or not in the format it claims."""


class UnsafeFileError(FileFormatError):
    """A pickle that wants to execute code; it was not loaded."""


class MetadataError(InputError):
    """Metadata that the algebra depends on is missing or unknown; there is no silent default."""


class WeightsError(InputError):
    """Weights are NaN or infinite."""


class ShapeError(InputError):
    """Tensor shapes do not fit each other or the model."""


class HookPointError(InputError):
    """A hook point is misspelt or does not exist in the model."""


class FeatureError(InputError):
    """A feature index is out of range, repeated or not an integer."""


class TokenError(InputError):
    """A token is unknown or not a single token."""


class PromptError(InputError):
    """A prompt is empty or too long."""


class ThreatError(InputError):
    """A threat model is ill-formed: radius, norm, positions or what is held."""


class ProblemFileError(InputError):
    """problem.toml is not valid; the message names the key."""


class TailMismatchError(SaeVerifyError):
    """The float64 tail disagrees with the real model; no result may be built on it."""


class UnsupportedError(SaeVerifyError):
    """Well-formed, but not supported yet: architecture, operation, SAE type (exit code 5)."""

    exit_code = 5


class CertificateRejectedError(SaeVerifyError):
    """The independent checker did not accept a certificate (exit code 4)."""

    exit_code = 4


class SoundnessError(SaeVerifyError):
    """An attack exceeded a bound: a defect in this package, never a verdict."""

    exit_code = 70
