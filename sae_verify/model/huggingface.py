"""The optional Hugging Face packages, imported only when a model is loaded."""

from __future__ import annotations

import importlib
from typing import Any

from sae_verify.errors import UnsupportedError


def optional(package: str) -> Any:
    """Import `transformers` or `huggingface_hub`.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnsupportedError(
            f"{package} cannot be imported ({error})",
            rule="loading a language model needs it",
            remedy="pip install sae-verify[hf]",
        ) from error
