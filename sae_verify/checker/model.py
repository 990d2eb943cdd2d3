"""What the checker needs of a language model: final norm, unembedding and the number of blocks, from its own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Array, Ball
from .errors import Rejected
from .files import Tensor, digest_tensors, safetensors, shards, strict_json

VOLATILE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache"})
"""Keys of config.json that change neither weights nor algebra, and so do not enter the digest."""


@dataclass(frozen=True, eq=False)
class Head:
    """The end of the model: `gain * z / rho [+ shift]`, then one row of the unembedding a token.

    Attributes:
        centred: LayerNorm (z loses its mean) rather than RMSNorm.
        gain: (d,), with a unit offset already added where the architecture has one.
        shift: (d,), the norm's bias, or zeros.
        epsilon: added to the mean square.
        unembedding: (vocabulary, d), stored.
        n_blocks: number of transformer blocks.
        digest: over every tensor of the model and its configuration.

    """

    centred: bool
    gain: Ball
    shift: Array
    epsilon: float
    unembedding: Tensor
    n_blocks: int
    digest: str

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.gain.mid.shape[0]

    def row_difference(self, positive: int, negative: int) -> Ball:
        """U[positive] - U[negative], (d,)."""
        for token in (positive, negative):
            if not 0 <= token < self.unembedding.shape[0]:
                raise Rejected(f"token {token} is outside a vocabulary of {self.unembedding.shape[0]}")
        rows = self.unembedding.float64([positive, negative])
        return Ball.exact(rows[0]) - Ball.exact(rows[1])


_FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "norm": "ln_f",
        "embedding": "wte.weight",
        "prefix": "transformer.",
        "epsilon": "layer_norm_epsilon",
        "blocks": "n_layer",
        "centred": True,
        "offset": 0.0,
    },
    "llama": {
        "norm": "norm",
        "embedding": "embed_tokens.weight",
        "prefix": "model.",
        "epsilon": "rms_norm_eps",
        "blocks": "num_hidden_layers",
        "centred": False,
        "offset": 0.0,
    },
}
_FAMILIES["gemma2"] = {**_FAMILIES["llama"], "offset": 1.0}


def load_head(directory: Path) -> Head:
    """Read a Hugging Face model directory (config.json and safetensors) of a known family."""
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise Rejected(f"{directory}: there is no config.json")
    config = strict_json(config_file.read_bytes(), "config.json")
    family = _FAMILIES.get(config.get("model_type")) if isinstance(config, dict) else None
    if family is None:
        raise Rejected(f"{directory}: model type {config.get('model_type') if isinstance(config, dict) else config!r}")
    tensors: dict[str, Tensor] = {}
    for file in shards(directory):
        tensors.update(safetensors(file))

    def named(name: str) -> Tensor | None:
        return tensors.get(family["prefix"] + name, tensors.get(name))

    def needed(name: str) -> Tensor:
        tensor = named(name)
        if tensor is None:
            raise Rejected(f"{directory}: tensor {name} is missing")
        return tensor

    tied = config.get("tie_word_embeddings", True)
    unembedding = needed(family["embedding"]) if tied else needed("lm_head.weight")
    gain = Ball.exact(needed(family["norm"] + ".weight").float64())
    if family["offset"]:
        gain = gain + Ball.exact(np.full(gain.mid.shape, family["offset"]))
    bias = named(family["norm"] + ".bias") if family["centred"] else None
    shift = np.zeros(gain.mid.shape) if bias is None else bias.float64()
    epsilon, blocks = config.get(family["epsilon"]), config.get(family["blocks"])
    if not isinstance(epsilon, float) or epsilon <= 0 or not isinstance(blocks, int):
        raise Rejected(f"{directory}: config.json lacks {family['epsilon']} or {family['blocks']}")
    if gain.mid.ndim != 1 or unembedding.shape[1:] != gain.mid.shape or shift.shape != gain.mid.shape:
        raise Rejected(f"{directory}: the final norm and the unembedding do not fit")
    settings = {key: value for key, value in config.items() if key not in VOLATILE}
    return Head(
        centred=family["centred"],
        gain=gain,
        shift=shift,
        epsilon=epsilon,
        unembedding=unembedding,
        n_blocks=blocks,
        digest=digest_tensors(tensors, settings),
    )
