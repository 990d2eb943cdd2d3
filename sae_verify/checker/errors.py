"""What the checker says when it does not accept; it raises nothing else on purpose."""

from __future__ import annotations


class Rejected(Exception):  # noqa: N818 - the checker's one outcome besides acceptance
    """The certificate, or the weights it speaks of, was not accepted; the message says why."""
