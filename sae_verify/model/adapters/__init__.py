"""One file an architecture, and the registry by `model_type`."""

from __future__ import annotations

from sae_verify.errors import UnsupportedError
from sae_verify.model.adapters.base import Adapter
from sae_verify.model.adapters.gemma2 import Gemma2Adapter
from sae_verify.model.adapters.gemma3 import Gemma3Adapter
from sae_verify.model.adapters.gpt2 import Gpt2Adapter
from sae_verify.model.adapters.gpt_neox import GptNeoxAdapter
from sae_verify.model.adapters.llama import LlamaAdapter
from sae_verify.model.adapters.mistral import MistralAdapter
from sae_verify.model.adapters.phi3 import Phi3Adapter
from sae_verify.model.adapters.qwen2 import Qwen2Adapter
from sae_verify.model.adapters.qwen3 import Qwen3Adapter

ADAPTERS: dict[str, Adapter] = {
    adapter.family: adapter
    for adapter in (
        Gpt2Adapter(),
        GptNeoxAdapter(),
        LlamaAdapter(),
        MistralAdapter(),
        Qwen2Adapter(),
        Qwen3Adapter(),
        Phi3Adapter(),
        Gemma2Adapter(),
        Gemma3Adapter(),
    )
}
"""Every supported architecture."""

__all__ = ["ADAPTERS", "Adapter", "adapter_for"]


def adapter_for(model_type: object) -> Adapter:
    """Return the adapter of a `model_type`.

    Raises:
        UnsupportedError: there is none.
    """
    adapter = ADAPTERS.get(model_type) if isinstance(model_type, str) else None
    if adapter is None:
        raise UnsupportedError(
            f"config.json has model_type = {model_type!r}",
            rule=f"the supported architectures are {', '.join(sorted(ADAPTERS))}",
            remedy="use a model of one of them",
        )
    return adapter
