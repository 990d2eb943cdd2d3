"""The scalar activation functions that are modelled."""

from __future__ import annotations

import enum

from torch import Tensor
from torch.nn import functional

from sae_verify.errors import UnsupportedError


class Activation(enum.Enum):
    """A scalar function applied to every neuron.

    GELU_ERF: u Phi(u). GELU_TANH: u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))). SILU: u / (1 + exp(-u)).
    """

    GELU_ERF = "gelu"
    GELU_TANH = "gelu_tanh"
    SILU = "silu"

    @classmethod
    def parse(cls, name: object, key: str) -> Activation:
        """Return the activation that a Hugging Face config calls `name` under `key`.

        Raises:
            UnsupportedError: the function is not modelled.
        """
        activation = _NAMES.get(name) if isinstance(name, str) else None
        if activation is None:
            raise UnsupportedError(
                f"config.json has {key} = {name!r}",
                rule=f"the modelled activations are {', '.join(sorted(_NAMES))}",
                remedy="use a model with one of them",
            )
        return activation

    def __call__(self, u: Tensor) -> Tensor:
        """Apply the function to each element of u; the shape is kept."""
        match self:
            case Activation.GELU_ERF:
                return functional.gelu(u)
            case Activation.GELU_TANH:
                return functional.gelu(u, approximate="tanh")
            case Activation.SILU:
                return functional.silu(u)


_NAMES = {
    "gelu": Activation.GELU_ERF,
    "gelu_python": Activation.GELU_ERF,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}
