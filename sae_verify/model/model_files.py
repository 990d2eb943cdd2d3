"""From a path or a hub id to a directory with a readable config.json and complete safetensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sae_verify.errors import FileFormatError, InputError, UnsafeFileError
from sae_verify.model.huggingface import optional

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_JSON_BYTES = 64 * 2**20
"""The weight index of the largest models has a few megabytes."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_directory(path_or_id: str | Path) -> Path:
    """Return the directory that holds the model's files, downloading a hub id's snapshot if it is not cached.

    Environment: HF_HUB_OFFLINE=1 uses the cache only; HF_HOME and HF_TOKEN as in huggingface_hub.

    Raises:
        InputError: neither a directory nor an obtainable hub id.
        UnsupportedError: huggingface_hub is not installed.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path
    name = str(path_or_id)
    if isinstance(path_or_id, Path) or path.exists() or not _HUB_ID.fullmatch(name):
        raise InputError(
            f"model {name!r}",
            rule="a model is a directory with config.json and safetensors, or a hub id such as openai-community/gpt2",
            remedy="check the spelling; give the directory, not a file in it",
        )
    hub = optional("huggingface_hub")
    try:
        found = hub.snapshot_download(
            name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"], ignore_patterns=["*/*"]
        )
    except (OSError, ValueError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise InputError(
            f"model {name!r} is no local directory, and the hub gave none: {_first_line(error)}",
            rule="a hub id must be in the cache, or reachable",
            remedy="check the spelling, download it first with `hf download`, or unset HF_HUB_OFFLINE",
        ) from error
    return Path(found)


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        FileFormatError: missing, or not a JSON object.
    """
    return _read_json(directory / "config.json")


def stored_dtypes(directory: Path) -> dict[str, str]:
    """Return the dtype of each stored tensor (safetensors spelling, for example F32), after checking every file.

    Raises:
        FileFormatError: no safetensors, a missing shard, or a truncated file.
        UnsafeFileError: only pickles are there.
    """
    dtypes: dict[str, str] = {}
    for file in _weight_files(directory):
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                dtypes.update({name: opened.get_slice(name).get_dtype() for name in opened.keys()})  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise FileFormatError(
                f"{file} cannot be read as safetensors: {error}",
                rule="header and data must be complete and agree",
                remedy="download or export it again",
            ) from error
    return dtypes


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        weight_map = _read_json(directory / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise FileFormatError(f"{directory / INDEX} has no weight_map", rule="it must map each tensor to a file")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name or not (directory / name).is_file():
                raise FileFormatError(
                    f"{directory / INDEX} names {name!r}, which is not a file beside it",
                    rule="every shard must be present",
                    remedy="download the model again",
                )
        return [directory / name for name in names]
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        raise UnsafeFileError(
            f"{directory} has weights only as {', '.join(pickles)}",
            rule="such files are pickles, which can execute code; none is loaded",
            remedy="save the model again with save_pretrained(..., safe_serialization=True)",
        )
    raise FileFormatError(
        f"{directory} has neither {WEIGHTS} nor {INDEX}",
        rule="weights are read from safetensors",
        remedy="download the model again, or save it with save_pretrained",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FileFormatError(f"{path} has {path.stat().st_size} bytes", rule="it must be below 64 MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} cannot be read as JSON: {error}",
            rule="a model directory holds a UTF-8 config.json beside its safetensors",
            remedy="give the directory that save_pretrained wrote",
        ) from error
    if not isinstance(value, dict):
        raise FileFormatError(f"{path} holds a JSON {type(value).__name__}", rule="it must be a JSON object")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
