"""All formats, in one tuple, and which of them a path is in. A new format is a file and a line here."""

from __future__ import annotations

from pathlib import Path

from sae_verify.errors import FileFormatError, InputError, UnsafeFileError, UnsupportedError
from sae_verify.sae.formats import (
    deepseek,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    llama_scope,
    openai,
    plain,
    qwen_scope,
    saelens,
    sparsify,
)
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.pickles import OTHER_PICKLES, TORCH, torch_names
from sae_verify.sae.formats.settings import NOT_ONE_POSITION

FORMATS: tuple[Format, ...] = (
    saelens.FORMAT,
    gemma_scope.FORMAT,
    gemma_scope_2.FORMAT,
    dictionary_learning.FORMAT,
    sparsify.FORMAT,
    llama_scope.FORMAT,
    openai.FORMAT,
    goodfire.FORMAT,
    deepseek.FORMAT,
    qwen_scope.FORMAT,
    plain.FORMAT,
)
WEIGHTS = ("ae.pt", "sae_weights.safetensors", "sae.safetensors", "params.safetensors", "cfg.json", "config.json")
"""Files that stand for the directory they lie in, if that is in a known format."""

SUPPORTED = "supported are " + "; ".join(f"{f.title} ({f.layout})" for f in FORMATS)


def format_of(path: Path, name: str | Format | None = None) -> tuple[Format, Path]:
    """Return the format of a path, and the path that it is read from.

    Args:
        path: a directory or a file.
        name: of the format, where the caller knows better, or a format of the caller's own.

    Raises:
        FileFormatError: nothing there, or nothing that is known; UnsafeFileError: a pickle.
        UnsupportedError: known, and refused.
        InputError: no format has this name.

    """
    if isinstance(name, Format):
        return name, path
    if name is not None:
        for known in FORMATS:
            if known.name == name:
                return known, path
        raise InputError(f"format is {name!r}", rule=f"it is one of {', '.join(f.name for f in FORMATS)}")
    if path.is_file() and path.name in WEIGHTS:
        found = [f for f in FORMATS if f.recognises(path.parent)]
        if found:
            return found[0], path.parent
    found = [f for f in FORMATS if f.recognises(path)]
    if found:
        return found[0], path
    alone = [entry for entry in path.iterdir() if entry.suffix in TORCH] if path.is_dir() else []
    if len(alone) == 1:
        return format_of(alone[0])
    raise not_recognised(path)


def not_recognised(path: Path) -> InputError | UnsupportedError:
    """The error for a path that no format recognises: what is there, and what would be."""
    if not path.exists():
        return FileFormatError(f"{path} does not exist", rule=SUPPORTED, remedy="check the path and the sae_id")
    if path.is_file():
        return _file(path)
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    if any(name.startswith("W_enc_") and name.endswith(".safetensors") for name in names):
        return UnsupportedError(f"{path} holds a cross-layer transcoder", rule=NOT_ONE_POSITION["clt"])
    several = [name for name in names if Path(name).suffix in TORCH]
    if several:
        return FileFormatError(
            f"{path} holds {several[:20]}",
            rule="a folder of .pt files is not one SAE",
            remedy="give one of the files, as the path or as sae_id",
        )
    pickles = [name for name in names if Path(name).suffix in OTHER_PICKLES]
    if pickles:
        return _file(path / pickles[0])
    shown = names[:20] + [f"and {len(names) - 20} more"] * (len(names) > 20)
    return FileFormatError(
        f"{path} holds {shown if names else 'nothing'}",
        rule=SUPPORTED,
        remedy="give the folder of one SAE, or its sae_id",
    )


def _file(path: Path) -> InputError:
    if path.suffix in OTHER_PICKLES:
        return UnsafeFileError(
            f"{path} is a pickle and was not opened",
            rule=f"pickles can execute code; {SUPPORTED}",
            remedy="export the weights as safetensors",
        )
    if path.suffix in TORCH:
        return FileFormatError(
            f"{path} has {sorted(torch_names(path))[:20] or 'nothing that can be read'}",
            rule="from their names alone it does not follow what they compute",
            remedy=f"give format=, one of {', '.join(f.name for f in FORMATS)}, or export it for SAELens",
        )
    return FileFormatError(f"{path} ends in {path.suffix!r}", rule=SUPPORTED, remedy="give the SAE's directory")
