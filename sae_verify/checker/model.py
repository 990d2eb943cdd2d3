"""What the checker needs of a language model: final norm, unembedding and the number of blocks, from its own files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Array, Ball
from .errors import Rejected
from .files import Tensor, digest_tensors, json_file, safetensors, shards

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
        "layers": r"(?:transformer\.)?h\.([0-9]{1,6})\.",
        "tied": True,
        "centred": True,
        "offset": 0.0,
    },
    "llama": {
        "norm": "norm",
        "embedding": "embed_tokens.weight",
        "prefix": "model.",
        "epsilon": "rms_norm_eps",
        "blocks": "num_hidden_layers",
        "layers": r"(?:model\.)?layers\.([0-9]{1,6})\.",
        "tied": False,
        "centred": False,
        "offset": 0.0,
    },
}
_FAMILIES["mistral"] = _FAMILIES["qwen2"] = _FAMILIES["qwen3"] = _FAMILIES["llama"]
_FAMILIES["phi3"] = _FAMILIES["llama"] | {
    "own_code": {"configuration_phi3.Phi3Config", "modeling_phi3.Phi3ForCausalLM"},
}
_FAMILIES["gemma2"] = _FAMILIES["gemma3_text"] = _FAMILIES["llama"] | {"tied": True, "offset": 1.0}
_FAMILIES["gpt_neox"] = {
    "norm": "final_layer_norm",
    "embedding": "embed_in.weight",
    "prefix": "gpt_neox.",
    "epsilon": "layer_norm_eps",
    "blocks": "num_hidden_layers",
    "layers": r"(?:gpt_neox\.)?layers\.([0-9]{1,6})\.",
    "tied": False,
    "centred": True,
    "offset": 0.0,
    "heads": ("embed_out", "lm_head"),
}


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """What a Hugging Face model directory of a known family holds, nothing interpreted yet.

    Attributes:
        directory: where it is.
        config: config.json.
        tensors: every stored tensor, mapped.
        family: where that family keeps its parts.

    """

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    family: dict[str, Any]

    def named(self, name: str) -> Tensor | None:
        """A tensor by its name without the family's prefix, or None."""
        full = self.family["prefix"] + name
        if name in self.tensors and full in self.tensors:
            raise Rejected(f"{self.directory}: tensor {name} is there twice, with and without its prefix")
        return self.tensors.get(full, self.tensors.get(name))

    def needed(self, name: str) -> Tensor:
        """The same; a rejection where it is missing."""
        tensor = self.named(name)
        if tensor is None:
            raise Rejected(f"{self.directory}: tensor {name} is missing")
        return tensor

    @property
    def epsilon(self) -> float:
        """What every norm adds to the mean square."""
        epsilon = self.config.get(self.family["epsilon"])
        if not isinstance(epsilon, float) or epsilon <= 0:
            raise Rejected(f"{self.directory}: config.json lacks {self.family['epsilon']}, a positive number")
        return epsilon

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks, on which config.json and the tensors must agree."""
        blocks = self.config.get(self.family["blocks"])
        if type(blocks) is not int:
            raise Rejected(f"{self.directory}: config.json lacks {self.family['blocks']}, a whole number")
        stored = {int(match[1]) for name in self.tensors if (match := re.match(self.family["layers"], name))}
        if stored != set(range(len(stored))) or len(stored) != blocks:
            raise Rejected(f"{self.directory}: config.json speaks of {blocks} blocks, and {len(stored)} are stored")
        return blocks


def read_model(directory: Path) -> ModelFiles:
    """Open a Hugging Face model directory (config.json and safetensors) of a known family."""
    config = json_file(directory / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise Rejected(f"{directory}: model type {kind!r} is not one that the checker reads")
    # Published checkpoints of some built-in architectures also name code of their own, which is then not run.
    own = config.get("auto_map")
    names = [str(value).rpartition("--")[2] for value in own.values()] if isinstance(own, dict) else [""]
    built_in = all(
        name in family.get("own_code", ()) for name in names
    )  # "repository--file.Class", or without the first
    if config.get("quantization_config") or (own and not built_in):
        raise Rejected(f"{directory}: quantised weights and models with their own code are not supported")
    tensors: dict[str, Tensor] = {}
    for file in shards(directory):
        found = safetensors(file)
        if not tensors.keys().isdisjoint(found):
            raise Rejected(f"{file.name}: repeats a tensor of another file")
        tensors.update(found)
    return ModelFiles(directory, config, tensors, family)


def load_head(directory: Path) -> Head:
    """Read the end of a model from its directory."""
    files = read_model(directory)
    config, tensors, family = files.config, files.tensors, files.family
    embedding = files.named(family["embedding"])
    heads = [tensors[name] for head in family.get("heads", ("lm_head",)) if (name := f"{head}.weight") in tensors]
    biased = any(f"{head}.bias" in tensors for head in family.get("heads", ("lm_head",)))
    unembedding = _unembedding(heads, biased, config.get("tie_word_embeddings", family["tied"]), embedding)
    gain = Ball.exact(files.needed(family["norm"] + ".weight").float64())
    if family["offset"]:
        gain = gain + Ball.exact(np.full(gain.mid.shape, family["offset"]))
    bias = files.named(family["norm"] + ".bias") if family["centred"] else None
    shift = np.zeros(gain.mid.shape) if bias is None else bias.float64()
    epsilon, blocks = files.epsilon, files.n_blocks
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


def _unembedding(heads: Sequence[Tensor], biased: bool, tied: object, embedding: Tensor | None) -> Tensor:
    """The stored unembedding; where it can be told in two ways that differ, a rejection."""
    if not isinstance(tied, bool):
        raise Rejected(f"config.json: tie_word_embeddings is {tied!r}")
    if biased:
        raise Rejected("an unembedding with a bias is not supported")
    if len(heads) > 1:
        raise Rejected("the unembedding is stored twice, by an older and by today's name")
    head = heads[0] if heads else None
    if tied and head is not None and embedding is not None and head.digest() != embedding.digest():
        # Loaders disagree on which of the two counts.
        raise Rejected("config.json ties the unembedding to the embedding, and both are stored with different values")
    chosen = embedding if tied else head
    if chosen is None:
        raise Rejected("the unembedding is missing")
    return chosen
