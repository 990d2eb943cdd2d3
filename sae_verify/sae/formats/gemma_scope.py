"""Gemma Scope: one `params.npz` with a JumpReLU SAE that does not subtract b_dec (arXiv 2408.05147).

Its transcoders have the same arrays under the same names, and its SAEs of the embedding are in other units; only the
repository's and the folders' names tell, so both are refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path

from sae_verify.errors import UnsupportedError
from sae_verify.sae.base import Source
from sae_verify.sae.formats.files import renamed
from sae_verify.sae.formats.format import Format
from sae_verify.sae.formats.settings import normalization
from sae_verify.sae.formats.stored import Stored, tensor_names
from sae_verify.sae.formats.tensors import read_npz

PARAMS = "params.npz"
SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out"}


def recognises(path: Path) -> bool:
    """A `.npz` file, or a directory that holds `params.npz`."""
    return (path / PARAMS).is_file() and not (path / "cfg.json").is_file() if path.is_dir() else path.suffix == ".npz"


def read(path: Path, input_scale: float | None = None) -> Stored:
    """Read a Gemma Scope SAE.

    Args:
        path: a `.npz` file, or a directory that holds `params.npz`.
        input_scale: constant s with N(x) = s x; Gemma Scope itself needs none.

    Raises:
        FileFormatError, UnsafeFileError, ShapeError, InputError; UnsupportedError for transcoders.

    """
    file = path / PARAMS if path.is_dir() else path
    place = "/".join(file.absolute().parts)
    for word in ("transcoder", "embedding"):
        if "gemma-scope" in place and word in place:
            raise UnsupportedError(
                f"{path} is of Gemma Scope's {word} releases, by its name",
                rule="their arrays have the same names, and mean something else",
                remedy="use an SAE of the residual stream; rename the folder if its name misleads",
            )
    stored = read_npz(file)
    # The released files spell W_enc or w_enc; either, but not a mixture.
    names = tensor_names("jumprelu")
    spelling = {name: name if "W_enc" in stored else name.lower() for name in names}
    return Stored(
        architecture="jumprelu",
        tensors=renamed(stored, spelling, file, "Gemma Scope"),
        subtract_b_dec=False,
        normalization=normalization("none", input_scale, file),
        source=Source("gemma-scope", path, *_labels(place)),
    )


def _labels(place: str) -> tuple[str | None, str | None]:
    """Hook point and model, where the path has the release's names."""
    release = re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp)", place)
    layer = re.search(r"layer_(\d+)", place)
    if release is None or layer is None:
        return None, None
    size, kind, site = release.groups()
    return f"blocks.{layer[1]}.{SITES[site]}", f"google/gemma-2-{size}" + ("-it" if kind == "it" else "")


FORMAT = Format(
    name="gemma-scope",
    title="Gemma Scope",
    layout=PARAMS,
    architectures=("jumprelu",),
    recognises=recognises,
    read=read,
    downloads=(PARAMS,),
    checked=True,
)
