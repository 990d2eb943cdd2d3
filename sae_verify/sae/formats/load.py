"""One entry for every format: look at what is there, and let the format's own reader do the rest."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from sae_verify.errors import FileFormatError, InputError, UnsafeFileError
from sae_verify.sae.base import SAE
from sae_verify.sae.formats.gemma_scope import load_gemma_scope
from sae_verify.sae.formats.plain import load_plain
from sae_verify.sae.formats.saelens import CONFIG, WEIGHTS, load_saelens

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
PARAMS = "params.npz"
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SUPPORTED = f"supported are a SAELens directory ({CONFIG}, {WEIGHTS}), Gemma Scope's {PARAMS} and one .safetensors file"


def load_sae(path_or_release: str | Path, sae_id: str | None = None, *, input_scale: float | None = None) -> SAE:
    """Load an SAE from disk, or from a Hugging Face repository.

    Args:
        path_or_release: a SAELens directory, a Gemma Scope `params.npz` or its directory, or a plain `.safetensors`
            file; or a repository id `owner/name` if no such path exists.
        sae_id: folder inside that directory or repository.
        input_scale: constant s with N(x) = s x. Needed for SAELens `expected_average_only_in`, where 1.0 says that
            the scale is folded into the weights already.

    Returns:
        The SAE with its weights as stored, widened exactly to float32 (float64 if one tensor is). Its `source.path`
        is the directory or file that was read.

    Raises:
        FileFormatError: nothing there, or not in a known format; UnsafeFileError: a pickle.
        MetadataError: a setting that the algebra depends on is missing.
        UnsupportedError: a known format or architecture that is not supported.
        WeightsError, ShapeError: the tensors are not those of one SAE.
        InputError: the repository is not available, or an argument is wrong.

    """
    path = Path(path_or_release)
    if sae_id is not None:
        _check_id(sae_id)
    if not path.exists():
        path = _download(str(path_or_release), sae_id)
    if sae_id is not None:
        path = path / sae_id
    return _load_local(path, input_scale)


def _load_local(path: Path, input_scale: float | None) -> SAE:
    if path.is_dir():
        if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
            return load_saelens(path, input_scale)
        if (path / PARAMS).is_file() and not (path / CONFIG).is_file():
            return load_gemma_scope(path, input_scale)
        raise _not_recognised(path)
    if path.suffix == ".npz":
        return load_gemma_scope(path, input_scale)
    if path.suffix == ".safetensors" and path.is_file():
        if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
            return load_saelens(path.parent, input_scale)
        return load_plain(path, input_scale)
    if path.name == CONFIG and path.is_file():
        return load_saelens(path.parent, input_scale)
    if path.suffix in PICKLES:
        raise _pickle(path)
    raise _not_recognised(path)


def _not_recognised(path: Path) -> InputError:
    if not path.exists():
        return FileFormatError(f"{path} does not exist", rule=SUPPORTED, remedy="check the path and the sae_id")
    if path.is_file():
        return FileFormatError(f"{path} ends in {path.suffix!r}", rule=SUPPORTED, remedy="give the SAE's directory")
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return _pickle(path / pickles[0])
    known = {"params.safetensors": "Gemma Scope 2", "sae.safetensors": "EleutherAI sparsify"}
    known["hyperparams.json"] = "Llama Scope"
    shown = names[:20] + [f"and {len(names) - 20} more"] * (len(names) > 20)
    rule = SUPPORTED
    for name, what in known.items():
        if name in names:
            rule = f"{name} is of {what}, which is not supported yet; {SUPPORTED}"
    return FileFormatError(
        f"{path} holds {shown if names else 'nothing'}", rule=rule, remedy="give the folder of one SAE, or its sae_id"
    )


def _pickle(path: Path) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} is a pickle and was not opened",
        rule=f"pickles can execute code; {SUPPORTED}",
        remedy="export the weights as safetensors",
    )


def _check_id(sae_id: str) -> None:
    parts = PurePosixPath(sae_id).parts
    if not parts or ".." in parts or PurePosixPath(sae_id).is_absolute() or any(c in sae_id for c in "*?[\\"):
        raise InputError(
            f"sae_id is {sae_id!r}",
            rule="it is the path of a folder inside the release, without '..' or wildcards",
            remedy="give for example 'layer_20/width_16k/average_l0_71'",
        )


def _download(release: str, sae_id: str | None) -> Path:
    if not REPO_ID.fullmatch(release):
        raise FileFormatError(
            f"{release} does not exist",
            rule="it must be a file, a directory or a Hugging Face repository id owner/name",
            remedy="check the path; for a SAELens release name give the repository it stands for",
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise InputError(
            f"{release} is not a local path and huggingface_hub is not installed",
            rule="repositories are downloaded with huggingface_hub",
            remedy="pip install 'sae-verify[hf]', or give a local path",
        ) from error
    folder = "" if sae_id is None else f"{PurePosixPath(sae_id)}/"
    wanted = [f"{folder}{name}" for name in (CONFIG, WEIGHTS, PARAMS)]
    try:
        return Path(snapshot_download(release, allow_patterns=wanted))
    except (OSError, ValueError, HFValidationError) as error:  # hub and network errors are OSErrors or ValueErrors
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{release} is not a local path and could not be downloaded: {first_line}",
            rule="it must be a local path or an available Hugging Face repository",
            remedy="check the name, the network and HF_HUB_OFFLINE, or download it and give the path",
        ) from error
