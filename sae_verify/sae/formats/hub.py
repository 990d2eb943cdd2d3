"""Where an SAE lies: a local path, a Hugging Face repository in the hub's own cache, a release by its SAELens name."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sae_verify.errors import FileFormatError, InputError, UnsupportedError

NAME = r"[A-Za-z0-9][\w.-]*"
REPOSITORY = re.compile(rf"({NAME}/{NAME})((?:/[\w.-]+)*)")
FILES = (".safetensors", ".npz", ".pt", ".pth")


LABELS = ("dataset_path", "model_name", "hook_name", "neuronpedia_id")
"""What a release's overrides may change without changing what its SAEs compute."""


class Located(NamedTuple):
    """Where an SAE lies, and what the list of releases says about it beside its files."""

    path: Path
    notes: tuple[str, ...] = ()


def locate(path_or_release: str | Path, sae_id: str | None = None) -> Located:
    """Return the local path of an SAE, downloading it if need be; arguments and errors as `load_sae`."""
    path = Path(path_or_release)
    if sae_id is not None:
        _check_id(sae_id)
    if path.exists():
        return Located(path if sae_id is None else path / sae_id)
    release = str(path_or_release)
    repository, folder = _repository(release, sae_id)
    notes = () if REPOSITORY.fullmatch(release) else _overrides(release)
    root = _download(repository, folder)
    return Located(root if folder is None else root / folder, notes)


def _overrides(release: str) -> tuple[str, ...]:
    """What SAELens's list changes for a release: a note on the model, or a refusal where the algebra changes."""
    changes = dict(_releases()[release].get("config_overrides") or {})
    model = changes.pop("model_from_pretrained_kwargs", None)
    other = {key: value for key, value in changes.items() if key not in LABELS}
    if other:
        raise UnsupportedError(
            f"release {release} is loaded by SAELens with {other} in place of what its files say",
            rule="settings come from the files that a certificate can speak of",
            remedy="download it, correct its cfg.json, and load that directory",
        )
    return () if model is None else (f"{release} was trained on a model loaded with {model}: its residuals differ",)


def _check_id(sae_id: str) -> None:
    parts = PurePosixPath(sae_id).parts
    if not parts or ".." in parts or PurePosixPath(sae_id).is_absolute() or any(c in sae_id for c in "*?[\\"):
        raise InputError(
            f"sae_id is {sae_id!r}",
            rule="it is the path of a folder or file inside the release, without '..' or wildcards",
            remedy="give for example 'layer_20/width_16k/average_l0_71'",
        )


def _repository(release: str, sae_id: str | None) -> tuple[str, str | None]:
    """The repository and the folder or file in it."""
    named = REPOSITORY.fullmatch(release)
    if named is None:
        return _release(release, sae_id)
    inside = "/".join(part for part in (named[2].strip("/"), sae_id) if part)
    if inside:
        _check_id(inside)
    return named[1], inside or None


def _release(release: str, sae_id: str | None) -> tuple[str, str | None]:
    """The repository and folder of a release that SAELens knows by this name."""
    known = _releases().get(release)
    if known is None:
        raise FileFormatError(
            f"{release} does not exist",
            rule="it must be a file, a directory, a Hugging Face repository id owner/name, or a SAELens release name "
            "(where SAELens is installed)",
            remedy="check the path; for a SAELens release name give the repository it stands for",
        )
    folders = {str(entry["id"]): str(entry["path"]) for entry in known["saes"]}
    if sae_id not in folders:
        raise InputError(
            f"sae_id is {sae_id!r}",
            rule=f"release {release} has {', '.join(list(folders)[:8])}{', ...' if len(folders) > 8 else ''}",
            remedy="give one of these",
        )
    return known["repo_id"], folders[sae_id] or None


@lru_cache(maxsize=1)
def _releases() -> dict[str, Any]:
    """SAELens's own list of releases, read from its files without importing it; empty where it is not installed."""
    found = importlib.util.find_spec("sae_lens")
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        listing = Path(place) / "pretrained_saes.yaml"
        if listing.is_file():
            import yaml

            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            return yaml.load(listing.read_text(encoding="utf-8"), Loader=loader)
    return {}


def _download(repository: str, folder: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise InputError(
            f"{repository} is not a local path and huggingface_hub is not installed",
            rule="repositories are downloaded with huggingface_hub",
            remedy="pip install 'sae-verify[hf]', or give a local path",
        ) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=_wanted(folder)))
    except (OSError, ValueError, HFValidationError) as error:  # hub and network errors are OSErrors or ValueErrors
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{repository} is not a local path and could not be downloaded: {first_line}",
            rule="it must be a local path or an available Hugging Face repository",
            remedy="check the name, the network and HF_HUB_OFFLINE, or download it and give the path",
        ) from error


def _wanted(folder: str | None) -> list[str]:
    """Patterns of the files that some format reads from this folder, or the one file that is asked for."""
    from sae_verify.sae.formats.registry import FORMATS

    if folder is not None and PurePosixPath(folder).suffix in FILES:
        return [folder]
    prefix = "" if folder is None else f"{PurePosixPath(folder)}/"
    wanted = [f"{prefix}{name}" for known in FORMATS for name in known.downloads]
    for name in [name for name in wanted if name.endswith(".safetensors")]:
        wanted += [f"{name}.index.json", f"{name.removesuffix('.safetensors')}-*.safetensors"]  # in shards
    return list(dict.fromkeys(wanted))
