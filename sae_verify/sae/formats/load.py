"""`load_sae`: find out which format a path holds and read it; fetch it from the hub if it is not a local path."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path, PurePosixPath

from sae_verify.errors import FileFormatError, InputError, UnsupportedError
from sae_verify.sae.base import SAE
from sae_verify.sae.formats.gemma_scope import PARAMS_NAME, load_gemma_scope
from sae_verify.sae.formats.plain import TORCH_SUFFIXES, load_plain
from sae_verify.sae.formats.saelens import is_saelens, load_saelens

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FETCHED = ("*.json", "*.safetensors", "*.npz")
"""What is downloaded from the hub; never a pickle."""

KNOWN_UNSUPPORTED = {
    "sae.safetensors": "EleutherAI sparsify",
    "ae.pt": "dictionary_learning",
    "hyperparams.json": "Llama Scope",
    "params.safetensors": "Gemma Scope 2",
}
"""Files that give away a format which has no reader yet."""


def load_sae(path_or_release: str | Path, sae_id: str | None = None, *, input_scale: float | None = None) -> SAE:
    """Load an SAE from a directory, a file, or a hub repository.

    Formats: SAELens (6 and below), Gemma Scope `params.npz`, and a bare .safetensors file (see `formats.plain`).

    Args:
        path_or_release: a local directory or file; otherwise the hub's repository id, `owner/name`.
        sae_id: the folder (or file) inside it that holds the SAE; the whole directory if not given.
        input_scale: constant factor on the input, for formats that leave it out (see `formats.saelens`).

    Raises:
        FileFormatError: nothing there, nothing that is an SAE, or a broken file.
        UnsafeFileError: a pickle that wants to execute code.
        MetadataError: something that the algebra depends on is missing.
        WeightsError, ShapeError: NaN or infinite weights; weights that do not fit each other.
        UnsupportedError: an SAE whose algebra is not one of ours.
        InputError: an input scale for a format that has none.
    """
    sub = _inside(sae_id)
    root = Path(path_or_release)
    if not root.exists():
        root = _fetch(str(path_or_release), sub)
    path = root / sub
    if not path.exists():
        raise FileFormatError(f"{path} does not exist", rule="it must be a directory or file", remedy="check the path")
    return _read(path, input_scale)


def _read(path: Path, input_scale: float | None) -> SAE:
    if path.is_dir():
        if is_saelens(path):
            return load_saelens(path, input_scale=input_scale)
        if (path / PARAMS_NAME).is_file():
            return _unscaled(path, input_scale)
        raise _unknown(path)
    if path.suffix == ".npz":
        return _unscaled(path, input_scale)
    if path.suffix == ".safetensors" and is_saelens(path.parent) and path.name == "sae_weights.safetensors":
        return load_saelens(path.parent, input_scale=input_scale)
    if path.suffix == ".safetensors" or path.suffix in TORCH_SUFFIXES:
        return load_plain(path, input_scale=input_scale)
    raise FileFormatError(
        f"{path} has the suffix {path.suffix!r}",
        rule="an SAE is a directory, .safetensors, .npz, or a torch state dict",
        remedy="give the directory that holds the SAE",
    )


def _unscaled(path: Path, input_scale: float | None) -> SAE:
    if input_scale is not None:
        raise InputError(
            f"input_scale is {input_scale!r} for a Gemma Scope SAE",
            rule="its input is not scaled",
            remedy="leave it out",
        )
    return load_gemma_scope(path)


def _unknown(path: Path) -> FileFormatError | UnsupportedError:
    seen = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    rule = f"an SAE directory has cfg.json and sae_weights.safetensors (SAELens) or {PARAMS_NAME} (Gemma Scope)"
    for name, owner in KNOWN_UNSUPPORTED.items():
        if name in seen:
            return UnsupportedError(f"{path} looks like {owner} ({name})", rule=rule, remedy="export it as SAELens")
    shown = ", ".join(seen[:20]) + (f" and {len(seen) - 20} more" if len(seen) > 20 else "")
    return FileFormatError(
        f"{path} holds {shown or 'nothing'}",
        rule=rule,
        remedy="give the folder of one SAE, for example with sae_id",
    )


def _inside(sae_id: str | None) -> PurePosixPath:
    """Return sae_id as a path that stays inside its repository."""
    sub = PurePosixPath(sae_id or ".")
    if sub.is_absolute() or ".." in sub.parts:
        raise InputError(f"sae_id is {sae_id!r}", rule="it must be a folder inside the release", remedy="remove '..'")
    return sub


def _fetch(repo_id: str, sub: PurePosixPath) -> Path:
    if not REPO_ID.fullmatch(repo_id):
        raise FileFormatError(
            f"{repo_id} does not exist",
            rule="it must be a local path, or a hub repository id such as owner/name",
            remedy="check the path; for a SAELens release, give the repository that its documentation names",
        )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            f"{repo_id} is not a local path, and huggingface_hub is not installed",
            rule="fetching from the hub needs the 'hf' extra",
            remedy="install sae-verify[hf], or give a local path",
        ) from error
    prefix = "" if sub == PurePosixPath(".") else f"{sub}/"
    patterns = [prefix + pattern for pattern in FETCHED]
    if prefix:
        patterns.append(str(sub))  # sae_id may name a file
    try:
        return Path(hub.snapshot_download(repo_id=repo_id, allow_patterns=patterns))
    except Exception as error:  # the hub client raises its own errors and those of whatever transport it uses
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{repo_id} is not a local path and could not be fetched from the hub{offline}: {reason}",
            rule="it must be a local path or a reachable repository",
            remedy="check the spelling and the connection, or download it and give the local path",
        ) from error
