"""The SAE as frozen data and the algebra that every architecture shares.

Notation: W_enc is (d_in, d_sae), W_dec is (d_sae, d_in), row j of W_dec writes feature j. With a normalisation N and
its companion Ninv:

    xt = N(x) - [subtract_b_dec] b_dec,     z = architecture(xt),     D(z) = Ninv(z W_dec + b_dec).

Everything acts on the last axis and on each position alone. Arithmetic is done in `dtype`; to get the proof side's
float64 on exactly the stored weights, use `sae.to(torch.float64)`. NaN in gives NaN out.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from sae_verify.errors import FeatureError, InputError, ShapeError, UnsupportedError, WeightsError
from sae_verify.sae.normalization import Identity, Normalization

RUN_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Source:
    """Where an SAE came from.

    Attributes:
        format: name of the file format, or `memory` for an SAE built from tensors.
        path: the directory or file it was read from.
        hook_name: hook point as the format spells it, for example `blocks.6.hook_resid_post`.
        model_name: the model it was trained on, as the format spells it.
        architecture: as the format spells it, for example `batchtopk` for what runs as JumpReLU here.
        notes: conventions that a user should know, a sentence each: what was taken as stored, in which units codes are.

    """

    format: str = "memory"
    path: Path | None = None
    hook_name: str | None = None
    model_name: str | None = None
    architecture: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SAE(abc.ABC):
    """A sparse autoencoder at one hook point; subclasses are the architectures.

    Attributes:
        W_enc: (d_in, d_sae) encoder, as stored.
        W_dec: (d_sae, d_in) decoder, as stored.
        b_dec: (d_in,) decoder bias.
        subtract_b_dec: whether b_dec is subtracted from the normalised input (SAELens `apply_b_dec_to_input`).
        normalization: N and Ninv.
        source: where it came from.

    Raises:
        ShapeError: tensors do not fit each other.
        WeightsError: a weight is NaN or infinite.
        InputError: dtypes differ or are neither float32 nor float64.

    """

    held_sets: ClassVar[tuple[str, ...]] = ("free", "preactivations", "defended", "code", "unreachable", "drift")
    """What a threat model may hold of this architecture's code; see `require_held`."""
    held_limits: ClassVar[str] = ""
    """Why the others may not be held."""

    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    subtract_b_dec: bool
    normalization: Normalization = field(default_factory=Identity)
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        for name, tensor in self.tensors().items():
            if not isinstance(tensor, Tensor):
                raise InputError(f"{name} is a {type(tensor).__name__}", rule="weights are torch tensors")
            object.__setattr__(self, name, _dense(tensor.detach()))
        if not isinstance(self.subtract_b_dec, bool):
            raise InputError(f"subtract_b_dec is {self.subtract_b_dec!r}", rule="it must be True or False")
        self._check_shapes()
        self._check_values()
        self.normalization.check(self.d_in)

    def _check_shapes(self) -> None:
        if self.W_enc.ndim != 2 or 0 in self.W_enc.shape:
            raise ShapeError(f"W_enc has shape {tuple(self.W_enc.shape)}", rule="it must be (d_in, d_sae), none zero")
        for name, shape in self._shapes().items():
            tensor = self.tensors()[name]
            if tuple(tensor.shape) != shape:
                raise ShapeError(
                    f"{name} has shape {tuple(tensor.shape)}",
                    rule=f"with W_enc of shape {tuple(self.W_enc.shape)} it must be {shape}",
                    remedy="W_enc is (d_in, d_sae) and W_dec (d_sae, d_in): transpose what is not, "
                    "or check that the tensors belong to one SAE",
                )

    def _check_values(self) -> None:
        for name, tensor in self.tensors().items():
            if tensor.dtype not in RUN_DTYPES or tensor.dtype != self.W_enc.dtype:
                raise InputError(
                    f"{name} is {tensor.dtype} and W_enc is {self.W_enc.dtype}",
                    rule="all weights are float32, or all are float64",
                    remedy="widen them exactly, for example with tensor.float()",
                )
            check_finite(name if self.source.path is None else f"{name} in {self.source.path}", tensor)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and required shape of each tensor, given W_enc."""
        return {
            "W_enc": (self.d_in, self.d_sae),
            "W_dec": (self.d_sae, self.d_in),
            "b_dec": (self.d_in,),
            **dict.fromkeys(self._feature_vectors(), (self.d_sae,)),
        }

    @classmethod
    @abc.abstractmethod
    def _feature_vectors(cls) -> tuple[str, ...]:
        """Names of the architecture's own tensors; each has shape (d_sae,)."""

    def __repr__(self) -> str:
        place = self.source.path or self.source.format
        return f"{type(self).__name__}({self.d_in} x {self.d_sae}, {self.dtype}, {self.source.hook_name}, {place})"

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of every weight: float32 or float64."""
        return self.W_enc.dtype

    def tensors(self) -> dict[str, Tensor]:
        """Return every weight under its field name, in a fixed order (for digests and files)."""
        return {name: getattr(self, name) for name in ("W_enc", "W_dec", "b_dec", *self._feature_vectors())}

    def to(self, dtype: torch.dtype) -> Self:
        """Return the same SAE in another dtype: exact from float32 to float64, rounded the other way.

        Raises:
            InputError: the dtype is neither float32 nor float64.

        """
        if dtype not in RUN_DTYPES:
            raise InputError(f"dtype is {dtype}", rule="an SAE runs in float32 or float64")
        if dtype == self.dtype:
            return self
        return dataclasses.replace(self, **{name: tensor.to(dtype) for name, tensor in self.tensors().items()})

    def require_held(self, held: str) -> None:
        """Raise UnsupportedError unless a threat model may hold this of the code."""
        if held not in self.held_sets:
            raise UnsupportedError(
                f"held={held!r} of a {type(self).__name__}",
                rule=self.held_limits,
                remedy=f"use {' or '.join(map(repr, self.held_sets))}" if self.held_sets else "use another SAE",
            )

    # --- encode -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the encoder's affine part (for gated: the gate's), shape (..., d_sae), before any rescaling."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the code z of x (..., d_in), shape (..., d_sae), in the source format's units."""
        return self._activate(self.pre_activations(x), x)

    @abc.abstractmethod
    def _activate(self, a: Tensor, x: Tensor) -> Tensor:
        """The code, (..., d_sae), from the pre-activations a of x."""

    def active(self, x: Tensor) -> Tensor:
        """Return which features are on, z != 0, bool of shape (..., d_sae)."""
        return self.encode(x) != 0

    def slack(self, x: Tensor) -> Tensor:
        """How far each inactive feature may move before it turns on.

        Entry j is the largest t such that `W_enc[:, j] . delta <= t` (raw stored column, delta in the units of x)
        keeps feature j at zero at x + delta, given that every active feature keeps its value. It is exact: an
        iff in real arithmetic, except that a TopK feature exactly at the cut-off is decided by the tie rule.
        Active features have 0, since keeping their value means `W_enc[:, j] . delta = 0`.

        Returns:
            (..., d_sae), never negative. Computed in `dtype`: a proof has to bound the rounding of x W_enc itself.

        Raises:
            UnsupportedError: the normalisation is not linear in x.

        """
        return self.active_and_slack(x)[1]

    def active_and_slack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `active` and `slack`, both (..., d_sae), from one pass over the encoder; errors as `slack`."""
        scale = self.normalization.linear_scale("the slack")
        x = self._input(x)
        a = self.pre_activations(x)
        active = self._activate(a, x) != 0
        return active, torch.where(active, 0.0, self._raw_slack(a, x) / scale)

    def ties(self, x: Tensor) -> Tensor:
        """Return how many features share the score at the selection's cut-off while not all of them fit, (...,).

        The lowest indices are on. Zero for architectures that decide each feature on its own.
        """
        return torch.zeros(self._input(x).shape[:-1], dtype=torch.long)

    @abc.abstractmethod
    def _raw_slack(self, a: Tensor, x: Tensor) -> Tensor:
        """Slack in the units of the normalised input, valid where the feature is inactive; shape (..., d_sae)."""

    def _input(self, x: Tensor) -> Tensor:
        """Check x (..., d_in) and widen it to `dtype`; never narrow it."""
        if x.ndim == 0 or x.shape[-1] != self.d_in:
            raise ShapeError(
                f"x has shape {tuple(x.shape)}",
                rule=f"its last axis must be d_in = {self.d_in}",
                remedy="check that the SAE belongs to this model and hook point",
            )
        return self._widened(x, "x")

    def _code(self, z: Tensor) -> Tensor:
        """Check z (..., d_sae) and widen it to `dtype`; never narrow it."""
        if z.ndim == 0 or z.shape[-1] != self.d_sae:
            raise ShapeError(f"the code has shape {tuple(z.shape)}", rule=f"its last axis must be d_sae = {self.d_sae}")
        return self._widened(z, "the code")

    def _widened(self, tensor: Tensor, what: str) -> Tensor:
        if tensor.dtype == self.dtype:
            return tensor
        if not tensor.is_floating_point() or torch.promote_types(tensor.dtype, self.dtype) != self.dtype:
            raise InputError(
                f"{what} is {tensor.dtype} and the SAE is {self.dtype}",
                rule="values are widened when that is exact, never narrowed",
                remedy=f"use sae.to({tensor.dtype}), or convert {what} yourself",
            )
        return tensor.to(self.dtype)

    def _centred(self, x: Tensor) -> Tensor:
        """Return xt = N(x) - [subtract_b_dec] b_dec, shape (..., d_in)."""
        xt = self.normalization.forward(self._input(x))
        return xt - self.b_dec if self.subtract_b_dec else xt

    # --- decode -------------------------------------------------------------------------------------------------

    def _decoder_units(self, z: Tensor) -> Tensor:
        """Code in units of the stored decoder rows; shape (..., d_sae). The identity unless the format rescales."""
        return z

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        """Return D(z), shape (..., d_in).

        Args:
            z: (..., d_sae) code.
            x: (..., d_in) the input whose statistics Ninv uses; ignored by linear normalisations.

        """
        return self.normalization.inverse(self._decoder_units(self._code(z)) @ self.W_dec + self.b_dec, self._input(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return D(E(x)), shape (..., d_in)."""
        return self.decode(self.encode(x), x)

    def error(self, x: Tensor) -> Tensor:
        """Return the error term x - D(E(x)), shape (..., d_in)."""
        return self._input(x) - self.reconstruct(x)

    def write(self, dz: Tensor, x: Tensor) -> Tensor:
        """Return the change of the residual when the code changes by dz, shape (..., d_in).

        The linear part of the decoder in the units of x: a clamp to z' gives h = x + write(z' - z, x).
        """
        return (self._decoder_units(self._code(dz)) @ self.W_dec) * self.normalization.output_scale(self._input(x))

    def feature_rows(self, features: Sequence[int]) -> Tensor:
        """Return what one unit of each feature's code writes into the residual, shape (n, d_in).

        Raises:
            FeatureError: an index is out of range.
            UnsupportedError: the normalisation is not linear in x.

        """
        scale = self.normalization.linear_scale("the decoder rows")
        index = self._features(features)
        units = self._decoder_units(torch.ones_like(self.W_dec[:, 0]))  # (d_sae,)
        return self.W_dec[index] * units[index, None] / scale

    def _features(self, features: Sequence[int]) -> Tensor:
        for feature in features:
            if isinstance(feature, bool) or not isinstance(feature, int) or not 0 <= feature < self.d_sae:
                raise FeatureError(
                    f"feature {feature!r}",
                    rule=f"features are integers from 0 to {self.d_sae - 1}",
                    remedy="give indices into the rows of W_dec",
                )
        return torch.tensor(list(features), dtype=torch.long, device=self.W_dec.device)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its memory is dense, row by row or column by column; otherwise a dense copy."""
    if tensor.ndim == 2 and tensor.t().is_contiguous():
        return tensor
    return tensor.contiguous()


FINITE_BLOCK = 2**20
"""Values that are checked at a time, so that a check needs little memory beside the tensor."""


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise WeightsError, with the tensor's name and the count, if a value is NaN or infinite.

    Cost: one pass. A sum of finite values is finite unless it overflows; only then values are looked at one by one.
    """
    rows = tensor.t() if tensor.ndim == 2 and tensor.t().is_contiguous() else tensor.contiguous()
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    blocks = rows.reshape(-1).split(FINITE_BLOCK)
    suspect = [block for block in blocks if not math.isfinite(float(block.sum(dtype=wide)))]
    bad = sum(int((~torch.isfinite(block)).sum()) for block in suspect)
    if bad:
        raise WeightsError(
            f"{name} has {bad} of {tensor.numel()} values that are NaN or infinite",
            rule="weights must be finite",
            remedy="check the download, or export the SAE again",
        )
