"""Settings that decide the algebra, read from untyped metadata: a missing one is an error, never a default."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sae_verify.errors import FileFormatError, InputError, MetadataError, ShapeError, UnsupportedError
from sae_verify.sae.normalization import ConstantNormRescale, Identity, InputScale, LayerNorm, Normalization

NORMALIZATIONS: dict[str, type[Normalization]] = {
    "none": Identity,
    "layer_norm": LayerNorm,
    "constant_norm_rescale": ConstantNormRescale,
}
AVERAGE_NORM = "expected_average_only_in"

NOT_ONE_POSITION: dict[str, str] = {
    "temporal": "its code at one position depends on the positions before it, through attention",
    "clt": "it reads one layer and writes into all later ones, so there is no reconstruction of what it reads",
    "crosscoder": "it reads and writes several layers at once, so no perturbation at one hook point is its error term",
}
"""Architectures that are known and refused, and why: a clamp's error term is that of one position at one hook point."""


def required(settings: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    """Return `settings[key]`, which must be exactly of this type.

    Raises:
        MetadataError: it is missing or of another type.

    """
    if key not in settings or settings[key] is None:
        raise MetadataError(
            f"{path} does not give {key!r}",
            rule="the algebra depends on it and there is no default",
            remedy=f"add {key} to the metadata, as the SAE was trained",
        )
    return optional(settings, key, kind, None, path)


def optional(settings: Mapping[str, Any], key: str, kind: type, default: Any, path: Path) -> Any:
    """Return `settings[key]`, or the format's own documented default where it is missing; errors as `required`."""
    value = settings.get(key, default)
    if value is not default and type(value) is not kind:
        raise MetadataError(f"{key} in {path} is {value!r}", rule=f"it must be of type {kind.__name__}")
    return value


def number(settings: Mapping[str, Any], key: str, path: Path) -> float:
    """Return `settings[key]` as a float; an integer is one. Errors as `required`."""
    if type(settings.get(key)) is int:
        return float(settings[key])
    return required(settings, key, float, path)


def section(settings: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Return a JSON object within another; a missing one is empty.

    Raises:
        FileFormatError: it is something else.

    """
    value = settings.get(key, {})
    if not isinstance(value, dict):
        raise FileFormatError(f"{key} in {path} is {value!r}", rule="it must be a JSON object")
    return value


def text(settings: Mapping[str, Any], key: str) -> str | None:
    """A label, if it is one."""
    value = settings.get(key)
    return value if isinstance(value, str) else None


def refuse_unknown_keys(settings: Mapping[str, Any], known: Collection[str], path: Path, remedy: str = "") -> None:
    """Raise UnsupportedError for a key that is not known."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UnsupportedError(
            f"{path} has unknown keys {unknown}", rule="a key that is not known might change the algebra", remedy=remedy
        )


def one_of(
    settings: Mapping[str, Any], key: str, allowed: Collection[str], path: Path, default: str | None = None
) -> str:
    """Return `settings[key]`, which must be one of `allowed`; otherwise UnsupportedError, with the reason if known."""
    value = default if key not in settings and default is not None else required(settings, key, str, path)
    if value not in allowed:
        why = NOT_ONE_POSITION.get(value, "")
        raise UnsupportedError(
            f"{key} in {path} is {value!r}",
            rule=why or f"supported are {', '.join(map(str, allowed))}",
            remedy="use an SAE that acts on each position alone",
        )
    return value


def check_size(claimed: Mapping[str, int | None], found: Mapping[str, int], path: Path) -> None:
    """Raise ShapeError where a config's size is not that of the tensors."""
    for key, value in claimed.items():
        if value is not None and value != found[key]:
            raise ShapeError(
                f"{path} says {key} = {value}",
                rule=f"the tensors have {key} = {found[key]}",
                remedy="check that config and weights belong together",
            )


def normalization(name: str, input_scale: float | None, path: Path) -> Normalization:
    """Return the normalisation of this name, with the caller's constant scale where there is one.

    Raises:
        MetadataError: the format needs a scale that neither the file nor the caller gives.
        UnsupportedError: the name is unknown.
        InputError: a scale is given for a normalisation that computes its own.

    """
    if name == AVERAGE_NORM and input_scale is None:
        raise MetadataError(
            f"normalize_activations in {path} is {name!r} and the scale is not stored",
            rule="the SAE was trained on activations times sqrt(d_in) / (mean norm), and the weights do not tell "
            "whether that factor is folded into them",
            remedy="give input_scale=1.0 if it is folded in, else input_scale=sqrt(d_in) / (mean norm)",
        )
    if name in (AVERAGE_NORM, "none") and input_scale is not None:
        return InputScale(input_scale)
    if name not in NORMALIZATIONS:
        raise UnsupportedError(
            f"normalize_activations in {path} is {name!r}",
            rule=f"supported are {', '.join((*NORMALIZATIONS, AVERAGE_NORM))}",
            remedy="fold the normalisation into the weights and export the SAE again",
        )
    if input_scale is not None:
        raise InputError(
            f"input_scale is {input_scale!r} and {path} has normalize_activations {name!r}",
            rule=f"{name} computes its own scale",
            remedy="leave input_scale out",
        )
    return NORMALIZATIONS[name]()
